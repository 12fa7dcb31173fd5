"""Attention: of a recurrent decoder over its encoder's states, and in several heads, as Transformers use it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import keras
import tensorflow as tf
from keras import ops

from dlkit.errors import UsageError, unknown
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer, side_by_side

Kind = Literal["identity", "linear", "key_value", "additive"]

# Added to the score of what may not be looked at: its exponential is 0 beside any score, and it is no infinity, whose
# differences are no numbers.
HIDDEN = -1e9


class Memory(NamedTuple):
    """What can be looked at, prepared once for all queries."""

    keys: tf.Tensor  # (batch, s, d)
    values: tf.Tensor  # (batch, s, dv)
    mask: tf.Tensor | None  # (batch, s) bool, False at padding; None without padding


def attend(
    queries: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    *,
    mask: tf.Tensor | None = None,
    scale: float = 1.0,
    dropout: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The context softmax(scale Q K^T) V of each query, and the weights (Vaswani et al. 2017, equation 1).

    Args:
        queries: (..., t, d).
        keys: (..., s, d).
        values: (..., s, dv).
        mask: see `softmax`; broadcastable to (..., t, s).
        scale: of the scores; 1/sqrt(d) in the paper.
        dropout: what is done to the weights before the values are summed.

    Returns:
        The context (..., t, dv), and the weights (..., t, s) before dropout, in float32 (float64 for float64 scores).

    Example:
        >>> context, weights = attend(tf.ones((8, 5, 64)), tf.ones((8, 9, 64)), tf.ones((8, 9, 32)), scale=1 / 8)
        >>> context.shape, weights.shape
        (TensorShape([8, 5, 32]), TensorShape([8, 5, 9]))
    """
    if scale != 1.0:
        queries = queries * scale
    weights = softmax(tf.matmul(queries, keys, transpose_b=True), mask)
    used = weights if dropout is None else dropout(weights)
    return tf.matmul(tf.cast(used, values.dtype), values), weights


def softmax(scores: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Weights exp(score) over their sum along the last axis, in float32 (float64 for float64 scores).

    Args:
        scores: (..., s).
        mask: broadcastable to `scores`. Bool: True may be looked at, and a row without any True has zero weights, not
            NaN. Float: it is added to the scores, see `bias_of`.
    """
    scores = tf.cast(scores, tf.float64 if scores.dtype == tf.float64 else tf.float32)
    if mask is None:
        return tf.nn.softmax(scores)
    if mask.dtype != tf.bool:
        return tf.nn.softmax(scores + tf.cast(mask, scores.dtype))
    weights = tf.nn.softmax(scores + bias_of(mask, scores.dtype))
    return weights * tf.cast(tf.reduce_any(mask, axis=-1, keepdims=True), weights.dtype)


def bias_of(mask: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """0 where the mask is True, else `HIDDEN`: made once where several layers share a mask that hides no whole row."""
    return tf.where(mask, tf.zeros((), dtype), tf.constant(HIDDEN, dtype))


def linear(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """The affine map x W + b of the last axis of `x`, whatever its rank, as one product of two matrices.

    Keras' dense layer comes to the same by way of a tensor product, with more of small operations around it, and adds
    the bias in a way whose gradient is slower.
    """
    rows = x if x.shape.rank == 2 else tf.reshape(x, (-1, kernel.shape[0]))
    product = tf.matmul(rows, kernel)
    if bias is not None:
        product = tf.nn.bias_add(product, bias)
    return product if x.shape.rank == 2 else tf.reshape(product, (*sizes(x)[:-1], kernel.shape[1]))


def sizes(x: tf.Tensor) -> list[Any]:
    """The sizes of all axes: numbers where they are known, scalar tensors elsewhere."""
    dynamic = tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape)]


class Attention(keras.layers.Layer):
    """Attention of decoder states, the queries, over encoder states; the lecture's variants of the score.

        identity   e = h . s                        values h
        linear     e = h^T W s                      values h           Luong et al. 2015, section 3.1, "general"
        key_value  e = (W_k h) . (W_q s) / sqrt(d)  values W_v h       Vaswani et al. 2017, equation 1, one head
        additive   e = v^T tanh(W s + U h)          values h           Bahdanau et al. 2015, appendix A.1.2

    Args:
        kind: which of them.
        units: rows of the matrices of `key_value` and `additive`; the other two have no such choice.
        init: how each matrix is drawn.

    Raises:
        dlkit.errors.UsageError: an unknown kind, no units where they are needed, or, when it is built, states of
            different widths for `identity`.

    Example:
        >>> attention = Attention("additive", 64)
        >>> attention.build((None, None, 128), (None, None, 256))  # widths of decoder and encoder states
        >>> context, weights = attention(queries, attention.memory(states, mask))
    """

    def __init__(self, kind: Kind, units: int | None = None, *, init: str = "glorot", name: str | None = None) -> None:
        super().__init__(name=name)
        if kind not in get_args(Kind):
            raise unknown("attention", kind, get_args(Kind))
        if kind in {"key_value", "additive"} and (units is None or units < 1):
            raise UsageError(f"attention of kind {kind} needs a number of units, at least 1", "as wide as the states")
        self.kind = kind
        self.units = units
        self.init = init
        self.projections: dict[str, keras.Variable] = {}

    def build(self, queries_shape: tuple[int | None, ...], states_shape: tuple[int | None, ...]) -> None:
        """Creates the matrices, for queries (batch, t, queries) and encoder states (batch, s, states)."""
        queries, states = queries_shape[-1], states_shape[-1]
        shapes: dict[str, tuple[int | None, ...]] = {}
        match self.kind:
            case "identity":
                if queries != states:
                    raise UsageError(
                        f"attention of kind identity compares states of {queries} units with states of {states}",
                        "make them equally wide, or choose linear, key_value or additive",
                    )
            case "linear":
                shapes = {"key_kernel": (states, queries)}
            case "key_value":
                sides = {"query": queries, "key": states, "value": states}
                shapes = {f"{side}_kernel": (width, self.units) for side, width in sides.items()}
            case "additive":
                shapes = {
                    "query_kernel": (queries, self.units),
                    "key_kernel": (states, self.units),
                    "v": (self.units, 1),
                }
        for part, shape in shapes.items():
            self.projections[part] = self.add_weight(name=part, shape=shape, initializer=initializer(self.init))

    def memory(self, states: tf.Tensor, mask: tf.Tensor | None = None) -> Memory:
        """Keys and values of encoder states (batch, s, states), once for all queries; mask (batch, s) as of `Memory`.

        For `linear` the keys are W^T h, so that a query has nothing left to do.
        """
        states = ops.cast(states, self.compute_dtype)
        return Memory(self._project("key_kernel", states), self._project("value_kernel", states), mask)

    def call(self, queries: tf.Tensor, memory: Memory) -> tuple[tf.Tensor, tf.Tensor]:
        """Context (batch, t, dv) and weights (batch, t, s) of queries (batch, t, queries)."""
        queries = self._project("query_kernel", queries)
        mask = None if memory.mask is None else memory.mask[:, tf.newaxis]  # (batch, 1, s)
        if self.kind != "additive":
            scale = self.units**-0.5 if self.kind == "key_value" and self.units else 1.0
            return attend(queries, memory.keys, memory.values, mask=mask, scale=scale)
        hidden = tf.tanh(queries[:, :, tf.newaxis] + memory.keys[:, tf.newaxis])  # (batch, t, s, units)
        weights = softmax(tf.squeeze(self._project("v", hidden), -1), mask)
        return tf.matmul(tf.cast(weights, memory.values.dtype), memory.values), weights

    def _project(self, part: str, x: tf.Tensor) -> tf.Tensor:
        """`x` times the matrix of that name; `x` itself where the kind has none."""
        if part not in self.projections:
            return x
        return linear(x, ops.cast(self.projections[part], x.dtype))

    def compute_mask(self, queries: tf.Tensor, previous_mask: tf.Tensor | None = None) -> None:
        """Attaches no mask to the results: a mask goes only where it is passed."""

    def multiply_adds(
        self, input_shape: list[tuple[int, ...]], output_shape: list[tuple[int, ...]]
    ) -> list[tuple[int, ...]]:
        """For one example, as products to be added up, the preparation of the memory included."""
        (t, _), (s, width) = input_shape[0], input_shape[2]
        uses = {"query_kernel": (t,), "key_kernel": (s,), "value_kernel": (s,), "v": (t, s)}
        products = [(*uses[part], *weight.shape) for part, weight in self.projections.items()]
        scores = [] if self.kind == "additive" else [(t, s, input_shape[1][-1])]
        return [*products, *scores, (t, s, width)]


class Cache(NamedTuple):
    """Keys and values of all that has been said, on any beam: a place for each step and beam."""

    keys: tf.Tensor  # (batch, heads, places, width / heads)
    values: tf.Tensor  # the same


def append(old: tf.Tensor, new: tf.Tensor, *, axis: int, at: tf.Tensor | None = None) -> tf.Tensor:
    """`old` with `new` behind it or, where there is room left in it, in it.

    Args:
        old: what there is.
        new: what is added, shaped like `old` but for the axis.
        axis: along which.
        at: where `new` begins in an `old` that has room for it, a scalar int32: XLA writes it in place, and only XLA
            can; None where `old` grows.
    """
    if at is None:
        return tf.concat([old, new], axis=axis)
    # No public module has it, so only who compiles a search depends on it.
    from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice

    begin = tf.stack([at if number == axis else tf.zeros_like(at) for number in range(old.shape.rank)])
    return tf.ensure_shape(dynamic_update_slice(old, new, begin), old.shape)


class MultiHeadAttention(keras.layers.Layer):
    """Attention in several heads, each with projections of its own (Vaswani et al. 2017, section 3.2.2).

        head_i = softmax(Q W_i^Q (K W_i^K)^T / sqrt(d)) V W_i^V,   output = [head_1 ... head_h] W^O

    with d = width / heads. The matrices of all heads stand side by side; those of one input are one matrix, so that
    self-attention projects with a single product, and cross attention its memory.

    Args:
        heads: their number, a divisor of the width of the queries.
        cross: whether keys and values come from a memory; else from the queries' own sequence.
        dropout: share of the weights that is dropped in training.
        use_bias: whether the projections have biases.
        init: how each of the four matrices is drawn.

    Raises:
        dlkit.errors.UsageError: the width is not divisible by the heads.

    Example:
        >>> attention = MultiHeadAttention(4, name="encoder_block1_self_attention")
        >>> output, weights = attention(tf.ones((8, 9, 128)))
        >>> output.shape, weights.shape
        (TensorShape([8, 9, 128]), TensorShape([8, 4, 9, 9]))
    """

    def __init__(
        self,
        heads: int,
        *,
        cross: bool = False,
        dropout: float = 0.0,
        use_bias: bool = True,
        init: str = "glorot",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.heads = heads
        self.cross = cross
        self.use_bias = use_bias
        self.init = init
        self.dropout = Dropout(dropout, name=f"{self.name}_dropout")
        self.projections: dict[str, tuple[keras.Variable, keras.Variable | None]] = {}

    def build(self, queries_shape: tuple[int | None, ...], memory_shape: tuple[int | None, ...] | None = None) -> None:
        """Creates the matrices for queries (batch, t, width) and, for cross attention, states (batch, s, width)."""
        width = queries_shape[-1]
        if width is None or self.heads < 1 or width % self.heads:
            raise UsageError(
                f"attention of width {width} cannot be divided into {self.heads} heads",
                "choose a number of heads that divides the width",
            )
        self.width = width
        self.head_width = width // self.heads
        parts = {"query": 1, "key_value": 2} if self.cross else {"query_key_value": 3}
        for part, count in {**parts, "output": 1}.items():
            inputs = memory_shape[-1] if memory_shape and part == "key_value" else width
            kernel = self.add_weight(
                name=f"{part}_kernel", shape=(inputs, count * width), initializer=side_by_side(self.init, count)
            )
            bias = None
            if self.use_bias:
                bias = self.add_weight(name=f"{part}_bias", shape=(count * width,), initializer="zeros")
            self.projections[part] = (kernel, bias)

    def call(
        self,
        queries: tf.Tensor,
        memory: Memory | None = None,
        mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Looks from each position of `queries` at the memory or, in self-attention, at all of `queries`.

        Args:
            queries: (batch, t, width).
            memory: what `memory` gives, for cross attention.
            mask: for self-attention, broadcastable to (batch, heads, t, t), see `softmax`.
            training: whether dropout is on.

        Returns:
            The output (batch, t, width) and the weights (batch, heads, t, s) before dropout.
        """
        if memory is None:
            q, keys, values = self._project("query_key_value", queries)
            memory = Memory(keys, values, mask)
        else:
            (q,) = self._project("query", queries)
        return self._look(q, memory, training)

    def memory(self, states: tf.Tensor, mask: tf.Tensor | None = None) -> Memory:
        """Keys and values (batch, heads, s, width / heads) of states (batch, s, width), for cross attention.

        Args:
            states: what is looked at.
            mask: (batch, s) bool, False at padding.
        """
        keys, values = self._project("key_value", states)
        return Memory(keys, values, None if mask is None else mask[:, tf.newaxis, tf.newaxis])

    def keys_and_values(self, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of self-attention over states (batch, t, width), what a cache of them holds."""
        _, keys, values = self._project("query_key_value", states)
        return keys, values

    def extend(
        self, queries: tf.Tensor, cache: Cache, mask: tf.Tensor, at: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Cache]:
        """Self-attention of the newest position of each beam, whose keys and values are added to the cache.

        Beams stand where positions stand elsewhere: the mask says which places are a beam's own history, so that
        nothing has to move when beams do.

        Args:
            queries: (batch, beams, width).
            cache: of what was said before.
            mask: broadcastable to (batch, heads, beams, places of the new cache), see `softmax`.
            at: their first place, in a cache that has room for them; see `append`.
        """
        q, keys, values = self._project("query_key_value", queries)
        cache = Cache(append(cache.keys, keys, axis=2, at=at), append(cache.values, values, axis=2, at=at))
        output, _ = self._look(q, Memory(*cache, mask), training=False)
        return output, cache

    def _look(self, q: tf.Tensor, memory: Memory, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        context, weights = attend(
            q,
            memory.keys,
            memory.values,
            mask=memory.mask,
            scale=self.head_width**-0.5,
            dropout=lambda weights: self.dropout(weights, training=training),
        )
        batch, _, t, _ = sizes(context)
        side_by_side = tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (batch, t, self.width))
        return linear(side_by_side, *self._weights("output")), weights

    def _project(self, part: str, x: tf.Tensor) -> list[tf.Tensor]:
        """The projections of `x` (batch, t, width) that stand in one matrix, each (batch, heads, t, width / heads)."""
        kernel, bias = self._weights(part)
        batch, t, _ = sizes(x)
        projected = linear(ops.cast(x, self.compute_dtype), kernel, bias)
        by_head = tf.reshape(projected, (batch, t, -1, self.heads, self.head_width))
        return tf.unstack(tf.transpose(by_head, (2, 0, 3, 1, 4)), num=kernel.shape[1] // self.width)

    def _weights(self, part: str) -> tuple[tf.Tensor, tf.Tensor | None]:
        # Cast here: Keras does it for `call`, not for the other methods.
        kernel, bias = self.projections[part]
        return ops.cast(kernel, self.compute_dtype), None if bias is None else ops.cast(bias, self.compute_dtype)

    def compute_mask(self, queries: tf.Tensor, previous_mask: tf.Tensor | None = None) -> None:
        """Attaches no mask to the results: a mask goes only where it is passed."""

    def multiply_adds(self, input_shape: Any, output_shape: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """For one example, as products to be added up, the projection of the memory included."""
        (t, width), (*_, s) = output_shape
        places = {"output": t, "query": t, "query_key_value": t, "key_value": s}
        projections = [(places[part], *kernel.shape) for part, (kernel, _) in self.projections.items()]
        return [*projections, (t, s, width), (t, s, width)]  # the last two are scores and sums of values

    def values_inside(self, input_shapes: Any, output_shapes: list[tuple[int, ...]]) -> int:
        """Queries and contexts of one example, and keys and values where they are no input: for the backward pass."""
        t, width = output_shapes[0]
        return (2 if self.cross else 4) * t * width
