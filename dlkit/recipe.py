"""Recipes: what a run is made of, as text. TOML in, overrides, did-you-mean, TOML out.

A recipe has four sections: [model] and [data] name a model and a dataset and give their options, which are checked
against the functions that take them; [train] and [decode] are declared here. A value comes from a flag, else from
`--set`, else from the recipe file, else from the task, else it is the default, and the recipe remembers which.

This module imports pydantic, so help and completion import it only where they need it.
"""

import inspect
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from dlkit import data as datasets
from dlkit import file_system, models
from dlkit.errors import DataError, DlkitError, UsageError, nearest, unknown
from dlkit.tasks import POINTS, TASKS, TaskInfo
from dlkit.values import (
    Count,
    Positive,
    Rate,
    Share,
    Words,
    check_call,
    check_value,
    defaults_of,
    members,
    parameters_of,
    toml_key,
    toml_value,
    unknown_key,
)

# Where a value can come from, the weakest first.
SOURCES = ("default", "task default", "recipe", "set", "flag")
_BY_USER = SOURCES[2:]

# ---------------------------------------------------------------------------------------------------------- the fields

Duration = Annotated[str, Field(pattern=r"^\d+(\.\d+)?[smh]$"), Words("a time such as 90s, 10m or 2h")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSection(_Section):
    """[model]: a name of `dlkit models`; every other key is an option of its builder, checked when it is built."""

    name: str = Field(description="a name of `dlkit models`")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the builder")


class DataSection(_Section):
    """[data]: a name of `dlkit data list`; every other key is an option of the dataset or one of `image_options`."""

    name: str = Field(description="a name of `dlkit data list`")
    dir: Path | None = Field(None, description="the folder that prepared data lies in")
    augment: list[str] = Field([], description="random changes of the training images")
    options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the dataset, of the augmentations, and class_weights"
    )


class TrainSection(_Section):
    """[train]: how long, how fast, how carefully."""

    epochs: Positive | None = Field(None, description="passes over the training data; excludes steps")
    steps: Count | None = Field(None, description="updates of the weights; excludes epochs")
    batch_size: Count = Field(64, description="examples per update, over all devices and micro-batches")
    batch_tokens: Count | None = Field(
        None,
        description="instead of batch_size: tokens of an update, at most so many on either side, padding included; "
        "a longer pair is a batch of its own",
    )
    accumulate: Count = Field(1, description="micro-batches that one update is computed in, to save memory")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adam", description="the update rule")
    lr: Positive = Field(1e-3, description="the largest learning rate of the schedule")
    momentum: Rate = Field(0.9, description="of sgd")
    nesterov: bool = Field(False, description="look ahead along the momentum, with sgd")
    beta1: Rate = Field(0.9, description="decay of the mean of the gradients, in adam and adamw")
    beta2: Rate = Field(0.999, description="decay of the mean of their squares, in adam and adamw")
    epsilon: Positive = Field(1e-8, description="added to the denominator of adam and adamw")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="not on biases and normalization")
    schedule: Literal["constant", "step", "cosine", "one_cycle", "polynomial", "inverse_sqrt", "noam", "plateau"] = (
        Field("constant", description="how the learning rate changes")
    )
    warmup: Annotated[int, Field(ge=0)] | Share = Field(
        0, description="linear rise of the learning rate: a number of steps, or below 1 a share of all steps"
    )
    final_lr: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="share of lr that cosine, one_cycle and polynomial end at"
    )
    milestones: list[Share] = Field([0.5, 0.75], description="shares of the training at which step lowers the rate")
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="factor of step and plateau")
    power: Positive = Field(1.0, description="exponent of polynomial")
    plateau_patience: Positive = Field(5.0, description="epochs without progress before plateau lowers the rate")
    sampling: Literal["constant", "linear", "exponential", "inverse_sigmoid"] | None = Field(
        None, description="scheduled sampling: how the probability changes that a decoder reads its own word"
    )
    sampling_rate: Share = Field(0.25, description="the largest probability of scheduled sampling")
    progressive: list[Share] = Field(
        [], description="sides of the images early in training, as shares of the whole side: small ones take less time"
    )
    progressive_until: list[Share] = Field([], description="shares of all steps until which each of them lasts")
    label_smoothing: Rate = Field(0.0, description="probability spread evenly over all classes")
    clip_norm: Positive | None = Field(None, description="largest global norm of the gradient")
    clip_value: Positive | None = Field(None, description="largest absolute value of a gradient's entry")
    ema: Share | None = Field(None, description="decay of a moving average of the weights, evaluated beside them")
    precision: Literal["float32", "bfloat16", "float64"] = Field(
        "float32", description="bfloat16 multiplies in bfloat16 and keeps the weights in float32"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of everything that is drawn")
    monitor: str | None = Field(
        None,
        description="metric that chooses the best checkpoint, the lower loss deciding a tie; by default the task's",
    )
    select: Literal["best", "last"] = Field(
        "best",
        description="the checkpoint that the run stands for and is tested by: the best on the validation split, or the "
        "last that was evaluated, as suits a rate that ends at 0",
    )
    patience: Count | None = Field(None, description="evaluations without progress after which training stops")
    evaluate_every: Positive = Field(1.0, description="epochs between evaluations")
    decode_every: Count | None = Field(
        1, description="evaluations between those that also decode, greedily, as the last one does; none for never"
    )
    checkpoint_every: Count | None = Field(None, description="steps between checkpoints; by default at each evaluation")
    keep: Count = Field(3, description="number of checkpoints that are kept, beside the best")
    op_threads: Count | None = Field(
        None, description="threads of one operation; by default all, while of small ones rather several run at a time"
    )
    log_every: Count | None = Field(None, description="steps between log lines; by default 50, or an epoch")
    limit: Count | None = Field(None, description="use this many examples of each split")
    max_time: Duration | None = Field(None, description="stop and save after this time, such as 90s, 10m or 2h")
    deterministic: bool = Field(False, description="the same bits every time on the same device, at some cost in speed")
    tensorboard: bool = Field(False, description="also write TensorBoard logs")
    resample: Literal["bootstrap", "head_bootstrap", "part"] | None = Field(
        None,
        description="train on examples drawn with replacement, as the seed says (bootstrap), for each head of a net by "
        "itself (head_bootstrap), or on one of several disjoint parts (part)",
    )
    part: Annotated[int, Field(ge=0)] = Field(0, description="which part of the examples, from 0")
    parts: Count = Field(1, description="disjoint parts that the training examples are divided into")
    freeze: list[str] = Field([], description="patterns of layer names that are not trained, such as stage1_*")
    init_from: str | None = Field(None, description="a run whose weights training starts from")

    @property
    def batch(self) -> tuple[int, str]:
        """What an update is made of at most: a number, of "tokens" where batch_tokens is given, else of "examples"."""
        return (self.batch_size, "examples") if self.batch_tokens is None else (self.batch_tokens, "tokens")


class DecodeSection(_Section):
    """[decode]: how text is generated."""

    max_len: Count = Field(100, description="largest number of tokens, the end token included")
    beams: Count = Field(5, description="prefixes that beam search keeps; 1 is greedy search")
    length_norm: Literal["avg", "gnmt", "none"] = Field(
        "avg", description="by what the log-probabilities of outputs of different lengths are divided"
    )
    alpha: Annotated[float, Field(ge=0)] = Field(0.6, description="exponent of the normalization gnmt")


# Kinds of data whose images training may change; those of captions are not mixed, since sentences cannot be.
AUGMENTED = ("images", "captions")

SECTIONS: dict[str, type[_Section]] = {
    "model": ModelSection,
    "data": DataSection,
    "train": TrainSection,
    "decode": DecodeSection,
}


def seconds(duration: str) -> float:
    """The seconds in a time such as `90s`, `10m` or `2h`."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


# ---------------------------------------------------------------------------------------------------------- the recipe


@dataclass(frozen=True)
class Recipe:
    """A whole recipe: every field has its value, and is known to fit.

    Args:
        name: of the recipe file, or model and data; runs are named after it.
        model: the section [model].
        data: the section [data].
        train: the section [train].
        decode: the section [decode].
        sources: "train.lr" -> where the value came from: flag, set, recipe, task default or default.
        path: the recipe file, None when there is none.
    """

    name: str
    model: ModelSection
    data: DataSection
    train: TrainSection
    decode: DecodeSection
    sources: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def task(self) -> str:
        """The task that the model is trained for."""
        return models.task_of(self.model.name)

    @property
    def origin(self) -> str:
        """Where the recipe came from, in words for people."""
        if self.path is None:
            return f"{self.name} (defaults of {TASKS[self.task].title})"
        return f"{self.name} (shipped)" if self.path.parent == folder() else str(self.path)

    def flat(self) -> dict[str, Any]:
        """All values as "section.key" -> value, in the order of the sections and fields."""
        return {
            f"{section}.{key}": value
            for section in SECTIONS
            for entry, content in getattr(self, section)
            for key, value in (content.items() if entry == "options" else [(entry, content)])
        }

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Section -> key -> value, as reading the file of `to_toml` gives it: lists, texts, and no None."""
        return tomllib.loads(self.to_toml())

    def to_toml(self) -> str:
        """The recipe as the text of a TOML file; a comment says where a value came from that is not the default."""
        blocks: dict[str, list[str]] = {section: [f"[{section}]"] for section in SECTIONS}
        for key, value in self.flat().items():
            section, name = key.split(".", 1)
            source = self.sources.get(key, "default")
            if value is None and source == "default":
                continue
            comment = f"  # {source}" if source != "default" else ""
            blocks[section].append(f"{toml_key(name)} = {toml_value(value)}{comment}")
        return "\n\n".join("\n".join(lines) for lines in blocks.values()) + "\n"

    def diff(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """What differs, as "section.key" -> (our value, theirs); None where there is no such key."""
        ours, theirs = self.flat(), other.flat()
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


# ------------------------------------------------------------------------------------------------------ recipe files


def folder() -> Path:
    """The folder of the shipped recipes: inside the installed package, or beside it in a working copy."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "recipes"


def names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def default_name(model: str, data: str) -> str:
    """The name of the recipe that trains `model` on `data`.

    Example:
        >>> default_name("seq2seq", "synthetic:reverse"), default_name("resnet18", "imagenet_v2/topimages:3.0.0")
        ('seq2seq_reverse', 'resnet18_imagenet_v2')
    """
    return f"{model}_{short_name(data)}"


def short_name(data: str) -> str:
    """A dataset's name as a part of file names: `shapes` of `synthetic:shapes`, `photos` of `~/my/photos`.

    A set that is called after a year does without: `imagenet` of `imagenet2012`.
    """
    short = data.removeprefix("synthetic:").partition(":")[0]
    short = short.rstrip("/").rpartition("/")[2] if short.startswith((".", "/", "~")) else short.partition("/")[0]
    short = re.sub(r"(?<=[a-z])(19|20)\d\d$", "", short)  # the year of imagenet2012
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", short).strip(".-") or "data"


def find(text: str) -> Path:
    """The file of a recipe that is named, or given by its path.

    Raises:
        dlkit.errors.UsageError: there is no shipped recipe of that name.
        dlkit.errors.DataError: there is no such file.
    """
    if text in names():
        return folder() / f"{text}.toml"
    path = file_system.expanded(text)
    if file_system.is_file(path):
        return path
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise DataError(f"no recipe file {path}", "`dlkit recipes list` shows the shipped recipes")
    raise unknown("recipe", text, names(), "`dlkit recipes list` shows all")


def introduction(path: Path) -> list[str]:
    """The comment at the head of a recipe file, line by line: paper, command, what was measured."""
    lines = []
    for line in _read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return lines


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as failure:
        raise DataError(f"cannot read {path}: {failure.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text in UTF-8", "a recipe is a TOML file") from None


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of a recipe file as they stand, their names checked.

    Raises:
        dlkit.errors.DlkitError: the file cannot be read, is no TOML, or has other sections.
    """
    try:
        content = tomllib.loads(_read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as failure:
        place = re.search(r"^(.*) \(at (line \d+), (column \d+)\)$", str(failure))
        where, what = (f"{path}, {place[2]}, {place[3]}", place[1]) if place else (str(path), str(failure))
        raise UsageError(f"{where}: {what[:1].lower()}{what[1:]}", "a recipe is a TOML file") from None
    for name, section in content.items():
        if not isinstance(section, dict):
            raise UsageError(f"{path}: {name} stands outside of a section", _hint_for(name))
        if name not in SECTIONS:
            raise _within(path, unknown("section", name, SECTIONS))
    return content


def _within(path: Path, failure: DlkitError) -> DlkitError:
    return type(failure)(f"{path}: {failure.message}", failure.hint)


def all_keys() -> list[str]:
    """The keys that every recipe knows, as "section.key", with the options that every builder takes where it can."""
    declared = [f"{section}.{key}" for section, fields in SECTIONS.items() for key in fields.model_fields]
    common = [f"model.{option}" for option in ("init", "norm", "activation", "dropout")]
    common += [f"data.{option}" for option in image_options()]
    return [key for key in declared if not key.endswith(".options")] + common


def _hint_for(name: str) -> str:
    """Where a key without a section probably belongs."""
    homes = {key.partition(".")[2]: key for key in reversed(all_keys()) if not key.endswith(".name")}
    match = nearest(name, homes)
    return f"did you mean `{homes[match]}`?" if match else f"the sections are {', '.join(SECTIONS)}"


# ---------------------------------------------------------------------------------------------------------- resolving


def parse_override(text: str) -> tuple[str, str]:
    """Divides the `section.key=value` of `--set` into the key and the text of the value.

    Raises:
        dlkit.errors.UsageError: it has another form, or there is no such section.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    section, dot, name = key.partition(".")
    if not equals:
        raise UsageError(f"--set {text} has no value", f"write `--set {key or 'section.key'}=value`")
    if not dot or not name:
        raise UsageError(f"--set {key} names no section", _hint_for(section))
    if section not in SECTIONS:
        raise unknown("section", section, SECTIONS)
    return key, value.strip()


def resolve(
    model: str | None = None,
    data: str | None = None,
    *,
    recipe_path: str | Path | None = None,
    overrides: Iterable[tuple[str, str, str]] = (),
    flags: Mapping[str, Any] | None = None,
    shipped: bool = True,
) -> Recipe:
    """Puts a recipe together: flag > `--set` > recipe file > default of the task > default of the field.

    Without `recipe_path` the shipped recipe for the model and the data is taken, when there is one.

    Args:
        model: a model's name; None to take the recipe's.
        data: a dataset's name; None to take the recipe's, else the task's.
        recipe_path: the name of a shipped recipe, or a file.
        overrides: (key, text, source): the text is read as a TOML value, and as plain text when it is none.
        flags: "section.key" -> value of a flag; None when it was not given.
        shipped: whether a shipped recipe is looked for; without, the defaults of the task are all there is.

    Raises:
        dlkit.errors.DlkitError: an unknown name or key, a wrong value, or a recipe file that cannot be read.

    Example:
        >>> resolve("lenet", overrides=[("train.lr", "0.01", "set")]).train.lr
        0.01
    """
    overrides = list(overrides)
    given = {"model.name": model, "data.name": data}
    given |= {key: text for key, text, _ in overrides if key in given and given[key] is None}
    path = find(str(recipe_path)) if recipe_path is not None else None
    content = read(path) if path else {}
    model_name = given["model.name"] or content.get("model", {}).get("name")
    if not isinstance(model_name, str):
        raise UsageError("no model is named", "give one, such as `lenet`; `dlkit models` lists all")
    task = TASKS[models.task_of(model_name)]
    if path is None and shipped:
        own = folder() / f"{default_name(model_name, given['data.name'] or task.default_data)}.toml"
        if file_system.is_file(own):
            path, content = own, read(own)
    layers: list[_Given] = [_Given(key, value, "task default") for key, value in task.defaults.items()]
    layers.insert(0, _Given("data.name", task.default_data, "task default"))
    layers += _from_file(content)
    layers += [_Given(key, text, source, is_text=True) for key, text, source in overrides]
    layers += _from_flags({"model.name": model, "data.name": data} | dict(flags or {}))
    recipe = _build(layers, path)
    ignored = _ignored(recipe)
    for key, failure in ignored.items():
        if not _is_overruled(key, recipe):
            raise _in_file(failure, recipe.sources[key], path)
    return _build([item for item in layers if item.key not in ignored], path) if ignored else recipe


def load(path: Path, flags: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a resolved recipe, as a run keeps it: what it does not say is the field's default, not the task's.

    Args:
        path: the file.
        flags: "section.key" -> value that stands above the file's.

    Raises:
        dlkit.errors.DlkitError: the file cannot be read, or a name, key or value is wrong.
    """
    return _build(_from_file(read(path)) + _from_flags(flags or {}), path)


@dataclass(frozen=True)
class _Given:
    """One value that somebody gave, before it is checked."""

    key: str
    value: Any
    source: str
    is_text: bool = False  # of a --set: TOML, or plain text when it is no TOML


def _from_file(content: Mapping[str, Mapping[str, Any]]) -> list[_Given]:
    return [_Given(f"{name}.{key}", value, "recipe") for name, keys in content.items() for key, value in keys.items()]


def _from_flags(flags: Mapping[str, Any]) -> list[_Given]:
    return [_Given(key, value, "flag") for key, value in flags.items() if value is not None]


def resolve_data(
    name: str,
    kind: str = "images",
    *,
    overrides: Iterable[tuple[str, str, str]] = (),
    flags: Mapping[str, Any] | None = None,
) -> DataSection:
    """The section [data] alone, of data that nothing is trained on. Arguments as for `resolve`, and the kind of data.

    Raises:
        dlkit.errors.DlkitError: an unknown name or key, or a wrong value; a key of another section among them.
    """
    layers = [_Given(key, text, source, is_text=True) for key, text, source in overrides]
    for item in layers:
        if not item.key.startswith("data.") or item.key == "data.class_weights":
            raise UsageError(f"{item.key} changes nothing here", "what images look like is in keys of [data]")
    collected = _collect([*layers, *_from_flags({"data.name": name} | dict(flags or {}))], None)
    task = next(task for task, info in TASKS.items() if info.data_kind == kind)
    return _data_section(collected, task, None)


def resolve_decode(
    stored: Mapping[str, Any], *, flags: Mapping[str, Any] | None = None, path: Path | None = None
) -> DecodeSection:
    """The section [decode] of a run. What a run of an older dlkit does not say is the field's default.

    Args:
        stored: the section as the run keeps it.
        flags: "decode.key" -> value that stands above the run's; None when it was not given.
        path: the run's recipe file, for messages.

    Raises:
        dlkit.errors.UsageError: a value is wrong, or an exponent is given that nothing reads.
    """
    known = {key: value for key, value in stored.items() if key in DecodeSection.model_fields}
    collected = _collect(_from_file({"decode": known}) + _from_flags(flags or {}), path)
    section = DecodeSection(**collected.sections["decode"])
    if collected.sources.get("decode.alpha") == "flag" and section.length_norm not in _READ_BY["decode.alpha"][1]:
        raise _is_for("decode.alpha", section.length_norm, flag="--length-norm")
    return section


@dataclass(frozen=True)
class _Collected:
    """What was given, by section: fields that are checked, options that are not yet, and where all came from."""

    sections: dict[str, dict[str, Any]]
    options: dict[str, dict[str, Any]]
    sources: dict[str, str]


def _collect(layers: Sequence[_Given], path: Path | None) -> _Collected:
    layers = sorted(layers, key=lambda item: SOURCES.index(item.source))  # stable: of two equal ones the later wins
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    options: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    sources: dict[str, str] = {}
    for item in layers:
        section, name = item.key.split(".", 1)
        fields = SECTIONS[section].model_fields
        try:
            if name in fields and name != "options":
                sections[section][name] = _check_field(fields[name], item)
            elif section in options:
                options[section][name] = _parsed(item)
            else:
                raise unknown_key(section, name, fields)
        except DlkitError as failure:
            raise _in_file(failure, item.source, path) from None
        sources[item.key] = item.source
    return _Collected(sections, options, sources)


def _build(layers: Sequence[_Given], path: Path | None) -> Recipe:
    collected = _collect(layers, path)
    sections, options, sources = collected.sections, collected.options, collected.sources
    for section in options:
        if "name" not in sections[section]:
            raise _in_file(UsageError(f"{section}.name is missing"), "recipe", path)
    _settle_length(sections["train"], sources)
    _settle_batch(sections["train"], sources)
    model_name = sections["model"]["name"]
    task = models.task_of(model_name)
    data = _data_section(collected, task, path)
    if data.options.get("test") == "all":
        raise UsageError(
            f"data.test is all: nothing of {data.name} is left to train on",
            "`dlkit evaluate RUN --data NAME` tests a run on such data",
        )
    _check_train(sections["train"], task, data.name)
    name = path.stem if path and path.name != "recipe.toml" else default_name(model_name, data.name)
    recipe = Recipe(
        name,
        ModelSection(**sections["model"], options=options["model"]),
        data,
        TrainSection(**sections["train"]),
        DecodeSection(**sections["decode"]),
        path=path,
    )
    recipe.sources.update({key: sources.get(key, "default") for key in recipe.flat()})
    return recipe


def _in_file(failure: DlkitError, source: str, path: Path | None) -> DlkitError:
    return _within(path, failure) if source == "recipe" and path else failure


def _parsed(item: _Given) -> Any:
    """The value of an option that is checked later; for the text of `--set`, what TOML makes of it.

    Numbers with commas between them are a list, with or without its brackets.
    """
    if not item.is_text:
        return item.value
    value = value_of(item.value)
    if isinstance(value, str) and "," in item.value:
        listed = value_of(f"[{item.value}]")
        if isinstance(listed, list) and all(type(each) in {int, float} for each in listed):
            return listed
    return value


def value_of(text: str) -> Any:
    """The value that TOML reads in a text; the text itself when it is none."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text
    value = table["value"]
    return value if len(table) == 1 and isinstance(value, bool | int | float | str | list | dict) else text


def _check_field(declared: FieldInfo, item: _Given) -> Any:
    annotation, value = type_of(declared), _parsed(item)
    if declared.annotation == list[str] and isinstance(value, str):
        value = words(value)
    elif item.is_text and typing.get_origin(declared.annotation) is list and type(value) in {int, float}:
        value = [value]  # one number alone has no commas either
    try:
        return check_value(annotation, value, item.key)
    except UsageError:
        if item.is_text and not isinstance(value, str) and {str, Path} & set(members(annotation)):
            return check_value(annotation, item.value, item.key)  # a name that looks like a number
        raise


def words(text: str) -> list[str]:
    """The words of a list that is written with commas, in brackets or not: none of them is empty."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):  # a shell takes the quotes that TOML wants
        inner = inner[1:-1]
    return [word.strip() for word in inner.split(",") if word.strip()]


def type_of(declared: FieldInfo) -> Any:
    """The type of a field of a section, with its bounds."""
    return Annotated[declared.annotation, *declared.metadata] if declared.metadata else declared.annotation


def image_options(kind: str = "images") -> dict[str, Any]:
    """The keys of [data] that are no options of a dataset but of training on images: key -> its type.

    Those of an augmentation begin with its name: `mixup_alpha` is the argument `alpha` of `mixup`.

    Args:
        kind: of the data, a key of `dlkit.data.KINDS`: those without images have none.
    """
    if kind not in AUGMENTED:
        return {}
    options = {key: parameter.annotation for own in augmentation_options().values() for key, parameter in own.items()}
    weights: dict[str, Any] = {"class_weights": Literal["balanced"] | list[Positive] | None}
    return (weights if kind == "images" else {}) | options


def augmentation_options() -> dict[str, dict[str, inspect.Parameter]]:
    """Augmentation -> key of [data] -> the argument that it stands for."""
    from dlkit.data.augment import AUGMENTATIONS, option_names

    return {
        name: {key: parameters_of(function)[argument] for key, argument in option_names(name).items()}
        for name, function in AUGMENTATIONS.items()
    }


def _data_section(collected: _Collected, task: str, path: Path | None) -> DataSection:
    """Checks the options of [data] and fills in the defaults of all that are read: the recipe says what was used."""
    fields, given, sources = collected.sections["data"], collected.options["data"], collected.sources
    _check_data(fields, task)
    function = datasets.builder(fields["name"], fields.get("dir"), kind=TASKS[task].data_kind)
    of_images = image_options(TASKS[task].data_kind)
    declared = [key for key in DataSection.model_fields if key not in {"name", "options"}]
    of_dataset = [key for key in parameters_of(function) if key not in declared]
    for key, value in given.items():
        source = sources[f"data.{key}"]
        try:
            if key in of_images:
                given[key] = check_value(of_images[key], value, f"data.{key}")
                if source in {"flag", "set"}:
                    _check_augmentation_reads(key, fields.get("augment", []))
            elif key in of_dataset:
                given[key] = check_call(function, {key: value}, where="data")[key]
            elif source == "flag":
                raise UsageError(f"--{key.replace('_', '-')} is not for {fields['name']}", "leave it out")
            else:
                raise unknown_key("data", key, [*of_dataset, *declared, *of_images])
        except DlkitError as failure:
            raise _in_file(failure, source, path) from None
    chosen = [augmentation_options()[name] for name in fields.get("augment", [])]
    defaults = {key: value for key, value in defaults_of(function).items() if key in of_dataset}
    defaults |= {key: parameter.default for own in chosen for key, parameter in own.items()}
    return DataSection(**fields, options=defaults | given)


def _check_augmentation_reads(key: str, names: Iterable[str]) -> None:
    """Stops when `key` is an option of an augmentation that is not among `names`."""
    for name, own in augmentation_options().items():
        if key in own and name not in names:
            raise UsageError(
                f"data.{key} is for the augmentation {name}, which data.augment does not name",
                f"leave it out, or add `{name}` to data.augment",
            )


def _settle_length(train: dict[str, Any], sources: dict[str, str]) -> None:
    if train.get("epochs") is None and train.get("steps") is None:
        raise UsageError("neither train.epochs nor train.steps is given", "say how long to train: `--epochs 10`")
    _settle("epochs", "steps", train, sources)


def _settle_batch(train: dict[str, Any], sources: dict[str, str]) -> None:
    # The file of a run holds all keys: beside batch_tokens, batch_size with its default is nobody's choice.
    held = sources.get("train.batch_size") == "recipe" and train["batch_size"] == _default_in("train", "batch_size")
    if held and train.get("batch_tokens") is not None:
        del train["batch_size"], sources["train.batch_size"]
    _settle("batch_size", "batch_tokens", train, sources)


def _settle(one: str, other: str, train: dict[str, Any], sources: dict[str, str]) -> None:
    """Two keys of [train] exclude each other: the one of the higher precedence drops the other."""
    if train.get(one) is None or train.get(other) is None:
        return
    ranks = {key: SOURCES.index(sources[f"train.{key}"]) for key in (one, other)}
    if ranks[one] == ranks[other]:
        raise UsageError(f"train.{one} and train.{other} exclude each other", "give one of them")
    loser = min(ranks, key=lambda key: ranks[key])
    del train[loser], sources[f"train.{loser}"]


def _check_train(train: Mapping[str, Any], task: str, data: str) -> None:
    metrics, monitor = TASKS[task].metrics, train.get("monitor")
    if monitor not in {None, *metrics}:
        raise unknown("metric", str(monitor), metrics)
    if monitor in POINTS | {"cider"} and data.startswith("synthetic:"):
        raise UsageError(f"train.monitor is {monitor}, which is not measured on {data}", "`exact` is, as is `loss`")
    if monitor in TASKS[task].decoded and train.get("decode_every", 1) is None:
        raise UsageError(
            f"train.monitor is {monitor}, and train.decode_every is none: it would never be measured",
            "`--set train.decode_every=1` decodes at each evaluation",
        )
    if train.get("select") == "last" and train.get("patience"):
        raise UsageError(
            "train.patience waits for a better checkpoint, and train.select is last", "`--set train.select=best`"
        )
    _check_task_reads("train", train, task)
    by_examples = train.get("batch_tokens") is None
    if by_examples and train.get("accumulate", 1) > train.get("batch_size", _default_in("train", "batch_size")):
        raise UsageError(
            f"train.accumulate {train['accumulate']} is more than train.batch_size",
            "a micro-batch has at least one example",
        )
    _check_rises("train.milestones", train.get("milestones", []), example="[0.5, 0.75]")
    _check_progressive(train.get("progressive", []), train.get("progressive_until", []))
    _check_resampling(train, task)


def _check_progressive(sides: list[float], ends: list[float]) -> None:
    if len(sides) != len(ends):
        raise UsageError(
            f"train.progressive has {len(sides)} sides, and train.progressive_until says of {len(ends)} how long",
            "such as [0.5, 0.75] and [0.3, 0.7]",
        )
    _check_rises("train.progressive_until", ends, example="[0.3, 0.7]")


def _check_resampling(train: Mapping[str, Any], task: str) -> None:
    kind, part, parts = train.get("resample"), train.get("part", 0), train.get("parts", 1)
    if kind is None:
        return
    if kind == "head_bootstrap" and task != "image_classification":
        raise UsageError(f"train.resample head_bootstrap is for nets with heads, not for {TASKS[task].title}", "")
    if kind == "part" and (part >= parts or parts == 1):
        hint = f"they are counted from 0 to {parts - 1}" if parts > 1 else "`--set train.parts=5` makes five parts"
        raise UsageError(f"there is no train.part {part} of {parts}", hint)
    if train.get("batch_tokens") is not None:
        raise UsageError(
            f"train.resample {kind} draws examples, and batches are made of so many tokens",
            "`--batch-size` counts examples",
        )


def _check_rises(key: str, shares: list[float], *, example: str) -> None:
    if shares != sorted(set(shares)):
        raise UsageError(f"{key} must rise, not {toml_value(shares)}", f"such as {example}")


def _check_data(data: Mapping[str, Any], task: str) -> None:
    names = data.get("augment", [])
    kind = TASKS[task].data_kind
    _check_task_reads("data", data, task)
    if names:
        from dlkit.data.augment import MIXES, check_names

        check_names(names)
        if kind == "captions" and (mixed := [name for name in names if name in MIXES]):
            raise UsageError(
                f"data.augment {mixed[0]} mixes two images, and their captions cannot be mixed", "leave it out"
            )
    check_data_dir(data["name"], data.get("dir"), kind=kind)


def lies_prepared(function: Callable[..., Any]) -> bool:
    """Whether the data of a builder lie prepared in a folder, which data.dir names."""
    return "dir" in parameters_of(function)


def check_data_dir(name: str, folder: Path | None, *, kind: str | None = None) -> None:
    """Raises a UsageError when a folder of prepared data is given for a dataset that is not prepared."""
    if folder is not None and not lies_prepared(datasets.builder(name, folder, kind=kind)):
        raise UsageError(f"{name} is no set of TensorFlow Datasets: --data-dir is for those", "leave it out")


# ----------------------------------------------------------------------------------------------------- what reads a key

# Keys that only some choices of another key read: key -> (the other key, these choices).
_READ_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "model.forget_bias": ("model.cell", ("lstm",)),
    "model.max_length": ("model.positions", ("learned",)),
    "data.min_count": ("data.tokenizer", ("word",)),
    "data.coverage": ("data.tokenizer", ("unigram", "bpe", "char")),
    "data.normalization": ("data.tokenizer", ("unigram", "bpe")),
    **dict.fromkeys(("train.momentum", "train.nesterov"), ("train.optimizer", ("sgd",))),
    **dict.fromkeys(("train.beta1", "train.beta2", "train.epsilon"), ("train.optimizer", ("adam", "adamw"))),
    "train.milestones": ("train.schedule", ("step",)),
    "train.gamma": ("train.schedule", ("step", "plateau")),
    "train.power": ("train.schedule", ("polynomial",)),
    "train.plateau_patience": ("train.schedule", ("plateau",)),
    "train.final_lr": ("train.schedule", ("cosine", "one_cycle", "polynomial")),
    **dict.fromkeys(("train.part", "train.parts"), ("train.resample", ("part",))),
    "train.sampling_rate": ("train.sampling", ("linear", "constant", "exponential", "inverse_sigmoid")),
    "decode.alpha": ("decode.length_norm", ("gnmt",)),
}
# Keys that only models read which write.
_READ_BY_WRITERS = ("train.decode_every", *(f"decode.{name}" for name in DecodeSection.model_fields))


class _OfTasks(NamedTuple):
    """Keys that only the training of some tasks reads, whatever their values.

    Args:
        keys: as "section.key".
        ignored_by: whether a task is none of these.
        purpose: the rest of a sentence that begins with "KEY is for"; `{model}` and `{task}` are what ignores it.
        hint: what to do instead.
    """

    keys: tuple[str, ...]
    ignored_by: Callable[[TaskInfo], bool]
    purpose: str
    hint: str = "leave it out"


# Of several rules for one key and task the first holds.
_OF_TASKS = (
    _OfTasks(_READ_BY_WRITERS, lambda task: not task.generates, "tasks that generate, and {model} does not"),
    _OfTasks(("train.decode_every",), lambda task: not task.decoded, "models that answer, and {model} writes freely"),
    _OfTasks(
        ("decode.beams",), lambda task: not task.decoded, "models that answer, and {model} writes freely",
        "leave it out: `dlkit generate RUN --beam 5` searches",
    ),
    _OfTasks(
        ("train.batch_tokens",), lambda task: not task.texts, "tasks on text, not for {task}",
        "`--batch-size` counts examples",
    ),
    _OfTasks(("train.sampling",), lambda task: not task.generates, "tasks that generate, not for {task}"),
    _OfTasks(
        ("train.sampling",), lambda task: task.data_kind == "corpus", "decoders of a source, not for language models"
    ),
    _OfTasks(
        ("train.progressive", "train.progressive_until"), lambda task: task.data_kind not in AUGMENTED,
        "images, not for {task}",
    ),
    _OfTasks(("data.augment",), lambda task: task.data_kind not in AUGMENTED, "images, not for {task}"),
)  # fmt: skip
# The flags that `train` has for those other keys. Other commands have `--set` alone.
FLAGS = {"train.optimizer": "--optimizer", "train.schedule": "--schedule"}


def why_ignored(key: str, task: str, model: str = "") -> UsageError | None:
    """The error for a key that no training of a task reads, whatever its value; None for the others.

    Args:
        key: "section.key".
        task: a key of `TASKS`.
        model: that is trained, for the message.
    """
    about = TASKS[task]
    for rule in _OF_TASKS:
        if key in rule.keys and rule.ignored_by(about):
            purpose = rule.purpose.format(model=model or "the model", task=about.title)
            return UsageError(f"{key} is for {purpose}", rule.hint)
    return why_ignored(_READ_BY[key][0], task, model) if key in _READ_BY else None


def _check_task_reads(section: str, given: Mapping[str, Any], task: str) -> None:
    """Raises a UsageError when a key of a section has a value, and no training of the task reads it.

    Those of writers are in the file of every run; `_ignored` tells the ones that a user gave.
    """
    for key in dict.fromkeys(key for rule in _OF_TASKS for key in rule.keys if key not in _READ_BY_WRITERS):
        home, _, name = key.partition(".")
        if home == section and given.get(name) and (failure := why_ignored(key, task)):
            raise failure


def is_read(key: str, values: Mapping[str, Any]) -> bool:
    """Whether a key has a meaning beside others: the momentum of sgd has none beside the optimizer adam.

    Args:
        key: "section.key".
        values: "section.key" -> value or its text; what is not in it is left to be checked with the whole recipe.
    """
    other, choices = _READ_BY.get(key, ("", ()))
    return other not in values or str(values[other]) in choices


def _ignored(recipe: Recipe) -> dict[str, UsageError]:
    """The keys that a user gave and that nothing reads, with the error for each.

    A value in a file counts when it is not the default: a resolved recipe holds all keys.
    """
    values, found = recipe.flat(), {}
    for key, (other, choices) in _READ_BY.items():
        if recipe.sources.get(key) not in _BY_USER:
            continue
        chosen = values[other] if other in values else _default_of(other, recipe)
        if chosen not in (*choices, inspect.Parameter.empty) and not _holds_default(key, recipe):
            found[key] = _is_for(key, chosen, flag=FLAGS.get(other))
    for key in _READ_BY_WRITERS:
        failure = why_ignored(key, recipe.task, recipe.model.name)
        if failure and recipe.sources.get(key) in _BY_USER and not _holds_default(key, recipe):
            found[key] = failure
    return found


def _is_for(key: str, chosen: Any, *, flag: str | None) -> UsageError:
    other, choices = _READ_BY[key]
    what = other.partition(".")[2].replace("_", " ")
    this = "these are" if what.endswith("s") else "this one is"
    return UsageError(
        f"{key} is for the {what} {' or '.join(choices)}, and {this} {'none' if chosen is None else chosen}",
        f"leave it out, or add `{f'{flag} ' if flag else f'--set {other}='}{choices[0]}`",
    )


def _holds_default(key: str, recipe: Recipe) -> bool:
    """Whether a key is in the recipe file with its default, as it is in that of a run."""
    return recipe.sources[key] == "recipe" and recipe.flat()[key] == _default_of(key, recipe)


def _default_of(key: str, recipe: Recipe) -> Any:
    """The default of any key; that of an option of the model costs the import of TensorFlow."""
    section, _, name = key.partition(".")
    if section == "model":
        return defaults_of(models.builder(recipe.model.name)).get(name, inspect.Parameter.empty)
    if section == "data":
        function = datasets.builder(recipe.data.name, recipe.data.dir, kind=TASKS[recipe.task].data_kind)
        return defaults_of(function).get(name, inspect.Parameter.empty)
    return _default_in(section, name)


def _default_in(section: str, name: str) -> Any:
    return SECTIONS[section].model_fields[name].default


def _is_overruled(key: str, recipe: Recipe) -> bool:
    """Whether a key is the file's, and what it is for would be there but for a flag or `--set`."""
    other = _READ_BY[key][0] if key in _READ_BY else "model.name"
    return recipe.sources[key] == "recipe" and recipe.sources.get(other) in {"set", "flag"}
