"""The views of `dlkit inspect`: their names, what each is given and what it gives back. This module is light."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.errors import UsageError, nearest, unknown

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dlkit.runs import Run
    from dlkit.tasks.task import Task

BATCH_SIZE = 100
DEFAULT_SPLIT = "test"
DEFAULT_LIMIT = 1000


@dataclass(frozen=True)
class ViewInfo:
    """One line of the table of views.

    Args:
        target: "module:function" of a function from `Subject` to `View`.
        title: what it shows, for the help.
        options: the fields of `Subject` that it looks at, beside `layers`.
    """

    target: str
    title: str
    options: frozenset[str] = frozenset()


VIEWS: dict[str, ViewInfo] = {
    "activations": ViewInfo(
        "dlkit.probe.activations:view",
        "mean, spread, zeros and dead ReLU units of each layer over many images",
        frozenset({"split", "limit"}),
    ),
    "features": ViewInfo(
        "dlkit.probe.features:view",
        "the feature maps of one image",
        frozenset({"split", "image", "index"}),
    ),
    "filters": ViewInfo("dlkit.probe.filters:view", "the kernels of the convolutions"),
}


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
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: Sequence[str]
    records: Sequence[dict[str, Any]]
    notes: Sequence[str]
    draw: "Callable[[], Figure]"
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A trained model and what it is shown; each part is loaded when a view first asks for it.

    Args:
        operand: a run or a checkpoint.
        split: which split the images come from; None for `test`.
        limit: how many of them, from the first on; None for 1,000.
        image: a file to show instead of an image of the split.
        index: which image of the split; None for the first.
        layers: patterns such as `stage2_*`; empty for all layers.
    """

    operand: str
    split: str | None = None
    limit: int | None = None
    image: Path | None = None
    index: int | None = None
    layers: Sequence[str] = ()

    @cached_property
    def run(self) -> "Run":
        """The run that the model comes from.

        Raises:
            dlkit.errors.UsageError: the model does not look at images.
        """
        from dlkit import runs

        run = runs.open_run(self.operand)
        if run.task != "image_classification":
            raise UsageError(
                f"{run.path} is a model for {run.task.replace('_', ' ')}: it does not look at images",
                "views are of image nets so far",
            )
        return run

    @cached_property
    def model(self) -> "keras.Model":
        """The model with the weights of the checkpoint."""
        from dlkit import runs

        return runs.load_model(self.operand)

    @cached_property
    def task(self) -> "Task":
        """The run's own task: its data and its standardization."""
        from dlkit import runs
        from dlkit.tasks.task import open_task

        runs.check_data(self.run)
        return open_task(self.run.task, self.run.recipe["data"], info=self.run.info["data"], folder=self.run.path)

    @property
    def split_name(self) -> str:
        """The split that images come from."""
        return self.split or DEFAULT_SPLIT

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return list(self.run.info["data"]["classes"])

    @property
    def images(self) -> int:
        """How many images `batches` gives."""
        return min(self.task.size(self.split_name), DEFAULT_LIMIT if self.limit is None else self.limit)

    def batches(self) -> "Iterator[NDArray[np.float32]]":
        """The first `limit` images of the split in batches, (n, height, width, channels), standardized."""
        import numpy as np

        from dlkit.data.batching import in_batches

        for indices in in_batches(np.arange(self.images), BATCH_SIZE):
            yield self.task.batch(self.split_name, indices, epoch=None)["images"]

    def one_image(self) -> "tuple[NDArray[np.float32], str]":
        """The one image to look at, standardized, and what to call it.

        Raises:
            dlkit.errors.UsageError: the split has no such image, or both an image and an index are named.
            dlkit.errors.DataError: the file is no image.
        """
        import numpy as np

        from dlkit.data.images import read_image, standardize

        info = self.run.info["data"]
        if self.image is not None:
            if self.index is not None or self.split is not None:
                raise UsageError("--image names a file, --index and --split one of the data", "choose one of the two")
            height, width, channels = info["shape"]
            pixels = read_image(self.image, (height, width, channels))
            return standardize(pixels, info["mean"], info["std"]), self.image.name
        index = self.index or 0
        size = self.task.size(self.split_name)
        if not 0 <= index < size:
            raise UsageError(f"no image {index} in {self.split_name}", f"choose --index from 0 to {size - 1}")
        batch = self.task.batch(self.split_name, np.array([index]), epoch=None)
        label = self.classes[int(batch["labels"][0])]
        return batch["images"][0], f"{self.split_name} image {index}, labelled {label}"

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


def show(name: str, subject: Subject) -> View:
    """Makes the view `name` of a subject.

    Raises:
        dlkit.errors.UsageError: there is no such view, or it has no use for an option that the subject sets.
    """
    if name not in VIEWS:
        raise unknown("view", name, VIEWS)
    info = VIEWS[name]
    for option in ("split", "limit", "image", "index"):
        if getattr(subject, option) is not None and option not in info.options:
            users = ", ".join(view for view, other in VIEWS.items() if option in other.options)
            raise UsageError(f"{name} has no use for --{option}", f"it belongs to {users}")
    _ = subject.run  # what is wrong with the operand is said before TensorFlow starts
    from dlkit import runtime

    runtime.import_tensorflow()
    module, _, function = info.target.partition(":")
    return getattr(importlib.import_module(module), function)(subject)
