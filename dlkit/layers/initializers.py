"""How weights are drawn before training (lecture: getting neural nets to train)."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from dlkit.errors import UsageError, unknown

NAMES = ("he", "xavier", "glorot", "orthogonal", "identity", "gaussian:SD", "zeros")


class Orthogonal(keras.initializers.Orthogonal):
    """U V^T of the singular value decomposition of a Gaussian matrix, so that every singular value is 1.

    Saxe et al. 2014, section 3. Keras' own draws from a QR decomposition; the distribution is the same. The matrix has
    a row for each input of a unit and a column for each unit.
    """

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        """Draws a weight of the given shape."""
        gaussian = np.random.default_rng(self.seed).standard_normal((int(np.prod(shape[:-1])), shape[-1]))
        u, _, v_transposed = np.linalg.svd(gaussian, full_matrices=False)
        return keras.ops.convert_to_tensor(self.gain * np.reshape(u @ v_transposed, shape), dtype=dtype)


class Identity(keras.initializers.Initializer):
    """The identity matrix, of a weight that maps a state to one of the same width."""

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        """The weight of the given shape.

        Raises:
            dlkit.errors.UsageError: it is no square matrix.
        """
        if len(shape) != 2 or shape[0] != shape[1]:
            form = "x".join(map(str, shape))
            raise UsageError(f"init identity is for square matrices, and a weight is {form}", "choose another init")
        return keras.ops.eye(shape[0], dtype=dtype)


def initializer(name: str) -> keras.initializers.Initializer:
    """The initializer of one weight; ask for a new one for every weight, since each holds its own seed.

    fan_in is the number of inputs of one unit: all axes of the weight but the last, so 3 * 3 * channels for a 3x3
    convolution. `keras.utils.set_random_seed` makes the draws of everything built after it reproducible.

    Args:
        name: `he`, N(0, 2/fan_in), for ReLU (He et al. 2015, equation 10); `xavier`, N(0, 1/fan_in), untruncated;
            `glorot`, uniform with variance 2/(fan_in + fan_out) (Glorot and Bengio 2010, equation 16);
            `orthogonal`, all singular values 1; `identity`, for square matrices (Le et al. 2015 draw the recurrent one
            of a plain RNN with ReLU so); `gaussian:SD`, N(0, SD^2); `zeros`.

    Raises:
        dlkit.errors.UsageError: there is no such initializer, or SD is not a number above 0.

    Example:
        >>> keras.layers.Dense(64, kernel_initializer=initializer("he"))
        >>> keras.layers.Dense(64, kernel_initializer=initializer("gaussian:0.0001"))
    """
    kind, colon, deviation = name.partition(":")
    if kind == "gaussian":
        return keras.initializers.RandomNormal(0.0, _deviation(name, deviation))
    if not colon:
        match kind:
            case "he" | "xavier":
                scale = 2.0 if kind == "he" else 1.0
                return keras.initializers.VarianceScaling(scale, "fan_in", "untruncated_normal")
            case "glorot":
                return keras.initializers.GlorotUniform()
            case "orthogonal":
                return Orthogonal()
            case "identity":
                return Identity()
            case "zeros":
                return keras.initializers.Zeros()
    raise unknown("init", name, NAMES)


def side_by_side(name: str, count: int) -> Callable[..., Any]:
    """An initializer for `count` matrices that stand side by side: each is drawn on its own, with its own fans."""
    initializers = [initializer(name) for _ in range(count)]

    def draw(shape: tuple[int, int], dtype: Any = None) -> Any:
        return keras.ops.concatenate([one((shape[0], shape[1] // count), dtype) for one in initializers], axis=1)

    return draw


def _deviation(name: str, text: str) -> float:
    try:
        deviation = float(text)
    except ValueError:
        deviation = 0.0
    if not 0 < deviation < float("inf"):
        raise UsageError(f"init {name} has no standard deviation above 0", "write it after a colon: gaussian:0.01")
    return deviation
