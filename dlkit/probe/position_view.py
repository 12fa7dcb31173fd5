"""The view `positions`: what stands for the place of a token, how alike near and far places are, and what they change.

To attention alone a text is a bag of words: of words in another order it makes the same vectors in that order. What
stands for places is what changes them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.tokenizer import UNKNOWN
from dlkit.errors import UsageError
from dlkit.layers.positions import Positions
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import calls_of, inner_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = 12  # that an encoder reads in two orders
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
    """What stands for positions in a model, layer by layer; of layers that add nothing, no vector.

    Raises:
        dlkit.errors.UsageError: it has no such layers.
    """
    found = []
    for name, layer in inner_layers(subject.model):
        if isinstance(layer, Positions):
            width = _width(subject.model)
            no_vectors = np.zeros((0, width))
            vectors = no_vectors if layer.kind == "none" else layer.at(tf.range(layer.max_length or SHOWN), width)
            found.append(Places(name, layer.kind, np.asarray(vectors, np.float64)))
        elif isinstance(layer, keras.layers.Embedding) and name == "positions":
            found.append(Places(name, "learned", np.asarray(layer.embeddings, np.float64)))
    if not found:
        raise UsageError(
            f"{subject.operand} adds no positions to its words",
            "recurrent and conv nets know the order from their form",
        )
    return found


def change_of_order(subject: Subject, *, seed: int = 0) -> float | None:
    """How much the vectors that an encoder makes of some words change when it reads the words in reverse order.

    Args:
        subject: a model.
        seed: of the words, which are drawn from the vocabulary.

    Returns:
        The mean distance between the two vectors of a word, over the mean norm of the vectors: 0 where the order is not
        seen. None for models without an encoder of attention, and for those that look at earlier words alone.
    """
    model: Any = subject.model
    if not isinstance(getattr(model, "encoder", None), list):  # of blocks
        return None
    known = min(layer.input_dim for _, layer in inner_layers(model) if isinstance(layer, keras.layers.Embedding))
    count = min(WORDS, model.max_length or WORDS)
    ids = np.random.default_rng(seed).integers(UNKNOWN, known, size=(1, count))
    in_order, reversed_ = (_encoded(subject, words) for words in (ids, ids[:, ::-1]))
    own = len(in_order) - count  # a token of the model's own, which stands first in both orders
    back = np.concatenate([reversed_[:own], reversed_[own:][::-1]])
    return float(np.linalg.norm(back - in_order, axis=1).mean() / np.linalg.norm(in_order, axis=1).mean())


def _encoded(subject: Subject, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """What comes out of the encoder, (words, width)."""
    tensors = {key: tf.constant(array) for key, array in subject.task.batch_of_ids(ids).items()}
    calls, _ = calls_of(subject.model, lambda: subject.task.logits(subject.model, tensors))
    last = [seen for seen in calls if seen.name.startswith("encoder")][-1]
    return np.asarray(last.output, np.float64)[0]


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
    change = change_of_order(subject)
    notes = [f"weights: {subject.weights}"]
    if longest:
        notes.append("mean norm, and mean cosine between positions so far apart")
    else:
        notes.append(
            "no positions: to attention alone a text is a bag of words; train with model.positions=sinusoidal or"
            " learned"
        )
    if change is not None:
        notes.append(
            "of words in reverse order the encoder makes vectors that differ from those in order by"
            f" {100 * change:.2g} % of their norm; by nothing where the order is not seen"
        )

    def draw() -> "Figure":
        from dlkit.probe.panels import Line, Lines, Map, Panel, Rows, figure

        panels: list[Panel] = []
        for one in chosen:
            rows = one.vectors[:SHOWN]
            if not len(rows):
                continue
            panels.append(Map(f"{one.layer}, {one.kind}", rows, "value", "feature", "position", signed=True))
            panels.append(
                Map("cosine between positions", one.cosines[:SHOWN, :SHOWN], "cosine", "position", "position",
                    signed=True, square=True)
            )  # fmt: skip
            far = range(len(rows))
            means = [one.at_distance(distance) or 0.0 for distance in far]
            panels.append(Lines("near and far", "positions apart", "mean cosine", [Line("", far, means)]))
        if change is not None:
            panels.append(Rows("words in reverse order", "change of their vectors", ["encoder"], {"change": [change]}))
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
                one.layer, one.kind, "any" if one.kind == "sinusoidal" else len(one.vectors), one.vectors.shape[1],
                f"{np.linalg.norm(one.vectors, axis=1).mean() if len(one.vectors) else 0:.3g}",
                *(cosine(one, at) for at in distances),
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
        notes=notes,
        draw=draw,
        facts={"change_of_order": change},
    )  # fmt: skip
