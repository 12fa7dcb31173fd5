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

from dlkit.errors import DataError

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


def layout(size: int, *, replicas: int, accumulate: int = 1) -> NDArray[np.int64]:
    """Which row of a batch stands where, when it is divided into micro-batches and these over the devices.

    Micro-batch m is a run of consecutive rows of the global batch, divided over the devices in order and padded until
    it divides. So what a micro-batch contains, and with it the statistics of batch norm, does not depend on the number
    of devices.

    Args:
        size: number of rows of the global batch.
        replicas: number of devices over all processes.
        accumulate: number of micro-batches.

    Returns:
        (replicas, accumulate, rows) numbers of rows, -1 for padding.

    Example:
        >>> layout(7, replicas=2, accumulate=2).tolist()
        [[[0, 1], [4, 5]], [[2, 3], [6, -1]]]
    """
    rows = -(-size // accumulate)
    of_device = -(-rows // replicas)
    numbers = np.arange(accumulate * rows).reshape(accumulate, rows)
    places = np.full((accumulate, replicas * of_device), -1)
    places[:, :rows] = np.where(numbers < size, numbers, -1)
    return places.reshape(accumulate, replicas, of_device).swapaxes(0, 1)


def lay_out(batch: Batch, places: NDArray[np.int64], *, weighted: bool) -> Batch:
    """Puts rows of a batch at the places that `layout` gives to one device, its micro-batches one after another.

    Args:
        batch: arrays with a row an example.
        places: any shape, numbers of rows and -1 for padding.
        weighted: add `row_weights` as `pad_rows` does, unless the batch has them.
    """
    rows = places.ravel()
    real = rows >= 0
    first = int(rows[0])
    if real.all() and np.array_equal(rows, np.arange(first, first + len(rows))):
        laid = {key: array[first : first + len(rows)] for key, array in batch.items()}  # no copy
    else:
        laid = {key: np.zeros((len(rows), *array.shape[1:]), array.dtype) for key, array in batch.items()}
        for key, array in batch.items():
            laid[key][real] = array[rows[real]]
    return laid if ROW_WEIGHTS in batch or not weighted else laid | {ROW_WEIGHTS: real.astype(np.float32)}


def until_failure(items: Iterable[Item]) -> Iterator[Item | DataError]:
    """The items; when the data break them off, the reason as the last one."""
    try:
        yield from items
    except DataError as failure:
        yield failure


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
