"""Videos: a conv net on every frame, and an LSTM over what it finds."""

from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.layers.activations import Activation
from dlkit.layers.dropout import Dropout
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits
from dlkit.layers.recurrent import Stack, units_each_way
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "video_lstm": Paper(
        "Donahue et al. 2015, Long-term recurrent convolutional networks for visual recognition and description"
    )
}


class EachFrame(keras.layers.Layer):
    """Applies a net of images to every frame: to all frames of a batch at once, as if each were an example.

    Args:
        net: a functional net from images to vectors.
    """

    names_parts = True  # views name the net's layers without it

    def __init__(self, net: keras.Model, *, name: str) -> None:
        super().__init__(name=name)
        self.net = net
        self.built = True

    def call(self, clips: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Vectors (batch, frames, features) of clips (batch, frames, height, width, channels)."""
        sizes = tf.shape(clips)
        vectors = self.net(tf.reshape(clips, (-1, *self.net.input_shape[1:])), training=training)
        features = self.net.output_shape[-1]
        return tf.ensure_shape(tf.reshape(vectors, (sizes[0], sizes[1], features)), (None, clips.shape[1], features))

    @property
    def net_of_each(self) -> keras.Model:
        """What each frame of a clip goes through: what it costs is counted so often, see `dlkit.summary.summarize`."""
        return self.net


class VideoLSTM(keras.Model):
    """See `video_lstm`."""

    def __init__(
        self,
        frame_shape: tuple[int, int, int],
        classes: int,
        *,
        every_step: bool,
        filters: int,
        layers: int,
        width: int,
        bidirectional: bool,
        dropout: float,
        init: str,
        activation: Activation,
        recurrent_init: str,
        forget_bias: float,
    ) -> None:
        super().__init__(name="video_lstm")
        self.every_step = every_step
        hidden = Hidden(init, "none", activation)
        x = inputs = image_input("video_lstm", frame_shape, smallest=8)
        for number, maps in enumerate((filters, 2 * filters, 2 * filters), 1):
            x = hidden.conv(x, maps, 3, number=number)
            x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)  # 24 -> 12 -> 6 -> 3
        x = hidden.dense(keras.layers.Flatten(name="flatten")(x), width, number=1)
        self.frame_net = EachFrame(keras.Model(inputs, x, name="frame_net"), name="each_frame")
        self.frame_dropout = Dropout(dropout, name="frame_dropout")
        units = units_each_way(width, bidirectional=bidirectional)
        self.stack = Stack(
            "lstm", units, layers=layers, bidirectional=bidirectional, dropout=dropout, init=init,
            recurrent_init=recurrent_init, forget_bias=forget_bias, name="stack",
        )  # fmt: skip
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = Logits(classes, kernel_initializer=initializer(init), name="head")
        self.stack.build((None, None, width))
        self.head.build((None, None, width) if every_step else (None, width))
        self.built = True

    def call(self, clips: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the clips, or of each of their frames.

        Args:
            clips: (batch, frames, height, width, channels), standardized.
            training: whether dropout is on.

        Returns:
            (batch, classes) or (batch, frames, classes), float32 (float64 when the model is).
        """
        seen = self.frame_dropout(self.frame_net(clips, training=training), training=training)
        outputs, states = self.stack(seen, training=training)
        if not self.every_step:
            outputs = states[-1].h  # of a bidirectional net the last state of each way, side by side
        return self.head(self.head_dropout(outputs, training=training))


def video_lstm(
    frame_shape: tuple[int, int, int] = (24, 24, 1),
    classes: int = 10,
    every_step: bool = False,
    *,
    filters: Count = 16,
    layers: Annotated[int, Field(ge=1, le=8)] = 1,
    width: Count = 64,
    bidirectional: bool = False,
    dropout: float = 0.0,
    init: str = "he",
    activation: Activation = "relu",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """A small conv net looks at every frame by itself, an LSTM at what it found, frame after frame.

    Args:
        frame_shape: height, width and channels of a frame, at least 8x8.
        classes: number of classes.
        every_step: whether each frame is told a class, or the end of the clip only.
        filters: feature maps of the first of three conv layers; the others have twice as many.
        layers: LSTM layers.
        width: units of the dense layer behind the conv net, and of each LSTM layer's state.
        bidirectional: whether the LSTM reads both ways, each with half of the width: then a frame's class may follow
            from frames that come after it.
        dropout: share of units dropped before, between and behind the LSTM layers, never between frames.
        init: initializer of the conv net, of the input matrices and of the head.
        activation: the non-linearity of the conv net.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, frames that are too small, or an odd width of a bidirectional net.
    """
    return VideoLSTM(
        frame_shape, classes,
        every_step=every_step, filters=filters, layers=layers, width=width, bidirectional=bidirectional,
        dropout=dropout, init=init, activation=activation, recurrent_init=recurrent_init, forget_bias=forget_bias,
    )  # fmt: skip
