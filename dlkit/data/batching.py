"""Which examples make a batch, and how its rows are laid out over micro-batches and devices. Light: NumPy only.

The order of the data is a function of (seed, epoch, index), so a run resumes at an index and every process of a
cluster agrees on it without talking.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Batch = dict[str, NDArray]
Item = TypeVar("Item")

ROW_WEIGHTS = "row_weights"


def shuffled(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of `count` examples that depends on (seed, epoch) only."""
    return np.random.default_rng([seed, crc32(b"order"), epoch]).permutation(count)


def in_batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Cuts an order of examples into batches; the last one may be smaller."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_rows(batch: Batch, multiple: int, *, always_weighted: bool = False) -> Batch:
    """Appends rows of zeros until their number is a multiple of `multiple`.

    Args:
        batch: arrays with a row an example.
        multiple: what the number of rows must be divisible by.
        always_weighted: give full batches weights, too; then full and padded batches share one graph.

    Returns:
        The batch itself when nothing is missing, else a padded copy with `row_weights` (rows,) float32: 1 for rows that
        are real and 0 for padding. In training only padded batches have them, so full ones take batch norm's fast path.
    """
    rows = len(next(iter(batch.values())))
    missing = -rows % multiple
    if missing == 0 and not always_weighted:
        return batch
    padded = {
        key: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) for key, array in batch.items()
    }
    if ROW_WEIGHTS not in batch:  # else its padding is zero, as theirs
        padded[ROW_WEIGHTS] = np.concatenate([np.ones(rows, np.float32), np.zeros(missing, np.float32)])
    return padded


def pad_micro_batches(batch: Batch, accumulate: int, replicas: int) -> Batch:
    """Divides a batch into micro-batches of equal size, each padded until it divides over the devices.

    Args:
        batch: arrays with a row an example.
        accumulate: number of micro-batches.
        replicas: number of devices over all processes.

    Returns:
        As of `pad_rows`, the micro-batches one after another.
    """
    even = pad_rows(batch, accumulate)
    rows = len(next(iter(even.values()))) // accumulate
    if rows % replicas == 0:
        return even
    micro = [{key: array[at * rows : (at + 1) * rows] for key, array in even.items()} for at in range(accumulate)]
    parts = [pad_rows(part, replicas) for part in micro]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def rows_of_replica(batch: Batch, replica: int, *, replicas: int, accumulate: int) -> Batch:
    """The rows that one device gets, its micro-batches one after another.

    Micro-batch m is a run of consecutive rows of the global batch, divided over the devices in order. So what a
    micro-batch contains, and with it the statistics of batch norm, does not depend on the number of devices.

    Args:
        batch: what `pad_micro_batches` gives.
        replica: index of the device over all processes.
        replicas: number of devices over all processes.
        accumulate: number of micro-batches.
    """
    if replicas == 1:
        return batch
    return {
        key: array.reshape(accumulate, replicas, -1, *array.shape[1:])[:, replica].reshape(-1, *array.shape[1:])
        for key, array in batch.items()
    }


def prefetch(items: Iterable[Item], *, depth: int = 2) -> Iterator[Item]:
    """Draws `items` in a thread of its own, up to `depth` ahead; an exception there is raised here."""
    slots: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, Item | BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                slots.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as failure:
            put((False, failure))

    thread = threading.Thread(target=draw, name="dlkit-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item = slots.get()
            if not more:
                if item is not None:
                    raise item  # type: ignore[misc]
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(timeout=5)
