"""The views of `dlkit inspect`: their names, what each is given and what it gives back. This module is light."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.errors import UsageError, nearest, unknown
from dlkit.tasks import TASKS, TaskInfo

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dlkit.data.batching import Batch
    from dlkit.recipe import Recipe, TrainSection
    from dlkit.runs import Run
    from dlkit.tasks.task import Task
    from dlkit.train.start import Prepared

BATCH_SIZE = 100
DEFAULT_SPLIT = "test"
DEFAULT_LIMIT = 1000


def _tasks(fits: Callable[[TaskInfo], bool]) -> frozenset[str]:
    return frozenset(name for name, info in TASKS.items() if fits(info))


IMAGES = _tasks(lambda info: info.image_net == ())  # the model is itself such a net
WITH_CONVS = _tasks(lambda info: info.image_net is not None)
WITH_TOKENS = _tasks(lambda info: bool(info.reads or info.writes))
READING = _tasks(lambda info: bool(info.reads))


@dataclass(frozen=True)
class ViewInfo:
    """One line of the table of views.

    Args:
        target: "module:function" of a function from `Subject` to `View`.
        title: what it shows, for the help.
        options: the fields of `Subject` that it looks at, of `OPTIONS`.
        tasks: of models for which it is.
    """

    target: str
    title: str
    options: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset(TASKS)


# The fields of a subject that a view may have no use for, and the option of each.
OPTIONS = {
    "split": "--split", "limit": "--limit", "whole": "--all", "image": "--image", "index": "--index",
    "layers": "--layer", "text": "--text", "label": "--class", "words": "--word", "against": "--against",
}  # fmt: skip

_ONE_IMAGE = frozenset({"split", "image", "index"})
_ONE_EXAMPLE = _ONE_IMAGE | {"text"}

VIEWS: dict[str, ViewInfo] = {
    "activations": ViewInfo(
        "dlkit.probe.activations:view",
        "mean, spread, zeros, dead ReLU units and saturation of each layer over many examples, and how far batch norms'"
        " running statistics are from those of the data",
        frozenset({"split", "limit", "whole", "layers"}),
    ),
    "features": ViewInfo(
        "dlkit.probe.features:view", "the feature maps of one image", _ONE_IMAGE | {"layers"}, WITH_CONVS
    ),
    "filters": ViewInfo(
        "dlkit.probe.filters:view", "the kernels of the convolutions", frozenset({"layers"}), WITH_CONVS
    ),
    "saliency": ViewInfo(
        "dlkit.probe.saliency:view",
        "how each pixel, step or word of one example changes what the model says of it",
        _ONE_EXAMPLE | {"label"},
    ),
    "gradcam": ViewInfo(
        "dlkit.probe.saliency:view_gradcam",
        "where the maps of a layer speak for a class",
        _ONE_IMAGE | {"label", "layers"},
        WITH_CONVS,
    ),
    "gradients": ViewInfo(
        "dlkit.probe.gradients:view",
        "norm of the gradient of each weight and layer on a batch, of all over the run, and a limit for clipping; of"
        " sequences how far back the last loss looks",
        frozenset({"split", "limit", "layers", "against"}),
    ),
    "jacobian": ViewInfo(
        "dlkit.probe.jacobian_view:view",
        "singular values of layers and blocks, and of all behind each layer; of nets whose recurrent layers read whole"
        " sequences instead those of the state across time, and the biases of forget gates",
        _ONE_EXAMPLE | {"limit", "layers", "against"},
    ),
    "attention": ViewInfo(
        "dlkit.probe.attention_view:view",
        "where each head of each layer looks",
        _ONE_EXAMPLE | {"layers"},
        WITH_TOKENS,
    ),
    "positions": ViewInfo(
        "dlkit.probe.position_view:view",
        "what stands for the places of tokens, how alike near and far ones are, and how much an encoder sees of the"
        " order",
        frozenset({"layers"}),
        READING,
    ),
    "embeddings": ViewInfo(
        "dlkit.probe.embeddings:view",
        "which words lie close to each other, and the vectors in two dimensions",
        frozenset({"layers", "words"}),
        WITH_TOKENS,
    ),
    "shift": ViewInfo(
        "dlkit.probe.shift:view",
        "a dense layer, a convolution, one with a pool and one with a stride, and the net itself, when the image moves"
        " by 1 to 8 pixels",
        frozenset({"split", "limit", "layers"}),
        IMAGES,
    ),
    "receptive": ViewInfo(
        "dlkit.probe.receptive:view",
        "how much of the image a place of each layer can see, and does see",
        frozenset({"split", "limit", "layers"}),
        WITH_CONVS,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """What a view shows, as a table, as JSON and as a picture.

    Args:
        columns: the table's titles.
        rows: its cells.
        right: titles of the columns of numbers.
        records: the same, in full precision and JSON types, a row each.
        notes: what a reader has to know of it, one line each.
        draw: makes the picture.
        facts: what belongs to the whole and not to a row, for JSON.
        key: what the records are, in JSON.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: Sequence[str]
    records: Sequence[dict[str, Any]]
    notes: Sequence[str]
    draw: "Callable[[], Figure]"
    facts: dict[str, Any] = field(default_factory=dict)
    key: str = "layers"


@dataclass(frozen=True)
class Subject:
    """A model and what it is shown; each part is loaded when a view first asks for it.

    Args:
        operand: a run or a checkpoint; or the name of a model, which then has fresh weights.
        split: which split the examples come from; None for `test`, or what the data have instead; the batch of
            `gradients` comes from `train` then.
        limit: how many of them, from the first on; None for as many as the view takes, such as 1,000.
        whole: whether all of them are looked at.
        image: a file to show instead of an image of the split.
        index: which example of the split; None for the first.
        layers: patterns such as `stage2_*`; empty for all layers.
        text: what to read instead of an example of the split.
        label: the class that is asked for; None for the one that the model says.
        words: of the vocabulary, to look at.
        against: other models to compare with.
        data: the dataset of a model's name; None for the one of its task.
        sets: changes of its recipe, such as `model.norm=none`.
        seed: of its weights.
        data_dir: where prepared data lies; None for where it lay in training, or usually lies.
    """

    operand: str
    split: str | None = None
    limit: int | None = None
    whole: bool = False
    image: Path | None = None
    index: int | None = None
    layers: Sequence[str] = ()
    text: str | None = None
    label: str | None = None
    words: Sequence[str] = ()
    against: Sequence[str] = ()
    data: str | None = None
    sets: Sequence[str] = ()
    seed: int | None = None
    data_dir: Path | None = None

    # -------------------------------------------------------------------------------------------- the model and its run

    @cached_property
    def run(self) -> "Run | None":
        """The run that the model comes from; None for the name of a model.

        Raises:
            dlkit.errors.UsageError: there is no such model, or a run is to be changed.
            dlkit.errors.DataError: there is no such run.
        """
        from dlkit import models, runs

        if not runs.is_run(self.operand):
            models.task_of(self.operand)
            return None
        if self.data is not None or self.sets or self.seed is not None:
            raise UsageError(
                f"{self.operand} is a run, whose model is settled", "--data, --set and --seed are for names of models"
            )
        return runs.open_run(self.operand)

    @property
    def task_name(self) -> str:
        """The task of the model."""
        from dlkit import models

        return models.task_of(self.operand) if self.run is None else self.run.task

    @property
    def task_info(self) -> TaskInfo:
        """What the table of tasks says of it."""
        return TASKS[self.task_name]

    @cached_property
    def recipe(self) -> "Recipe":
        """The recipe of a model's name."""
        from dlkit import recipe

        overrides = [(*recipe.parse_override(text), "set") for text in self.sets]
        flags = {"train.seed": self.seed, "train.precision": "float32", "data.dir": self.data_dir}
        return recipe.resolve(self.operand, self.data, overrides=overrides, flags=flags)

    @cached_property
    def _prepared(self) -> "Prepared":
        from dlkit.train import start

        return start.prepare(self.recipe, alone=True)

    @cached_property
    def model(self) -> "keras.Model":
        """The model with the weights of the checkpoint; it computes in float32, float64 if it was trained so."""
        from dlkit import runs

        if self.run is None:
            self.task.adapt(self._prepared.model)
            return self._prepared.model
        return runs.load_model(self.operand, precision=None if self.run.precision == "float64" else "float32")

    @property
    def image_net(self) -> "keras.Model":
        """The net that looks at images: the model itself, or the one inside it that sees an image, or each frame.

        Raises:
            dlkit.errors.UsageError: the model is of another form.
        """
        net = self.task_info.image_net_of(self.model)
        if net is None:
            raise UsageError(f"{self.operand} has no image net inside that could be looked at", "`activations` can")
        return net

    @cached_property
    def task(self) -> "Task":
        """The model's own task: its data and its standardization."""
        if self.run is None:
            return self._prepared.task
        # What a run has left out of its training can be looked at all the same.
        return self._opened(self.run, self.settings.model_copy(update={"limit": None}))

    @cached_property
    def training_task(self) -> "Task":
        """The task as training sees it: its batches of an epoch are those of the run, or those that one would have."""
        run, settings = self.run, self.settings
        task = self.task if run is None or settings.limit is None else self._opened(run, settings)
        return task.for_model(self.model)

    @property
    def settings(self) -> "TrainSection":
        """The recipe's section [train]."""
        from dlkit.recipe import TrainSection, type_of
        from dlkit.values import check_value

        if self.run is None:
            return self.recipe.train
        stored = self.run.recipe["train"]  # of a version, perhaps, that had other keys
        known = {key: declared for key, declared in TrainSection.model_fields.items() if key in stored}
        return TrainSection(
            **{key: check_value(type_of(declared), stored[key], f"train.{key}") for key, declared in known.items()}
        )

    def _opened(self, run: "Run", settings: "TrainSection") -> "Task":
        from dlkit import recipe, runs
        from dlkit.tasks.task import open_as_trained

        runs.check_data(run)
        section = dict(run.recipe["data"])
        if self.data_dir is not None:
            recipe.check_data_dir(section["name"], self.data_dir, kind=self.task_info.data_kind)
            section["dir"] = self.data_dir
        return open_as_trained(
            run.task, section, settings, max_len=int(run.recipe["decode"]["max_len"]),
            info=run.info["data"], folder=run.path,
        )  # fmt: skip

    @property
    def info(self) -> dict[str, Any]:
        """What is stored of the data: classes, standardization, vocabularies."""
        return self.task.info if self.run is None else dict(self.run.info["data"])

    @property
    def model_name(self) -> str:
        """What `dlkit models` calls the model."""
        return self.operand if self.run is None else str(self.run.recipe["model"]["name"])

    @property
    def weights(self) -> str:
        """Where the weights come from, for notes."""
        return "fresh weights" if self.run is None else self.operand

    # ----------------------------------------------------------------------------------------------------- its examples

    @cached_property
    def split_name(self) -> str:
        """The split that examples come from.

        Raises:
            dlkit.errors.UsageError: there is no such split.
        """
        if self.split is not None:
            self.task.check_split(self.split)
            return self.split
        known = self.task.splits
        return DEFAULT_SPLIT if DEFAULT_SPLIT in known else known[-1]

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return list(self.info["classes"])

    @property
    def examples(self) -> int:
        """How many examples `batches` and `unpadded` look at."""
        size = self.task.size(self.split_name)
        return size if self.whole else min(size, DEFAULT_LIMIT if self.limit is None else self.limit)

    @property
    def over(self) -> str:
        """Which examples those are, in words."""
        return f"over {self.examples:,} {self.task_info.examples} of the {self.split_name} split"

    def _indices(self, count: int) -> "NDArray[np.int64]":
        """What stands for the first examples of the split; of a text, where blocks begin."""
        import numpy as np

        plan = self.task.plan(self.split_name, batch_size=max(1, count), epoch=None)
        return np.concatenate(plan)[:count]

    def batches(self) -> "Iterator[NDArray[np.float32]]":
        """The first `limit` images of the split in batches, (n, height, width, channels), standardized."""
        from dlkit.data.batching import in_batches

        for indices in in_batches(self._indices(self.examples), BATCH_SIZE):
            yield self.task.batch(self.split_name, indices, epoch=None)["images"]

    def unpadded(self, count: int | None = None, *, most: int = BATCH_SIZE) -> "Iterator[Batch]":
        """The first examples of the split, those of one length together, so that nothing is padded.

        Args:
            count: how many; None for `examples`.
            most: examples in a batch.
        """
        from dlkit.probe.examples_by_length import together

        wanted = self.examples if count is None else min(count, self.task.size(self.split_name))
        yield from together(self.task, self.split_name, self._indices(wanted), most=most)

    def one_example(self) -> "tuple[Batch, str]":
        """One example of the split as a batch of one row without padding, and what to call it.

        Raises:
            dlkit.errors.UsageError: the split has no such example.
        """
        from dlkit.probe.examples_by_length import together

        index = self.index or 0
        self._check_index(index)
        at = self._indices(index + 1)[index:]
        (batch,) = together(self.task, self.split_name, at, most=1)
        return batch, f"{self.split_name} example {index}"

    def _check_index(self, index: int) -> None:
        size = self.task.size(self.split_name)
        if not 0 <= index < size:
            what = "image" if self.task_name in IMAGES else "example"
            raise UsageError(f"no {what} {index} in {self.split_name}", f"choose --index from 0 to {size - 1}")

    def one_image(self) -> "tuple[NDArray[np.float32], str]":
        """The one image to look at, standardized, and what to call it.

        Raises:
            dlkit.errors.UsageError: the split has no such image, or both an image and an index are named.
            dlkit.errors.DataError: the file is no image.
        """
        import numpy as np

        from dlkit.data.image_files import read_image
        from dlkit.data.images import standardize

        info = self.info
        if self.image is not None:
            if self.index is not None or self.split is not None:
                raise UsageError("--image names a file, --index and --split one of the data", "choose one of the two")
            height, width, channels = info["shape"]
            pixels = read_image(self.image, (height, width, channels))
            return standardize(pixels, info["mean"], info["std"]), self.image.name
        index = self.index or 0
        self._check_index(index)
        batch = self.task.batch(self.split_name, np.array([index]), epoch=None)
        if "clips" in batch:
            frame = batch["clips"].shape[1] // 2
            return batch["clips"][0, frame], f"frame {frame} of {self.split_name} clip {index}"
        if "labels" not in batch:
            return batch["images"][0], f"{self.split_name} image {index}"
        label = self.classes[int(batch["labels"][0])]
        return batch["images"][0], f"{self.split_name} image {index}, labelled {label}"

    # ------------------------------------------------------------------------------------------------------- its layers

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Those of the layer names that `layers` asks for, in their order.

        Raises:
            dlkit.errors.UsageError: a pattern fits none.
        """
        if not self.layers:
            return list(names)
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in names):
                match = nearest(pattern, names)
                raise UsageError(
                    f"no layer of this view is named {pattern}",
                    f"did you mean `{match}`?" if match else "without --layer the view lists all",
                )
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in self.layers)]

    def class_number(self, predicted: int) -> int:
        """The class that is asked for, by name or number; `predicted`, the model's own answer, when none is.

        Raises:
            dlkit.errors.UsageError: there is no such class.
        """
        if self.label is None:
            return predicted
        if self.label in self.classes:
            return self.classes.index(self.label)
        raise unknown("class", self.label, self.classes)


def show(name: str, subject: Subject) -> View:
    """Makes the view `name` of a subject.

    Raises:
        dlkit.errors.UsageError: there is no such view, it has no use for an option that the subject sets, or for models
            of such a task.
    """
    if name not in VIEWS:
        raise unknown("view", name, VIEWS)
    info = VIEWS[name]
    for key, option in OPTIONS.items():
        value = getattr(subject, key)
        is_set = bool(value) if isinstance(value, bool | list | tuple) else value is not None
        if is_set and key not in info.options:
            users = ", ".join(view for view, other in VIEWS.items() if key in other.options)
            raise UsageError(f"{name} has no use for {option}", f"it belongs to {users}")
    if subject.limit is not None and subject.whole:
        raise UsageError("--all looks at the whole split, --limit at a part", "give one of them")
    task = subject.task_name  # what is wrong with the operand is said before TensorFlow starts
    if task not in info.tasks:
        others = ", ".join(view for view, other in VIEWS.items() if task in other.tasks)
        raise UsageError(
            f"{subject.operand} is a model for {TASKS[task].title}, and {name} is not for such",
            f"views of it: {others}",
        )
    from dlkit import runtime

    runtime.import_tensorflow()
    module, _, function = info.target.partition(":")
    return getattr(importlib.import_module(module), function)(subject)
