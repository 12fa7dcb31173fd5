"""What a layer may need to know of the training step that calls it: which rows it sees, and where chance comes from.

Dropout must not depend on how a batch is divided over devices and micro-batches, and batch norm must know which rows
are padding. Both would otherwise be arguments of every layer and every model. The trainer sets the context around its
call of the model; it belongs to the thread, since MirroredStrategy traces each replica in a thread of its own. Without
a context (a model called from a notebook) all rows count and dropout draws as Keras does.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class StepContext:
    """One call of the model inside a training step.

    Args:
        seed: (2,) int32 tensor, folded from (seed, purpose, step): the same on every replica.
        first_row: scalar int32 tensor, the place of this call's first row in the global batch.
        row_weights: (rows,) float tensor, 0 for padded rows and 1 for real ones; None when all rows are real.
        sampling: scalar float tensor, how probably a decoder reads its own word; None without scheduled sampling.
    """

    seed: tf.Tensor
    first_row: tf.Tensor
    row_weights: tf.Tensor | None = None
    sampling: tf.Tensor | None = None


_local = threading.local()


def current() -> StepContext | None:
    """The context of the call in progress, or None outside a training step."""
    return getattr(_local, "context", None)


@contextmanager
def use(context: StepContext) -> Iterator[None]:
    """Makes `context` the current one inside the block."""
    before = current()
    _local.context = context
    try:
        yield
    finally:
        _local.context = before
