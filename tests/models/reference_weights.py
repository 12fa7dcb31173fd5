"""The weights that both sides of test_oracle.py give to a net, derived from the layer's name and shape alone.

Kernels are in the layout of TensorFlow: (height, width, inputs / groups, outputs) and (inputs, outputs), where the
inputs of the first dense layer are the last maps in the order height, width, map.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Case:
    """One comparison: two images, small where the net allows it.

    Args:
        net: its name in dlkit.
        size: height and width of the images.
        options: of the builder.
        deviation: of the pixels. AlexNet takes bytes less their mean: smaller maps pass its response normalization
            as good as untouched.
    """

    net: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)
    deviation: float = 1.0


CASES = {
    "resnet18": Case("resnet18", 96),
    "resnet50": Case("resnet50", 96),
    "resnet20": Case("resnet20", 32),
    "vgg16_norm": Case("vgg16", 64, {"norm": "batch"}),
    "alexnet": Case("alexnet", 128, deviation=64),
    "alexnet_paper": Case("alexnet", 128, {"groups": 2, "lrn": "before_pool"}, deviation=64),
}
CLASSES = 10
# AlexNet's first layer behind the response normalizations takes signals of the size of bytes back to size 1, so that
# the biases from there on count and an absolute tolerance suits the logits. No other net has a layer of that name.
GAINS = {"conv3": 1 / 32}


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def images(case: Case) -> Array:
    """(2, height, width, 3) of normal pixels."""
    return _generator("images").standard_normal((2, case.size, case.size, 3), np.float32) * np.float32(case.deviation)


def kernel(name: str, shape: tuple[int, ...]) -> Array:
    """N(0, 2/fan_in), so that a signal keeps its size through a net of ReLUs; times the gain of the layer, if any."""
    deviation = GAINS.get(name, 1) * np.sqrt(2 / np.prod(shape[:-1]))
    return _generator(name).standard_normal(shape, np.float32) * np.float32(deviation)


def bias(name: str, units: int) -> Array:
    """N(0, 0.1^2)."""
    return _generator(f"{name}/bias").standard_normal(units, np.float32) * np.float32(0.1)


def batch_norm(name: str, features: int) -> dict[str, Array]:
    """Scale and variance around 1, offset and mean around 0; no two alike."""
    generator = _generator(name)
    return {
        "gamma": generator.uniform(0.5, 1.0, features).astype(np.float32),
        "beta": generator.normal(0, 0.1, features).astype(np.float32),
        "moving_mean": generator.normal(0, 0.1, features).astype(np.float32),
        "moving_variance": generator.uniform(0.5, 1.5, features).astype(np.float32),
    }
