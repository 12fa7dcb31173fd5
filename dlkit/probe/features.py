"""Feature maps: what every layer makes of one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import PASSING_ON

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def computing_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a functional model that compute something, in the order of the model.

    Raises:
        dlkit.errors.UsageError: the model is a Python class whose inner values have no names.
    """
    if not getattr(model, "inputs", None):
        raise UsageError(
            f"{model.name} is not built of named layers: their outputs cannot be looked up",
            "`dlkit summarize` lists its layers",
        )
    return [layer for layer in model.layers if not isinstance(layer, PASSING_ON)]


def watched(model: keras.Model, names: Sequence[str], *, inputs_of: Sequence[str] | None = None) -> keras.Model:
    """The same model, same weights, with the outputs of the named layers as its outputs: name -> tensor.

    Args:
        model: a functional model.
        names: of layers.
        inputs_of: of layers whose inputs are wanted, too: then the outputs are a pair, those and the inputs by name.
    """
    outputs = {name: model.get_layer(name).output for name in names}
    if inputs_of is None:
        return keras.Model(model.input, outputs)
    return keras.Model(model.input, [outputs, {name: model.get_layer(name).input for name in inputs_of}])


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
        model: a functional model.
        image: (height, width, channels), standardized.
        names: names of layers.

    Example:
        >>> maps = features(model, image, ["conv1"])
        >>> maps[0].values.shape
        (28, 28, 6)
    """
    outputs = watched(model, names)(image[np.newaxis], training=False)
    return [LayerFeatures(name, np.asarray(outputs[name], dtype=np.float32)[0]) for name in names]


def main_maps(model: keras.Model, maps: Sequence[LayerFeatures]) -> list[LayerFeatures]:
    """Those of the maps that later layers see: what comes out of activations and pools; all when there is none."""
    kinds = (keras.layers.Activation, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
    return [one for one in maps if isinstance(model.get_layer(one.layer), kinds)] or list(maps)


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as people write it, such as 28x28x6; n is a length that differs."""
    return "x".join("n" if side is None else str(side) for side in shape)


def view(subject: Subject) -> View:
    """The view `features`: per layer the shape and range of its maps; as a picture, the maps."""
    net = subject.image_net
    names = subject.chosen([layer.name for layer in computing_layers(net)])
    image, called = subject.one_image()
    facts: dict[str, Any] = {"image": called}
    said = called
    if net is subject.model:
        *maps, last = features(net, image, [*names, net.layers[-1].name])
        odds = np.exp(last.values - last.values.max())
        best = int(odds.argmax())
        answer, probability = subject.classes[best], float(odds[best] / odds.sum())
        said = f"{called}: the model says {answer} ({100 * probability:.1f} %)"
        facts |= {"predicted": answer, "probability": probability}
    else:
        maps = features(net, image, names)

    def draw() -> "Figure":
        from dlkit.probe import pictures

        spatial = [one for one in maps if one.values.ndim == 3]
        if not spatial:
            raise UsageError(
                "none of these layers has maps to draw: their outputs have no height and width",
                "`activations` looks at dense layers, too",
            )
        few = len(spatial) <= pictures.MAX_LAYERS
        drawn = spatial if few or subject.layers else main_maps(net, spatial)
        return pictures.features(
            drawn, image, layers=len(spatial), title=f"{subject.operand}: feature maps", subtitle=said
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
        notes=[said],
        draw=draw,
        facts=facts,
    )
