"""Examples of a task put together by their lengths, so that a batch of them has no padding."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dlkit.data.batching import Batch
from dlkit.tasks.task import Task


def together(task: Task, split: str, indices: NDArray[np.int64], *, most: int) -> Iterator[Batch]:
    """Batches of examples of one length each: full ones as soon as there are so many, then what is left of each length.

    What a layer gives at padding is no part of what it gives, and neither is it of a gradient. Of the examples no more
    are kept at a time than `most` of each length.

    Args:
        task: where they come from.
        split: of it.
        indices: of the examples.
        most: examples in a batch.
    """
    groups: dict[tuple, list[Batch]] = {}
    for index in indices:
        one = task.without_padding(task.batch(split, np.array([index]), epoch=None))
        shapes = tuple(array.shape for array in one.values())
        group = groups.setdefault(shapes, [])
        group.append(one)
        if len(group) == most:
            yield _joined(groups.pop(shapes))
    yield from (_joined(group) for group in groups.values())


def _joined(group: list[Batch]) -> Batch:
    return {key: np.concatenate([one[key] for one in group]) for key in group[0]}
