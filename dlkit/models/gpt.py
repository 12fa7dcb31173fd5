"""GPT: a decoder-only Transformer as a language model (Radford et al. 2018 and 2019)."""

from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from dlkit.decode.step import Step
from dlkit.layers.activations import FeedForwardActivation
from dlkit.layers.attention import Cache, append, bias_of, sizes
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import ReadOut
from dlkit.models import Paper
from dlkit.models.transformer import EncoderBlock, Settings, layer_norm, layers_of
from dlkit.values import Count, Rate

PAPERS = {
    "gpt": Paper(
        "Radford et al. 2018, Improving language understanding by generative pre-training; with norms before the "
        "sublayers as in Radford et al. 2019, Language models are unsupervised multitask learners"
    )
}


class State(NamedTuple):
    """What has been said so far. Keys and values stay at their place, a place for each step and beam."""

    caches: tuple[Cache, ...]  # for each block
    own: tf.Tensor  # (batch, beams, places) bool: which places are a beam's own history
    steps: Any = ()  # scalar int32, those in the caches, where these have room from the start; () where they grow
    history: Any = ()  # (batch, beams, window) int32, the tokens behind the caches, where more follow than fit


class Words(NamedTuple):
    """What all steps read, made ready once."""

    read_out: tf.Tensor  # (width, vocabulary)
    positions: tf.Tensor  # (max_length, width)


class Table(keras.layers.Embedding):
    """A vector for each token, or for each position, as it was learned: not scaled, unlike a Transformer's."""

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Vectors (..., width) of ids (...)."""
        return ops.cast(tf.gather(tf.convert_to_tensor(self.embeddings), ids), self.compute_dtype)


class GPT(keras.Model):
    """Blocks of causal self-attention and position-wise networks between an embedding and a read-out.

    `call` scores whole sequences; `start`, `step`, `with_room` and `reorder` are what decoding needs, see
    `dlkit.decode.step`.
    """

    def __init__(self, vocabulary: int, *, settings: Settings, max_length: int, tied: bool) -> None:
        super().__init__(name="gpt")
        self.settings = settings
        self.max_length = max_length
        self.embedding, self.positions = (
            Table(rows, settings.width, embeddings_initializer=initializer(settings.init), name=name)
            for rows, name in ((vocabulary, "embedding"), (max_length, "positions"))
        )
        for table in (self.embedding, self.positions):
            table.build(None)
        self.dropout = Dropout(settings.dropout, name="dropout")
        self.blocks = [EncoderBlock(f"block{i + 1}", settings) for i in range(settings.layers)]
        self.block_layers = layers_of(*self.blocks)
        self.norm = layer_norm("norm", settings) if settings.norm == "pre" else None
        self.head = ReadOut(name="head")
        self.head.build(None)
        self.words = (
            self.embedding.embeddings
            if tied
            else self.add_weight(
                name="head_words", shape=(vocabulary, settings.width), initializer=initializer(settings.init)
            )
        )
        self.built = True

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the token after each position, given those up to it.

        Args:
            ids: (batch, time) int, at most `max_length` tokens.
            training: whether dropout is on.

        Returns:
            (batch, time, vocabulary), float32 even when the products are of bfloat16.
        """
        return self._run(ids, training)[0]

    def attention_weights(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """The weights (batch, heads, queries, keys) of every attention, by the name of its layer, without dropout."""
        return self._run(ids, training=False)[1]

    def _run(self, ids: tf.Tensor, training: bool) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        time = tf.range(tf.shape(ids)[1])
        x = self.embedding(ids) + self.positions(time)
        x = self.dropout(x, training=training)
        causal = bias_of(time[:, tf.newaxis] >= time)
        found = {}
        for block in self.blocks:
            x, found[block.self_attention.name] = block(x, causal, training)
        return self._logits(x), found

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        return self.head(x if self.norm is None else self.norm(x), tf.convert_to_tensor(self.words))

    # -------------------------------------------------------------------------------------------------- step by step

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[State, Words]:
        """An empty history of one beam. Of the source (batch, any) only the number of rows counts.

        The caches grow with what is said, up to `max_length` tokens.
        """
        batch, settings = tf.shape(source)[0], self.settings
        # The number of places is unknown in a graph, since it changes in a loop.
        places = tf.raw_ops.PlaceholderWithDefault(input=0, shape=[])
        nothing = tf.zeros((batch, settings.heads, places, settings.width // settings.heads), self.compute_dtype)
        state = State((Cache(nothing, nothing),) * len(self.blocks), own=tf.zeros((batch, 1, places), tf.bool))
        words = ops.cast(tf.transpose(tf.convert_to_tensor(self.words)), self.compute_dtype)
        return state, Words(words, self.positions(tf.range(self.max_length)))

    def with_room(self, state: State, memory: Words, *, steps: int, beams: int) -> tuple[State, Words]:
        """What `start` has given, with caches that have room from the start; shapes stay as they are then.

        When more steps follow than the model has positions, it goes on with the later half of its context each time
        that all positions are used: so a token is said after at least half of them, and costs about two steps.
        """
        batch, settings = sizes(state.own)[0], self.settings
        window = min(steps, self.max_length)
        shape = (batch, settings.heads, window * beams, settings.width // settings.heads)
        nothing = tf.zeros(shape, self.compute_dtype)
        return State(
            (Cache(nothing, nothing),) * len(self.blocks),
            own=tf.zeros((batch, 1, window * beams), tf.bool),
            steps=tf.constant(0),
            history=tf.zeros((batch, 1, window), tf.int32) if steps > window > 1 else (),
        ), memory

    def step(self, tokens: tf.Tensor, state: State, memory: Words) -> Step:
        """Goes on with tokens (batch, beams) int32."""
        batch, beams = sizes(tokens)
        if isinstance(state.steps, tuple):
            position, at = tf.reduce_sum(tf.cast(state.own[:1, 0], tf.int32)), None  # each beam has said as many
        else:
            if not isinstance(state.history, tuple):
                state = self._with_history(tokens, state, memory)
            position, at = state.steps, state.steps * beams
        x = self.embedding(tokens) + memory.positions[position]
        newest = tf.eye(beams, batch_shape=[batch], dtype=tf.bool)
        own = append(state.own, newest, axis=2, at=at)
        mask = bias_of(own)[:, tf.newaxis]  # no beam has nothing to look at, and all blocks share it
        caches = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x, extended = block.step(x, mask, cache, at)
            caches.append(extended)
        x = x if self.norm is None else self.norm(x)
        logits = self.head(x, memory.read_out, by_column=True)
        steps = () if at is None else position + 1
        return Step(logits, State(tuple(caches), own, steps, state.history))

    def reorder(self, state: State, parents: tf.Tensor) -> State:
        """Moves the beams: only the table of whose history is where changes, no key and no value moves."""
        moved = state._replace(own=tf.gather(state.own, parents, batch_dims=1))
        if isinstance(state.history, tuple):
            return moved
        return moved._replace(history=tf.gather(state.history, parents, batch_dims=1))

    def _with_history(self, tokens: tf.Tensor, state: State, memory: Words) -> State:
        """Makes room for a token where there is none left, and writes the token into the history."""
        window = state.history.shape[2]

        def begin_anew() -> State:
            return self._from_later_half(state, memory)

        state = tf.cond(state.steps >= window, begin_anew, lambda: state)
        history = append(state.history, tokens[..., tf.newaxis], axis=2, at=state.steps)
        return state._replace(history=history)

    def _from_later_half(self, state: State, memory: Words) -> State:
        """The state as if no more than the later half of the context had been read."""
        batch, beams, window = sizes(state.history)
        kept = window // 2
        later = state.history[:, :, window - kept :]
        rows = tf.reshape(later, (-1, kept))  # (batch * beams, kept)
        x = self.embedding(rows) + memory.positions[:kept]
        time = tf.range(kept)
        causal = bias_of(time[:, tf.newaxis] >= time)
        caches = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x, keys, values = block.with_keys(x, causal)
            keys, values = (self._by_place(part, beams, cache.keys) for part in (keys, values))
            caches.append(Cache(keys, values))
        # Place t * beams + b is what beam b said at step t.
        own = tf.tile(tf.eye(beams, batch_shape=[batch], dtype=tf.bool), (1, 1, kept))
        own = tf.pad(own, ((0, 0), (0, 0), (0, (window - kept) * beams)))
        history = tf.pad(later, ((0, 0), (0, 0), (0, window - kept)))
        return State(
            tuple(caches), tf.ensure_shape(own, state.own.shape), tf.constant(kept),
            tf.ensure_shape(history, state.history.shape),
        )  # fmt: skip

    @staticmethod
    def _by_place(part: tf.Tensor, beams: int, room: tf.Tensor) -> tf.Tensor:
        """Keys or values (batch * beams, heads, kept, head width) at their places in a cache like `room`."""
        _, heads, kept, width = part.shape
        by_beam = tf.reshape(part, (-1, beams, heads, kept, width))
        by_place = tf.reshape(tf.transpose(by_beam, (0, 2, 3, 1, 4)), (-1, heads, kept * beams, width))
        filled = tf.pad(by_place, ((0, 0), (0, 0), (0, room.shape[2] - kept * beams), (0, 0)))
        return tf.ensure_shape(filled, room.shape)


def gpt(
    vocabulary: int,
    *,
    layers: Count = 4,
    width: Count = 128,
    ffn: Count | None = None,
    heads: Count = 4,
    max_length: Count = 64,
    dropout: Rate = 0.0,
    attention_dropout: Rate = 0.0,
    norm: Literal["post", "pre"] = "pre",
    activation: FeedForwardActivation = "gelu",
    tied: bool = True,
    biases: bool = False,
    init: str = "gaussian:0.02",
) -> keras.Model:
    """A language model of causal self-attention: each token looks at all tokens before it.

    With four layers, four heads, a width of 128, 64 positions and a vocabulary of 65 it has 804,096 parameters.

    Args:
        vocabulary: number of ids.
        layers: blocks.
        width: of embeddings, blocks and states.
        ffn: hidden units of the position-wise networks; by default four times the width.
        heads: of every attention; a divisor of the width.
        max_length: learned positions, the most tokens that are read at once: at least `data.block`.
        dropout: on the sums of embeddings and positions, and on the output of each sublayer.
        attention_dropout: on the weights of attention.
        norm: `pre` normalizes before each sublayer and once at the end, as GPT-2 does, `post` after each sum, as GPT.
        activation: of the hidden units; GPT's is gelu; `relu_squared` (squared ReLU; So et al. 2021, Primer)
            takes less time.
        tied: whether the read-out's matrix is the embedding.
        biases: whether projections, position-wise networks and norms have biases.
        init: how matrices, embeddings and positions are drawn.

    Raises:
        dlkit.errors.UsageError: heads that do not divide the width.

    Example:
        >>> model = gpt(65)
        >>> model(ids).shape  # ids (12, 64)
        TensorShape([12, 64, 65])
    """
    settings = Settings(
        layers=layers,
        decoder_layers=0,
        width=width,
        ffn=ffn or 4 * width,
        heads=heads,
        dropout=dropout,
        attention_dropout=attention_dropout,
        norm=norm,
        activation=activation,
        biases=biases,
        init=init,
        norm_biases=biases,
    )
    return GPT(vocabulary, settings=settings, max_length=max_length, tied=tied)
