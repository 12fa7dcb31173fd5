"""Examples of a task put together by their lengths, so that a batch of them has no padding."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dlkit.data.batching import Batch
from dlkit.data.tokenizer import PAD
from dlkit.tasks.task import Task

# Arrays that have a column for each step, and go together: both sides of a shift by one, words and their labels.
_TOGETHER = (("target_in", "target_out"), ("inputs", "targets"), ("ids", "labels"))


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
        one = without_padding(task.batch(split, np.array([index]), epoch=None))
        shapes = tuple(array.shape for array in one.values())
        group = groups.setdefault(shapes, [])
        group.append(one)
        if len(group) == most:
            yield _joined(groups.pop(shapes))
    yield from (_joined(group) for group in groups.values())


def _joined(group: list[Batch]) -> Batch:
    return {key: np.concatenate([one[key] for one in group]) for key in group[0]}


def without_padding(batch: Batch) -> Batch:
    """A batch of one row, cut to the length of its example; one without any step keeps its first."""
    cut = dict(batch)
    if "lengths" in batch:
        length = max(1, int(batch["lengths"][0]))
        time = batch["inputs"].shape[1]
        return {key: array[:, :length] if array.shape[1:2] == (time,) else array for key, array in batch.items()}
    for names in (("source",), *_TOGETHER):
        if names[0] not in cut or not _is_ids(cut[names[0]]):
            continue
        real = np.flatnonzero(cut[names[0]][0] != PAD)
        length = int(real[-1]) + 1 if len(real) else 1
        for key in names:
            if _has_steps(cut, key):
                cut[key] = cut[key][:, :length]
    return cut


def _is_ids(array: NDArray) -> bool:
    return array.ndim == 2 and np.issubdtype(array.dtype, np.integer)


def _has_steps(batch: Batch, key: str) -> bool:
    return key in batch and _is_ids(batch[key])
