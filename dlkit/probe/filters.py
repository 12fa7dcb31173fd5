"""Filters: the kernels of the convolutions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.probe.features import shape_text
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import inner_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerFilters:
    """The kernels of one convolution.

    Args:
        layer: the layer's name.
        kernel: (height, width, input channels, filters) float32.
    """

    layer: str
    kernel: NDArray[np.float32]

    @property
    def norms(self) -> NDArray[np.float32]:
        """The Euclidean norm of each filter, (filters,)."""
        return np.sqrt((self.kernel.astype(np.float64) ** 2).sum(axis=(0, 1, 2))).astype(np.float32)


def filters(model: keras.Model) -> list[LayerFilters]:
    """The kernels of all two-dimensional convolutions of a model and of the nets inside it, in its order.

    Raises:
        dlkit.errors.UsageError: it has none.

    Example:
        >>> filters(lenet)[0].kernel.shape
        (5, 5, 1, 6)
    """
    kernels = [(name, getattr(layer, "kernel", None)) for name, layer in inner_layers(model)]
    found = [
        LayerFilters(name, np.asarray(kernel, dtype=np.float32))
        for name, kernel in kernels
        if kernel is not None and len(kernel.shape) == 4
    ]
    if not found:
        raise UsageError(f"{model.name} has no convolutions", "`dlkit summarize` lists its layers")
    return found


def view(subject: Subject) -> View:
    """The view `filters`."""
    by_name = {one.layer: one for one in filters(subject.model)}
    layers = [by_name[name] for name in subject.chosen(list(by_name))]

    def draw() -> "Figure":
        from dlkit.probe import pictures

        return pictures.filters(layers, title=f"{subject.operand}: filters")

    return View(
        columns=["layer", "filter", "count", "mean", "sd", "smallest norm", "mean norm", "largest norm"],
        right=["count", "mean", "sd", "smallest norm", "mean norm", "largest norm"],
        rows=[
            (
                one.layer,
                shape_text(one.kernel.shape[:3]),
                one.kernel.shape[3],
                *(f"{number:.3g}" for number in (one.kernel.mean(), one.kernel.std())),
                *(f"{number:.3g}" for number in (one.norms.min(), one.norms.mean(), one.norms.max())),
            )
            for one in layers
        ],
        records=[
            {
                "layer": one.layer,
                "shape": list(one.kernel.shape),
                "mean": float(one.kernel.mean()),
                "std": float(one.kernel.std()),
                "norms": one.norms.tolist(),
            }
            for one in layers
        ],
        notes=["mean and sd of the weights; the norm of a filter is the root of its summed squared weights"],
        draw=draw,
    )
