"""The view `positions`: what stands for the place of a token, and how alike near and far places are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.layers.positions import Positions
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import inner_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 128  # positions of sinusoids, which go on for ever
DISTANCES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Places:
    """The vectors of positions.

    Args:
        layer: the name of the layer that adds them.
        kind: sinusoidal or learned.
        vectors: (positions, width).
    """

    layer: str
    kind: str
    vectors: NDArray[np.float64]

    @property
    def cosines(self) -> NDArray[np.float64]:
        """(positions, positions), of the angles between the vectors."""
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        units = self.vectors / np.maximum(norms, np.finfo(np.float64).tiny)
        return units @ units.T

    def at_distance(self, distance: int) -> float | None:
        """The mean cosine of all pairs so far from each other; None where there are none."""
        if distance >= len(self.vectors):
            return None
        return float(np.diagonal(self.cosines, distance).mean())


def places(subject: Subject) -> list[Places]:
    """What stands for positions in a model, layer by layer.

    Raises:
        dlkit.errors.UsageError: nothing does.
    """
    found, without = [], []
    for name, layer in inner_layers(subject.model):
        if isinstance(layer, Positions):
            if layer.kind == "none":
                without.append(name)
                continue
            width = _width(subject.model)
            vectors = layer.at(tf.range(layer.max_length or SHOWN), width)
            found.append(Places(name, layer.kind, np.asarray(vectors, np.float64)))
        elif isinstance(layer, keras.layers.Embedding) and name == "positions":
            found.append(Places(name, "learned", np.asarray(layer.embeddings, np.float64)))
    if not found and without:
        raise UsageError(
            f"{subject.operand} has no positions: to attention alone a text is a bag of words",
            "train with model.positions=sinusoidal or learned",
        )
    if not found:
        raise UsageError(
            f"{subject.operand} adds no positions to its words",
            "recurrent and conv nets know the order from their form",
        )
    return found


def _width(model: keras.Model) -> int:
    """The width of the vectors that positions are added to."""
    table = next(layer for _, layer in inner_layers(model) if isinstance(layer, keras.layers.Embedding))
    return int(table.output_dim)


def view(subject: Subject) -> View:
    """The view `positions`."""
    known = {one.layer: one for one in places(subject)}
    chosen = [known[name] for name in subject.chosen(list(known))]
    longest = max(len(one.vectors) for one in chosen)
    distances = [distance for distance in DISTANCES if distance < longest]

    def draw() -> "Figure":
        from dlkit.probe.panels import Line, Lines, Map, Panel, figure

        panels: list[Panel] = []
        for one in chosen:
            rows = one.vectors[:SHOWN]
            panels.append(Map(f"{one.layer}, {one.kind}", rows, "value", "feature", "position", signed=True))
            panels.append(
                Map("cosine between positions", one.cosines[:SHOWN, :SHOWN], "cosine", "position", "position",
                    signed=True, square=True)
            )  # fmt: skip
            far = range(len(rows))
            means = [one.at_distance(distance) or 0.0 for distance in far]
            panels.append(Lines("near and far", "positions apart", "mean cosine", [Line("", far, means)]))
        return figure(panels, title=f"{subject.operand}: positions", note=subject.weights, columns=3)

    def cosine(one: Places, distance: int) -> str | None:
        value = one.at_distance(distance)
        return None if value is None else f"{value:.2f}"

    apart = [f"{distance} apart" for distance in distances]
    return View(
        columns=["layer", "kind", "positions", "width", "norm", *apart],
        right=["positions", "width", "norm", *apart],
        rows=[
            (
                one.layer, one.kind, len(one.vectors) if one.kind == "learned" else "any", one.vectors.shape[1],
                f"{np.linalg.norm(one.vectors, axis=1).mean():.3g}", *(cosine(one, at) for at in distances),
            )
            for one in chosen
        ],
        records=[
            {
                "layer": one.layer,
                "kind": one.kind,
                "vectors": one.vectors.tolist(),
                "cosines": {str(at): one.at_distance(at) for at in distances},
            }
            for one in chosen
        ],
        notes=[f"weights: {subject.weights}", "mean norm, and mean cosine between positions so far apart"],
        draw=draw,
    )  # fmt: skip
