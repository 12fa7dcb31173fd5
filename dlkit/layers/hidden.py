"""What image nets are made of: an input of a sufficient size, hidden layers that share their options, and a head."""

from dataclasses import dataclass

import keras

from dlkit.errors import UsageError
from dlkit.layers.activations import Activation, activation
from dlkit.layers.convolution import Conv2D
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.norms import Norm, norm


def image_input(net: str, input_shape: tuple[int, int, int], *, smallest: int = 1) -> keras.KerasTensor:
    """The input of an image net: standardized images of (height, width, channels).

    Args:
        net: its name, for the error.
        input_shape: height, width and channels.
        smallest: the least height and width that the net's layers can shrink.

    Raises:
        dlkit.errors.UsageError: the images are too small.
    """
    height, width, channels = input_shape
    if min(height, width) < smallest or channels < 1:
        raise UsageError(
            f"{net} needs images of at least {smallest}x{smallest}x1, and they are {height}x{width}x{channels}",
            "enlarge the images, or choose a net that shrinks them less; `dlkit models` lists all",
        )
    return keras.Input(input_shape, name="image")


@dataclass(frozen=True)
class Hidden:
    """Adds hidden layers to a net: each with its norm and activation, each named by its place.

    The parts of `stage2_block1_conv2` are called `stage2_block1_norm2` and `stage2_block1_relu2`.

    Args:
        init: how weights are drawn, see `initializers.initializer`.
        norm: which normalization follows a layer; with one, the layer has no bias, since the norm has an offset.
        activation: the non-linearity.
        bias_init: the first value of every bias.
    """

    init: str
    norm: Norm
    activation: Activation
    bias_init: float = 0.0

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        pool: int = 1,
        place: str = "",
        number: int | str = "",
        activate: bool = True,
    ) -> keras.KerasTensor:
        """A convolution, its norm and, unless `activate` is False, its activation.

        Args:
            x: (batch, height, width, channels).
            filters: the number of feature maps.
            size: of the kernel in both directions.
            stride: in both directions.
            padding: zeros added on every side; size // 2 unless given, which keeps the image's size at stride 1.
            groups: how many parts the channels are divided into, each part convolved by itself.
            pool: of so many positions in both directions the greatest goes on to the norm.
            place: where in the net the layer is, such as `stage2_block1`.
            number: of the layer at that place.
            activate: whether the activation follows.
        """
        padding = size // 2 if padding is None else padding
        # Keras pads by itself at stride 1 only: its `same` with a stride adds the zeros on one side.
        same = stride == 1 and padding == size // 2
        if padding and not same:
            x = keras.layers.ZeroPadding2D(padding, name=_name(place, "pad", number))(x)
        x = Conv2D(
            filters,
            size,
            stride,
            padding="same" if same else "valid",
            groups=groups,
            use_bias=self.norm == "none",
            kernel_initializer=initializer(self.init),
            bias_initializer=keras.initializers.Constant(self.bias_init),
            name=_name(place, "conv", number),
        )(x)
        if pool > 1:
            x = keras.layers.MaxPooling2D(pool, name=_name(place, "pool", number))(x)
        x = self._normalize(x, place, number)
        return self.activate(x, place=place, number=number) if activate else x

    def dense(
        self, x: keras.KerasTensor, units: int, *, number: int, normalize: bool = True, dropout: float = 0.0
    ) -> keras.KerasTensor:
        """A dense layer, its norm unless `normalize` is False, its activation and, at a rate above 0, dropout."""
        use_norm = normalize and self.norm != "none"
        x = self._dense(units, f"dense{number}", use_bias=not use_norm)(x)
        if use_norm:
            x = self._normalize(x, "dense", number)
        x = self.activate(x, place="dense", number=number)
        return Dropout(dropout, name=f"dense_dropout{number}")(x) if dropout else x

    def head(self, x: keras.KerasTensor, classes: int, *, dropout: float = 0.0) -> keras.KerasTensor:
        """Dropout at a rate above 0, then the linear layer whose outputs are the logits of the classes."""
        if dropout:
            x = Dropout(dropout, name="head_dropout")(x)
        return self._dense(classes, "head")(x)

    def activate(self, x: keras.KerasTensor, *, place: str = "", number: int | str = "") -> keras.KerasTensor:
        """The activation alone."""
        return activation(self.activation, name=_name(place, self.activation, number))(x)

    def _normalize(self, x: keras.KerasTensor, place: str, number: int | str) -> keras.KerasTensor:
        layer = norm(self.norm, name=_name(place, "norm", number))
        return x if layer is None else layer(x)

    def _dense(self, units: int, name: str, *, use_bias: bool = True) -> keras.layers.Dense:
        if units < 1:
            raise UsageError(f"layer {name} needs at least 1 unit, and has {units}", "give it a whole number above 0")
        return keras.layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=initializer(self.init),
            bias_initializer=keras.initializers.Constant(self.bias_init),
            name=name,
        )


def _name(place: str, kind: str, number: int | str) -> str:
    return f"{place}_{kind}{number}" if place else f"{kind}{number}"
