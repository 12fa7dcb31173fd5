"""The Transformer (Vaswani et al. 2017): an encoder and a decoder made of attention and position-wise networks."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from dlkit.data.tokenizer import PAD
from dlkit.decode.step import Step
from dlkit.errors import UsageError
from dlkit.layers.activations import FeedForwardActivation, activation
from dlkit.layers.attention import Cache, Memory, MultiHeadAttention, append, bias_of, linear, sizes
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.norms import EPSILON
from dlkit.layers.positions import Positions
from dlkit.layers.read_out import ReadOut
from dlkit.models import Paper
from dlkit.values import Count, Rate

PAPERS = {"transformer": Paper("Vaswani et al. 2017, Attention is all you need")}


@dataclass(frozen=True)
class Settings:
    """What all blocks of a model share; the sizes of the paper's table 3 are `base` and `big`.

    Args:
        layers: blocks of the encoder.
        decoder_layers: blocks of the decoder.
        width: d_model.
        ffn: hidden units of the position-wise networks, d_ff.
        heads: h, of every attention.
        dropout: P_drop, on the sum of embeddings and positions and on the output of each sublayer.
        attention_dropout: on the weights of attention.
        ffn_dropout: on the hidden units of the position-wise networks.
        norm: whether layer norm follows a sum or precedes a sublayer.
        activation: of the hidden units.
        biases: whether projections and position-wise networks have biases.
        init: how matrices are drawn.
        norm_biases: whether layer norms have biases.
    """

    layers: int
    decoder_layers: int
    width: int
    ffn: int
    heads: int
    dropout: float
    attention_dropout: float = 0.0
    ffn_dropout: float = 0.0
    norm: Literal["post", "pre"] = "post"
    activation: FeedForwardActivation = "relu"
    biases: bool = True
    init: str = "glorot"
    norm_biases: bool = True


SIZES = {
    "tiny": Settings(layers=4, decoder_layers=4, width=128, ffn=256, heads=4, dropout=0.1),
    "small": Settings(layers=4, decoder_layers=4, width=256, ffn=1024, heads=4, dropout=0.1),
    "base": Settings(layers=6, decoder_layers=6, width=512, ffn=2048, heads=8, dropout=0.1),
    "big": Settings(layers=6, decoder_layers=6, width=1024, ffn=4096, heads=16, dropout=0.3),
}

# ------------------------------------------------------------------------------------------------------ layers, blocks


class Embedding(keras.layers.Embedding):
    """Word vectors times sqrt(d_model) (section 3.4): small enough for a read-out, as large as the positions."""

    def build(self, input_shape: Any = None) -> None:
        """Creates the table (vocabulary, width)."""
        # Not cast as a whole when a few rows are looked up.
        self._embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=keras.initializers.RandomNormal(0.0, self.output_dim**-0.5),
            autocast=False,
        )

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Vectors (..., width) of ids (...)."""
        vectors = tf.gather(tf.convert_to_tensor(self.embeddings), ids)
        return ops.cast(vectors, self.compute_dtype) * self.output_dim**0.5


class Linear(keras.layers.Dense):
    """Keras' dense layer, by way of `linear`."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Affine map of the last axis of `x`."""
        bias = None if self.bias is None else ops.cast(self.bias, x.dtype)
        return linear(x, ops.cast(self.kernel, x.dtype), bias)


class AddNorm:
    """Add & norm: LayerNorm(x + Dropout(f(x))), the paper's, or x + Dropout(f(LayerNorm(x))) (Xiong et al. 2020)."""

    def __init__(self, at: str, number: int, settings: Settings) -> None:
        self.first = settings.norm == "pre"
        self.norm = layer_norm(f"{at}_norm{number}", settings)
        self.dropout = Dropout(settings.dropout, name=f"{at}_dropout{number}")
        self.layers = [self.norm, self.dropout]

    def before(self, x: tf.Tensor) -> tf.Tensor:
        """What the sublayer f is given."""
        return self.norm(x) if self.first else x

    def after(self, x: tf.Tensor, output: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What the next sublayer sees, for the output of f."""
        x = x + self.dropout(output, training=training)
        return x if self.first else self.norm(x)


class FeedForward:
    """The position-wise network max(0, x W_1 + b_1) W_2 + b_2 (equation 2)."""

    def __init__(self, at: str, settings: Settings) -> None:
        self.hidden = _linear(f"{at}_ffn1", settings.width, settings.ffn, settings)
        self.activation = activation(settings.activation, name=f"{at}_{settings.activation}")
        self.dropout = Dropout(settings.ffn_dropout, name=f"{at}_ffn_dropout")
        self.output = _linear(f"{at}_ffn2", settings.ffn, settings.width, settings)
        self.layers = [self.hidden, self.activation, self.dropout, self.output]

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Outputs, shaped like `x` (batch, time, width)."""
        return self.output(self.dropout(self.activation(self.hidden(x)), training=training))


class EncoderBlock:
    """Figure 1, left: self-attention, add & norm, position-wise network, add & norm."""

    def __init__(self, at: str, settings: Settings) -> None:
        self.self_attention = _attention(f"{at}_self_attention", settings)
        self.add_norm1 = AddNorm(at, 1, settings)
        self.feed_forward = FeedForward(at, settings)
        self.add_norm2 = AddNorm(at, 2, settings)
        self.layers = layers_of(self.self_attention, self.add_norm1, self.feed_forward, self.add_norm2)

    def __call__(self, x: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Outputs (batch, time, width) and the weights of attention."""
        attended, weights = self.self_attention(self.add_norm1.before(x), mask=mask, training=training)
        x = self.add_norm1.after(x, attended, training)
        return self.add_norm2.after(x, self.feed_forward(self.add_norm2.before(x), training), training), weights

    def step(self, x: tf.Tensor, mask: tf.Tensor, cache: Cache, at: tf.Tensor | None = None) -> tuple[tf.Tensor, Cache]:
        """The newest position of each beam: outputs (batch, beams, width) and the cache with it."""
        attended, cache = self.self_attention.extend(self.add_norm1.before(x), cache, mask, at)
        x = self.add_norm1.after(x, attended)
        return self.add_norm2.after(x, self.feed_forward(self.add_norm2.before(x))), cache

    def with_keys(self, x: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Outputs of all positions, with keys and values (batch, heads, time, width / heads) for a cache of them."""
        before = self.add_norm1.before(x)
        keys, values = self.self_attention.keys_and_values(before)
        attended, _ = self.self_attention(before, mask=mask)
        x = self.add_norm1.after(x, attended)
        return self.add_norm2.after(x, self.feed_forward(self.add_norm2.before(x))), keys, values


class DecoderBlock:
    """Figure 1, right: as the encoder's, with attention over the encoder's output in the middle."""

    def __init__(self, at: str, settings: Settings) -> None:
        self.self_attention = _attention(f"{at}_self_attention", settings)
        self.add_norm1 = AddNorm(at, 1, settings)
        self.cross_attention = _attention(f"{at}_cross_attention", settings, cross=True)
        self.add_norm2 = AddNorm(at, 2, settings)
        self.feed_forward = FeedForward(at, settings)
        self.add_norm3 = AddNorm(at, 3, settings)
        self.layers = layers_of(
            self.self_attention, self.add_norm1, self.cross_attention, self.add_norm2, self.feed_forward, self.add_norm3
        )

    def __call__(
        self, x: tf.Tensor, memory: Memory, mask: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All positions at once: outputs (batch, time, width), weights of self-attention and of cross attention."""
        attended, own_weights = self.self_attention(self.add_norm1.before(x), mask=mask, training=training)
        x, weights = self._go_on(self.add_norm1.after(x, attended, training), memory, training)
        return x, own_weights, weights

    def step(
        self, x: tf.Tensor, memory: Memory, mask: tf.Tensor, cache: Cache, at: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Cache, tf.Tensor]:
        """The newest position: outputs (batch, beams, width), the cache with it, weights of cross attention."""
        attended, cache = self.self_attention.extend(self.add_norm1.before(x), cache, mask, at)
        x, weights = self._go_on(self.add_norm1.after(x, attended), memory)
        return x, cache, weights

    def _go_on(self, x: tf.Tensor, memory: Memory, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        attended, weights = self.cross_attention(self.add_norm2.before(x), memory, training=training)
        x = self.add_norm2.after(x, attended, training)
        return self.add_norm3.after(x, self.feed_forward(self.add_norm3.before(x), training), training), weights


def layers_of(*parts: Any) -> list[keras.layers.Layer]:
    """The layers of some parts, blocks and layers, in their order."""
    return [layer for part in parts for layer in getattr(part, "layers", [part])]


def _attention(name: str, settings: Settings, *, cross: bool = False) -> MultiHeadAttention:
    layer = MultiHeadAttention(
        settings.heads,
        cross=cross,
        dropout=settings.attention_dropout,
        use_bias=settings.biases,
        init=settings.init,
        name=name,
    )
    layer.build((None, None, settings.width), (None, None, settings.width))
    return layer


def _linear(name: str, inputs: int, units: int, settings: Settings) -> Linear:
    layer = Linear(units, use_bias=settings.biases, kernel_initializer=initializer(settings.init), name=name)
    layer.build((None, None, inputs))
    return layer


def layer_norm(name: str, settings: Settings) -> keras.layers.Layer:
    """A layer norm over the width, built, with or without its bias."""
    layer = keras.layers.LayerNormalization(epsilon=EPSILON, center=settings.norm_biases, name=name)
    layer.build((None, None, settings.width))
    return layer


# ----------------------------------------------------------------------------------------------------------- the model


class Source(NamedTuple):
    """What the decoder looks at, prepared once for a source; the beams of a row share it."""

    keys: tuple[tf.Tensor, ...]  # for each block of the decoder (batch, heads, source time, width / heads)
    values: tuple[tf.Tensor, ...]  # the same
    mask: tf.Tensor  # (batch, 1, 1, source time) bool, False at padding
    words: tf.Tensor  # of the read-out, (width, vocabulary) or (vocabulary, width), see `_by_column`
    positions: Any = ()  # (steps, width), or a scalar, once they are made ready by `with_room`

    def memories(self) -> list[Memory]:
        """One for each block of the decoder."""
        return [Memory(keys, values, self.mask) for keys, values in zip(self.keys, self.values, strict=True)]


def _by_column(dtype: tf.DType) -> bool:
    """Whether the words stand by column for the products of all steps, which in float32 take a third less time then."""
    return dtype != tf.bfloat16


class State(NamedTuple):
    """What has been said so far. Keys and values stay at their place, a place for each step and beam."""

    caches: tuple[Cache, ...]  # for each block of the decoder
    own: tf.Tensor  # (batch, beams, places) bool: which places are a beam's own history
    steps: Any = ()  # scalar int32, those so far, where there is room for all from the start; () where caches grow


class Transformer(keras.Model):
    """An encoder and a decoder of the blocks above, with embeddings and positions before and a read-out behind them.

    `call` is teacher forcing; `start`, `step` and `reorder` are what decoding needs, see `dlkit.decode.step`.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        settings: Settings,
        positions: Literal["sinusoidal", "learned", "none"],
        max_length: int,
        tied: Literal["none", "target", "all"],
    ) -> None:
        super().__init__(name="transformer")
        self.settings = settings
        self.target_embedding = Embedding(target_vocabulary, settings.width, name="target_embedding")
        self.source_embedding = (
            self.target_embedding
            if tied == "all"
            else Embedding(source_vocabulary, settings.width, name="source_embedding")
        )
        self.source_positions = Positions(positions, max_length=max_length, name="source_positions")
        self.target_positions = Positions(positions, max_length=max_length, name="target_positions")
        self.max_length = self.target_positions.max_length  # None: any length
        self.source_dropout = Dropout(settings.dropout, name="source_dropout")
        self.target_dropout = Dropout(settings.dropout, name="target_dropout")
        for layer in (self.target_embedding, self.source_embedding, self.source_positions, self.target_positions):
            if not layer.built:
                layer.build((None, None, settings.width))
        self.encoder = [EncoderBlock(f"encoder_block{i + 1}", settings) for i in range(settings.layers)]
        self.encoder_layers = layers_of(*self.encoder)
        self.decoder = [DecoderBlock(f"decoder_block{i + 1}", settings) for i in range(settings.decoder_layers)]
        self.decoder_layers = layers_of(*self.decoder)
        # A sum that nothing has normalized would come out of blocks that begin with their norms.
        self.encoder_norm = layer_norm("encoder_norm", settings) if settings.norm == "pre" else None
        self.decoder_norm = layer_norm("decoder_norm", settings) if settings.norm == "pre" else None
        self.head = ReadOut(name="head")
        self.head.build(None)
        if tied == "none":
            self.words = self.add_weight(
                name="head_words", shape=(target_vocabulary, settings.width), initializer=initializer(settings.init)
            )
        else:
            self.words = self.target_embedding.embeddings
        self.built = True

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of every target position, given the tokens before it.

        Args:
            inputs: source (batch, source time) and target_in (batch, target time), int ids padded with 0.
            training: whether dropout is on.

        Returns:
            (batch, target time, target vocabulary), float32 even when the products are of bfloat16.
        """
        return self._run(inputs, training)[0]

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The weights (batch, heads, queries, keys) of every attention, by the name of its layer, without dropout."""
        return self._run(inputs, training=False)[1]

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[State, Source]:
        """An empty history of one beam, and what is made of source ids (batch, source time).

        The caches grow with what is said, so nothing depends on `max_len`.
        """
        encoded, mask, _ = self._encode(source, training=False)
        memories = self._memories(encoded, mask)
        batch, heads, _, head_width = sizes(memories[0].keys)
        # The number of places is unknown in a graph, since it changes in a loop.
        places = tf.raw_ops.PlaceholderWithDefault(input=0, shape=[])
        nothing = tf.zeros((batch, heads, places, head_width), encoded.dtype)
        state = State(caches=(Cache(nothing, nothing),) * len(self.decoder), own=tf.zeros((batch, 1, places), tf.bool))
        keys, values, masks = zip(*memories, strict=True)
        words = ops.cast(tf.convert_to_tensor(self.words), encoded.dtype)
        return state, Source(keys, values, masks[0], tf.transpose(words) if _by_column(words.dtype) else words)

    def with_room(self, state: State, memory: Source, *, steps: int, beams: int) -> tuple[State, Source]:
        """What `start` has given, with caches that have room for `steps` steps of `beams` beams from the start.

        Shapes stay as they are then, which XLA asks for; and what would be the same at each step is done once.
        """
        batch, heads, _, head_width = sizes(memory.keys[0])
        nothing = tf.zeros((batch, heads, steps * beams, head_width), memory.keys[0].dtype)
        own = tf.zeros((batch, 1, steps * beams), tf.bool)
        state = State((Cache(nothing, nothing),) * len(self.decoder), own, steps=tf.constant(0))
        positions = self.target_positions.at(tf.range(steps), self.settings.width)
        return state, memory._replace(positions=positions)

    def step(self, tokens: tf.Tensor, state: State, memory: Source) -> Step:
        """Goes on with tokens (batch, beams) int32; the attention is the last block's, the mean of its heads."""
        batch, beams = sizes(tokens)
        has_room = not isinstance(state.steps, tuple)
        x = self.target_embedding(tokens)  # (batch, beams, width)
        if has_room:
            position, at = state.steps, state.steps * beams
            x += memory.positions[position] if memory.positions.shape.rank else memory.positions
        else:
            position, at = tf.reduce_sum(tf.cast(state.own[:1, 0], tf.int32)), None  # each beam has said as many
            x += self.target_positions.at(position[tf.newaxis], self.settings.width)
        newest = tf.eye(beams, batch_shape=[batch], dtype=tf.bool)
        own = append(state.own, newest, axis=2, at=at)
        mask = bias_of(own)[:, tf.newaxis]  # no beam has nothing to look at, and all blocks share it
        caches = []
        for block, cache, source in zip(self.decoder, state.caches, memory.memories(), strict=True):
            x, extended, weights = block.step(x, source, mask, cache, at)
            caches.append(extended)
        if self.decoder_norm is not None:
            x = self.decoder_norm(x)
        logits = self.head(x, memory.words, by_column=_by_column(x.dtype))
        state = State(tuple(caches), own, steps=position + 1 if has_room else ())
        return Step(logits, state, tf.reduce_mean(weights, axis=1))

    def reorder(self, state: State, parents: tf.Tensor) -> State:
        """Moves the beams: only the table of whose history is where changes, no key and no value moves."""
        return state._replace(own=tf.gather(state.own, parents, batch_dims=1))

    def _run(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The logits and all weights of attention."""
        source, target_in = inputs
        encoded, mask, found = self._encode(source, training)
        x = self.target_positions(self.target_embedding(target_in))
        x = self.target_dropout(x, training=training)
        # The future is hidden, and with it the padding, which comes after all that counts.
        time = tf.range(tf.shape(x)[1])
        causal = bias_of(time[:, tf.newaxis] >= time)
        for block, memory in zip(self.decoder, self._memories(encoded, mask), strict=True):
            x, own, cross = block(x, memory, causal, training)
            found |= {block.self_attention.name: own, block.cross_attention.name: cross}
        if self.decoder_norm is not None:
            x = self.decoder_norm(x)
        return self.head(x, tf.convert_to_tensor(self.words)), found

    def _encode(self, source: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encoder outputs (batch, time, width), the mask (batch, time) of what is no padding, weights of attention."""
        real = tf.not_equal(source, PAD)
        x = self.source_positions(self.source_embedding(source))
        x = self.source_dropout(x, training=training)
        found = {}
        for block in self.encoder:
            x, weights = block(x, real[:, tf.newaxis, tf.newaxis], training)
            found[block.self_attention.name] = weights
        if self.encoder_norm is not None:
            x = self.encoder_norm(x)
        return x, real, found

    def _memories(self, encoded: tf.Tensor, mask: tf.Tensor) -> list[Memory]:
        return [block.cross_attention.memory(encoded, mask) for block in self.decoder]


def transformer(
    source_vocabulary: int,
    target_vocabulary: int,
    *,
    size: Literal["tiny", "small", "base", "big"] = "tiny",
    layers: Count | None = None,
    decoder_layers: Count | None = None,
    width: Count | None = None,
    ffn: Count | None = None,
    heads: Count | None = None,
    dropout: Rate | None = None,
    attention_dropout: Rate = 0.0,
    ffn_dropout: Rate = 0.0,
    norm: Literal["post", "pre"] = "post",
    activation: FeedForwardActivation = "relu",
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal",
    max_length: Count = 512,
    tied: Literal["none", "target", "all"] = "target",
    biases: bool = True,
    init: str = "glorot",
) -> keras.Model:
    """An encoder-decoder Transformer. The size gives defaults, which each other setting overrides.

        size    layers   width    ffn  heads  dropout
        tiny     4 + 4     128    256      4      0.1
        small    4 + 4     256   1024      4      0.1
        base     6 + 6     512   2048      8      0.1     the paper's
        big      6 + 6    1024   4096     16      0.3     the paper's

    Args:
        source_vocabulary: number of source ids.
        target_vocabulary: number of target ids.
        size: see above.
        layers: blocks of the encoder, and of the decoder unless `decoder_layers` is given.
        decoder_layers: blocks of the decoder.
        width: of embeddings, blocks and states, d_model.
        ffn: hidden units of the position-wise networks, d_ff.
        heads: of every attention; a divisor of the width.
        dropout: on the sums of embeddings and positions, and on the output of each sublayer (section 5.4).
        attention_dropout: on the weights of attention.
        ffn_dropout: on the hidden units of the position-wise networks.
        norm: `post` normalizes after each sum, as the paper does; `pre` before each sublayer and once at the end (Xiong
            et al. 2020), which trains deep stacks without a warm-up.
        activation: of the hidden units; the paper's is relu; `relu_squared` is the squared ReLU of So et al.
            2021, Primer.
        positions: `sinusoidal` for any length, `learned` for up to `max_length`, or `none`, which makes a bag of words.
        max_length: rows of the learned tables.
        tied: whether the read-out's matrix is the decoder's embedding (`target`), whether also the encoder's embedding
            is the same (`all`, the paper's, section 3.4), or neither (`none`).
        biases: whether projections and position-wise networks have biases; the read-out has none.
        init: how matrices are drawn; embeddings are drawn from N(0, 1 / width).

    Raises:
        dlkit.errors.UsageError: heads that do not divide the width, or `tied = all` without a joint vocabulary.

    Example:
        >>> model = transformer(8000, 8000, size="tiny", tied="all")
        >>> model((source, target_in)).shape  # ids (32, 11) and (32, 12)
        TensorShape([32, 12, 8000])
    """
    if tied == "all" and source_vocabulary != target_vocabulary:
        raise UsageError(
            f"tied = all needs a joint vocabulary, and there are {source_vocabulary} source and "
            f"{target_vocabulary} target tokens",
            "prepare the data with one tokenizer for both sides, or choose tied = target",
        )
    default = SIZES[size]
    settings = Settings(
        layers=layers or default.layers,
        decoder_layers=decoder_layers or layers or default.decoder_layers,
        width=width or default.width,
        ffn=ffn or default.ffn,
        heads=heads or default.heads,
        dropout=default.dropout if dropout is None else dropout,
        attention_dropout=attention_dropout,
        ffn_dropout=ffn_dropout,
        norm=norm,
        activation=activation,
        biases=biases,
        init=init,
    )
    return Transformer(
        source_vocabulary,
        target_vocabulary,
        settings=settings,
        positions=positions,
        max_length=max_length,
        tied=tied,
    )
