"""What decoding asks of a model, and what it gives back."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dlkit.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf


class Step(NamedTuple):
    """What one more token on each beam leads to."""

    logits: "tf.Tensor"  # (batch, beams, vocabulary), of the next token
    state: Any  # nest of tensors (batch, beams, ...), after the token
    attention: "tf.Tensor | None" = None  # (batch, beams, source time), weights over the source; None without attention


class Decodable(Protocol):
    """A model that can be decoded.

    Two methods may come with it: `reorder(state, parents)`, where moving the state is better done than by
    `gather_beams`, and `with_room`, where the shapes of the state would change from step to step, see the function.
    """

    def start(self, source: "tf.Tensor", *, max_len: "tf.Tensor | int" = 0) -> tuple[Any, Any]:
        """What decoding begins with, for source ids (batch, source time).

        Args:
            source: ids, padded with 0.
            max_len: most tokens that will be generated, which is what a cache has to hold.

        Returns:
            The state, a nest of tensors (batch, 1, ...), and the memory, one of tensors that all beams of a row share
            (batch, ...), or all rows; `()` where there is nothing to remember.
        """
        ...

    def step(self, tokens: "tf.Tensor", state: Any, memory: Any) -> Step:
        """Goes on with tokens (batch, beams) int32, after a state and with the memory that `start` made."""
        ...


StepFunction = Callable[["tf.Tensor", Any, Any], Step]
Reorder = Callable[[Any, "tf.Tensor"], Any]


class Record(NamedTuple):
    """All that a beam search has looked at: the candidates of each step, the best first."""

    tokens: Any  # (batch, steps, candidates) int32
    parents: Any  # (batch, steps, candidates) int32: which beam of the step before a candidate goes on from
    log_probabilities: Any  # (batch, steps, candidates) float32, running sums
    fates: Any  # (batch, steps, candidates) int32: NOTHING, KEPT, ENDED or PRUNED


# Of the candidates of one step the KEPT ones are the next step's beams 0, 1, ... in their order.
NOTHING, KEPT, ENDED, PRUNED = range(4)


class Decoded(NamedTuple):
    """Output sequences, n of them a row, the best first; tensors, or arrays once they have left the graph.

    Where a row has fewer than n, the rest have length 0 and log-probability -inf.
    """

    tokens: Any  # (batch, n, max_len) int32, padding after the end token
    lengths: Any  # (batch, n) int32, generated tokens with the end token
    log_probabilities: Any  # (batch, n) float32, sums over the tokens, the end token included
    scores: Any  # (batch, n) float32, by which they are sorted: log-probabilities, normalized by length when asked for
    attention: Any = None  # (batch, n, max_len, source time) float32, weights over the source when asked for
    record: Record | None = None  # of a beam search, when asked for


def attention_of(made: Step) -> "tf.Tensor":
    """The weights over the source of a step, float32.

    Raises:
        dlkit.errors.UsageError: the model has none.
    """
    import tensorflow as tf

    if made.attention is None:
        raise UsageError("this model has no attention that could be shown", "leave out --align")
    return tf.cast(made.attention, tf.float32)


def gather_beams(state: Any, parents: "tf.Tensor") -> Any:
    """Makes beam j of each row go on from what was beam `parents[row, j]`.

    Args:
        state: nest of tensors (batch, beams, ...).
        parents: (batch, new beams) int32.

    Returns:
        The same nest of tensors (batch, new beams, ...).
    """
    import tensorflow as tf

    return tf.nest.map_structure(lambda leaf: tf.gather(leaf, parents, batch_dims=1), state)


def with_room(model: Any, state: Any, memory: Any, *, steps: int, beams: int) -> tuple[Any, Any]:
    """What `start` has given, made ready for so many steps of so many beams in which no shape changes.

    That is the model's own `with_room`; a model without it has a state whose shapes stay as they are.
    """
    own = getattr(model, "with_room", None)
    return (state, memory) if own is None else own(state, memory, steps=steps, beams=beams)


def reorder_of(model: Any) -> Reorder:
    """The model's own `reorder`, or `gather_beams`."""
    return getattr(model, "reorder", gather_beams)
