"""Activations over many images: how large they are, how many are zero, and which ReLU units are never on."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import DataError
from dlkit.probe.features import computing_layers, shape_text, watched
from dlkit.probe.views import Subject, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Sums = dict[str, NDArray]


@dataclass(frozen=True)
class LayerActivations:
    """The outputs of one layer over a set of images.

    Args:
        layer: the layer's name.
        shape: of the output for one image.
        mean: over all images, positions and channels.
        std: likewise, the standard deviation.
        zeros: the share of outputs that are exactly 0.
        units: the number of channels, or of features of a dense layer.
        dead: how many units were never above 0, at any position of any image; None where the layer has no ReLU.
    """

    layer: str
    shape: tuple[int, ...]
    mean: float
    std: float
    zeros: float
    units: int
    dead: int | None


def activations(
    model: keras.Model, batches: Iterable[NDArray[np.float32]], names: Sequence[str]
) -> list[LayerActivations]:
    """Measures the outputs of the named layers over batches of images, as at test time.

    Sums are kept in float64 and no outputs are, so the number of images does not matter to memory.

    Args:
        model: a functional model.
        batches: arrays (n, height, width, channels), standardized.
        names: names of layers.

    Raises:
        dlkit.errors.DataError: there are no images.
    """
    net = watched(model, names)

    @tf.function(reduce_retracing=True)
    def measure(images: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        return {name: _sums(output) for name, output in net(images, training=False).items()}

    totals: dict[str, Sums] = {}
    for batch in batches:
        for name, sums in measure(tf.convert_to_tensor(batch)).items():
            new = {kind: np.asarray(value) for kind, value in sums.items()}
            totals[name] = {kind: totals[name][kind] + value for kind, value in new.items()} if name in totals else new
    if not totals:
        raise DataError("no images to look at")
    return [_summary(model.get_layer(name), totals[name]) for name in names]


def _sums(output: tf.Tensor) -> dict[str, tf.Tensor]:
    values = tf.cast(output, tf.float64)
    over_channels = list(range(values.shape.rank - 1))
    return {
        "count": tf.size(values),
        "values": tf.reduce_sum(values),
        "squares": tf.reduce_sum(values * values),
        "zeros": tf.math.count_nonzero(tf.equal(values, 0)),
        "times_on": tf.math.count_nonzero(values > 0, axis=over_channels),  # (channels,)
    }


def _summary(layer: keras.layers.Layer, sums: Sums) -> LayerActivations:
    mean = float(sums["values"] / sums["count"])
    variance = float(sums["squares"] / sums["count"]) - mean**2
    return LayerActivations(
        layer=layer.name,
        shape=tuple(int(side) for side in layer.output.shape[1:]),
        mean=mean,
        std=max(0.0, variance) ** 0.5,
        zeros=float(sums["zeros"] / sums["count"]),
        units=len(sums["times_on"]),
        dead=int(np.sum(sums["times_on"] == 0)) if has_relu(layer) else None,
    )


def has_relu(layer: keras.layers.Layer) -> bool:
    """Whether what comes out of a layer has passed a ReLU."""
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    return getattr(layer, "activation", None) is keras.activations.relu


def view(subject: Subject) -> View:
    """The view `activations`."""
    names = subject.chosen([layer.name for layer in computing_layers(subject.model)])
    layers = activations(subject.model, subject.batches(), names)
    over = f"over {subject.images:,} images of the {subject.split_name} split"

    def draw() -> "Figure":
        from dlkit.probe import pictures

        return pictures.activations(layers, title=f"{subject.operand}: activations {over}")

    return View(
        columns=["layer", "shape", "mean", "sd", "zeros", "dead"],
        right=["mean", "sd", "zeros", "dead"],
        rows=[
            (
                one.layer,
                shape_text(one.shape),
                f"{one.mean:.3g}",
                f"{one.std:.3g}",
                f"{100 * one.zeros:.1f} %",
                None if one.dead is None else f"{one.dead} of {one.units}",
            )
            for one in layers
        ],
        records=[asdict(one) for one in layers],
        notes=[f"{over}; a ReLU unit (a channel) is dead when it is not on at any position of any of them"],
        draw=draw,
        facts={"split": subject.split_name, "images": subject.images},
    )
