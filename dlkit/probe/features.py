"""Feature maps: what every layer makes of one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import PASSING_ON, Seen, calls_of, numbered

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def computing_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a functional model that compute something, in the order of the model; a net inside it is one."""
    return [layer for layer in model.layers if not isinstance(layer, PASSING_ON)]


def watched(model: keras.Model, names: Sequence[str], *, inputs_of: Sequence[str]) -> keras.Model:
    """The same model, same weights, whose outputs are a pair: those of some layers and the inputs of some, by name.

    Args:
        model: a functional model.
        names: of the layers whose outputs are wanted.
        inputs_of: of those whose inputs are.
    """
    outputs = {name: model.get_layer(name).output for name in names}
    return keras.Model(model.input, [outputs, {name: model.get_layer(name).input for name in inputs_of}])


def calls_by_name(net: keras.Model, images: NDArray[np.float32] | tf.Tensor) -> tuple[dict[str, Seen], tf.Tensor]:
    """What the layers of a net do with images, as at test time, and what the net says of them.

    Args:
        net: any net of images: a graph of layers, one with nets inside, whose layers are gone through, or code of its
            own.
        images: (n, height, width, channels), standardized.

    Returns:
        The calls that give numbers by their names, see `numbered`, in their order; and the output of the net.

    Example:
        >>> seen, logits = calls_by_name(lenet, images)
        >>> seen["conv1"].output.shape
        TensorShape([1, 28, 28, 6])
    """
    calls, outputs = calls_of(net, lambda: net(images, training=False))
    named = zip(numbered(calls), calls, strict=True)
    return {name: seen for name, seen in named if seen.output is not None}, outputs


@dataclass(frozen=True)
class LayerFeatures:
    """The output of one layer for one image.

    Args:
        layer: the layer's name.
        values: (height, width, channels) or (features,) float32.
    """

    layer: str
    values: NDArray[np.float32]


def features(model: keras.Model, image: NDArray[np.float32], names: Sequence[str]) -> list[LayerFeatures]:
    """The outputs of the named layers for one image, as at test time.

    Args:
        model: a net of images, see `calls_by_name`.
        image: (height, width, channels), standardized.
        names: names of layers; those of a net inside stand behind its name and a slash.

    Example:
        >>> maps = features(model, image, ["conv1"])
        >>> maps[0].values.shape
        (28, 28, 6)
    """
    return _maps(calls_by_name(model, image[np.newaxis])[0], names)


def _maps(seen: Mapping[str, Seen], names: Sequence[str]) -> list[LayerFeatures]:
    return [LayerFeatures(name, np.asarray(seen[name].output, dtype=np.float32)[0]) for name in names]


def main_layers(seen: Mapping[str, Seen]) -> list[str]:
    """Those calls whose outputs later layers see: of activations and pools; all when there is none."""
    kinds = (keras.layers.Activation, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
    return [name for name, call in seen.items() if isinstance(call.layer, kinds)] or list(seen)


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as people write it, such as 28x28x6; n is a length that differs."""
    return "x".join("n" if side is None else str(side) for side in shape)


def view(subject: Subject) -> View:
    """The view `features`: per layer the shape and range of its maps; as a picture, the maps."""
    net = subject.image_net
    image, called = subject.one_image()
    seen, answered = calls_by_name(net, image[np.newaxis])
    maps = _maps(seen, subject.chosen(list(seen)))
    facts: dict[str, Any] = {"image": called}
    subtitle = called
    if net is subject.model:
        logits = np.asarray(answered, dtype=np.float32)[0]
        odds = np.exp(logits - logits.max())
        best = int(odds.argmax())
        answer, probability = subject.classes[best], float(odds[best] / odds.sum())
        subtitle = f"{called}: the model says {answer} ({100 * probability:.1f} %)"
        facts |= {"predicted": answer, "probability": probability}

    def draw() -> "Figure":
        from dlkit.probe import pictures

        spatial = [one for one in maps if one.values.ndim == 3]
        if not spatial:
            raise UsageError(
                "none of these layers has maps to draw: their outputs have no height and width",
                "`activations` looks at dense layers, too",
            )
        few = len(spatial) <= pictures.MAX_LAYERS
        main = main_layers({one.layer: seen[one.layer] for one in spatial})
        drawn = spatial if few or subject.layers else [one for one in spatial if one.layer in main]
        return pictures.features(
            drawn, image, layers=len(spatial), title=f"{subject.operand}: feature maps", subtitle=subtitle
        )

    return View(
        columns=["layer", "shape", "min", "mean", "max"],
        right=["min", "mean", "max"],
        rows=[
            (one.layer, shape_text(one.values.shape), *(f"{f(one.values):.3g}" for f in (np.min, np.mean, np.max)))
            for one in maps
        ],
        records=[
            {
                "layer": one.layer,
                "shape": list(one.values.shape),
                "min": float(one.values.min()),
                "mean": float(one.values.mean()),
                "max": float(one.values.max()),
            }
            for one in maps
        ],
        notes=[subtitle],
        draw=draw,
        facts=facts,
    )
