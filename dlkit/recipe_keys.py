"""The keys of recipes: what each one takes, what it is by default and what it does, for `dlkit recipes keys`.

Nothing is written down here: the keys come from the sections' fields, and the options of a model, a dataset or an
augmentation from the signature and the docstring of its function.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from operator import getitem, or_
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dlkit import data as datasets
from dlkit import models, recipe
from dlkit.tasks import TASKS
from dlkit.values import accepted, defaults_of, members, parameters_of

# The arguments of a builder that follow from the data: a recipe cannot set them.
OF_DATA = {"input_shape", "classes", "source_vocabulary", "target_vocabulary", "vocabulary"}
OF_DATA |= {"features", "outputs", "every_step", "frame_shape"}


@dataclass(frozen=True)
class Key:
    """A key that a recipe may have.

    Args:
        key: "section.key".
        accepts: its type in words.
        default: what it is when nobody gives it.
        about: what it does.
        required: whether it has to be given, so that the default stands for nothing.
    """

    key: str
    accepts: str
    default: Any
    about: str
    required: bool = False


def keys(model: str | None = None, data: str | None = None, *, data_dir: Path | None = None) -> list[Key]:
    """All keys in the order of the sections.

    Args:
        model: adds the options of this model, and what its task takes for defaults; leaves out what nothing reads then.
        data: adds the options of this dataset; leaves out `data.dir` where nothing lies prepared.
        data_dir: the folder of prepared data.

    Raises:
        dlkit.errors.UsageError: there is no such model or dataset, or the dataset lies in no folder of prepared data.
    """
    task = models.task_of(model) if model else None
    of_task, kind = (TASKS[task].defaults, TASKS[task].data_kind) if task else ({}, None)
    dataset = datasets.builder(data, data_dir, kind=kind) if data else None
    if data:
        recipe.check_data_dir(data, data_dir, kind=kind)
    found = []
    for section, fields in recipe.SECTIONS.items():
        for name, declared in fields.model_fields.items():
            key, required = f"{section}.{name}", declared.is_required()
            ignored = task is not None and recipe.why_ignored(key, task) is not None
            ignored = ignored or (key == "train.label_smoothing" and dataset is not None and _has_numbers(dataset))
            if name == "options" or ignored or (key == "data.dir" and dataset and not recipe.lies_prepared(dataset)):
                continue
            default = of_task.get(key, None if required else declared.default)
            accepts = accepted(_choices(key, recipe.type_of(declared), model))
            found.append(Key(key, accepts, default, declared.description or "", required))
        if section == "model" and model:
            builder = models.builder(model)
            found += _options("model", builder, arguments_in(builder), without=OF_DATA)
        if section == "data" and dataset:
            found += _of_dataset(dataset, kind or datasets.kind_made(dataset), model)
    return found


def _has_numbers(dataset: Callable[..., Any]) -> bool:
    """Whether the examples of a dataset have numbers to be told, and no labels that could be smoothed.

    Of a dataset of a user that cannot be made without an option it is not known.
    """
    return datasets.kind_made(dataset) == "sequences" and not _wants_more(dataset) and not dataset().classes


def _wants_more(function: Callable[..., Any], *given: str) -> bool:
    """Whether a function has arguments that must be given, beside these."""
    return any(
        parameter.default is parameter.empty and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given
    )


def _choices(key: str, annotation: Any, model: str | None) -> Any:
    """The type of a key without the choices that no training of a model knows; a net of a user may have heads."""
    ours = {name for group in models.MODELS_BY_TASK.values() for name in group}
    if key != "train.resample" or model == "heads" or model not in ours:
        return annotation
    kinds: list[Any] = []
    for member in members(annotation):
        words = tuple(word for word in get_args(member) if word != "head_bootstrap")
        kinds.append(getitem(Literal, words) if get_origin(member) is Literal else member)
    return reduce(or_, kinds)


def _has_state(model: str) -> bool:
    """Whether a language model may have a state that can be carried from batch to batch."""
    from dlkit.probe.record import unallocated

    if _wants_more(models.builder(model), "vocabulary"):  # one of a user, which cannot be made to be looked at
        return True
    with unallocated():
        return hasattr(models.build(model, vocabulary=8), "zero_state")


def _of_dataset(function: Callable[..., Any], kind: str, model: str | None) -> list[Key]:
    """The options of a dataset and, where it is of images, of training on them."""
    from dlkit.data.augment import AUGMENTATIONS, MIXES

    ignored = {"carry"} if kind == "corpus" and model and not _has_state(model) else set()
    without = ignored.union(recipe.DataSection.model_fields)
    found = _options("data", function, arguments_in(function), without=without)
    if kind not in recipe.AUGMENTED:
        return found
    captions = kind == "captions"
    if not captions:
        weights = accepted(recipe.image_options()["class_weights"])
        found.append(
            Key("data.class_weights", weights, None, "what an image of each class weighs in the training loss")
        )
    for name, own in recipe.augmentation_options().items():
        if captions and name in MIXES:
            continue
        described = arguments_in(AUGMENTATIONS[name])
        for key, parameter in own.items():
            about = f"of {name}: {described.get(parameter.name, '')}"
            found.append(Key(f"data.{key}", accepted(parameter.annotation), parameter.default, about))
    return found


def _options(section: str, function: Callable[..., Any], described: dict[str, str], *, without: set[str]) -> list[Key]:
    """The arguments of a function, with how each is described, as keys."""
    defaults = defaults_of(function)
    return [
        Key(f"{section}.{name}", accepted(parameter.annotation), defaults.get(name), described.get(name, ""))
        for name, parameter in parameters_of(function).items()
        if name not in without
    ]


def arguments_in(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function or class says of each argument, in one line.

    Base classes are looked through as well, and the `preparation` of a reader of texts.

    Example:
        >>> arguments_in(lenet)["classes"]
        'number of classes'
    """
    while isinstance(function, partial):
        function = function.func
    found = arguments_in(function.preparation) if hasattr(function, "preparation") else {}
    for described in reversed(function.__mro__) if isinstance(function, type) else [function]:
        section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.cleandoc(described.__doc__ or ""), re.MULTILINE)
        entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
        found |= {name: " ".join(text.split()).removesuffix(".") for name, text in entries}
    return found
