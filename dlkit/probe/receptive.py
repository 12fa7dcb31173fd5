"""Receptive fields: what a place of a layer can see by the net's form, and what it does see by its gradients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.probe.features import calls_by_name, shape_text
from dlkit.probe.pictures import spread
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import Seen, has_graph, numbered
from dlkit.summary import Sees, summarize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 8
SHARE = 0.95  # of the gradient


@dataclass(frozen=True)
class Field:
    """What the middle place of a layer sees.

    Args:
        layer: its name.
        shape: of its maps.
        sees: rows and columns that it can see by the net's form (Araujo et al. 2019); "all"; None where the net's code
            could not be followed.
        gradient: (height, width) of the image, mean over images and channels of the absolute derivatives of all maps at
            the place, added up.
    """

    layer: str
    shape: tuple[int, ...]
    sees: Sees
    gradient: NDArray[np.float64]

    @property
    def seen(self) -> tuple[int, int]:
        """Rows and columns of the smallest box outside of which no pixel changes anything."""
        rows, columns = (np.flatnonzero(self.gradient.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return 0, 0
        return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)

    @property
    def most_within(self) -> int | None:
        """The side of the smallest square, around the middle of what is seen, that holds 95 % of it.

        The effective receptive field of Luo et al. 2016, which is smaller than what a place can see.
        """
        total = self.gradient.sum()
        if not total:
            return None
        edges = [np.flatnonzero(self.gradient.any(axis=axis))[[0, -1]] for axis in (1, 0)]
        apart = [np.abs(axis - ends.mean()) for axis, ends in zip(np.indices(self.gradient.shape), edges, strict=True)]
        distance = np.maximum(*apart)
        order = np.argsort(distance, axis=None)
        within = np.cumsum(self.gradient.ravel()[order])
        reach = distance.ravel()[order][int(np.searchsorted(within, SHARE * total))]
        return int(2 * reach) + 1


def fields(model: keras.Model, images: NDArray[np.float32], names: list[str]) -> list[Field]:
    """The receptive fields of the middle places of layers.

    Args:
        model: a net of images, see `dlkit.probe.features.calls_by_name`.
        images: (n, height, width, channels), standardized.
        names: of layers whose outputs have a height and a width.
    """
    by_form = _by_form(model, images.shape[1:])
    x = tf.convert_to_tensor(images)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        seen, _ = calls_by_name(model, x)
        outputs = {name: tf.convert_to_tensor(seen[name].output) for name in names}
        middles = {
            name: tf.unstack(values[:, values.shape[1] // 2, values.shape[2] // 2], axis=0)
            for name, values in outputs.items()
        }
        # Signs at random: the derivatives of maps that are added up as they are could cancel each other out.
        sums = {name: tf.add_n([tf.reduce_sum(_signs(row) * row) for row in rows]) for name, rows in middles.items()}
    found = []
    for name, total in sums.items():
        gradient = tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        field = np.abs(np.asarray(gradient, np.float64)).mean(axis=(0, 3))
        found.append(Field(name, tuple(outputs[name].shape[1:]), by_form.get(name), field))
    return found


def _by_form(model: keras.Model, shape: tuple[int, ...]) -> dict[str, Sees]:
    rows = summarize(model, None if has_graph(model) else keras.KerasTensor((1, *shape))).rows
    return {name: row.sees for name, row in zip(numbered(rows), rows, strict=True)}


def _signs(row: tf.Tensor) -> tf.Tensor:
    draw = np.random.default_rng(0).choice([-1.0, 1.0], size=row.shape)
    return tf.constant(draw, row.dtype)


def view(subject: Subject) -> View:
    """The view `receptive`."""
    net = subject.image_net
    images = _images(subject)
    spatial = [name for name, seen in calls_by_name(net, images[:1])[0].items() if _has_places(seen)]
    if not spatial:
        raise UsageError(f"{subject.operand} has no layer with places: each of its units sees the whole image")
    names = subject.chosen(spatial)
    found = fields(net, images, names)
    side = images.shape[1:3]

    def draw() -> "Figure":
        from dlkit.probe.panels import Line, Lines, Map, Panel, figure

        at = list(range(1, len(found) + 1))
        lines = [
            Line("can see, by the form", at, [_rows(one, side[0]) for one in found]),
            Line("sees, by the gradients", at, [one.seen[0] for one in found]),
            Line(f"{100 * SHARE:.0f} % of the gradient", at, [one.most_within or 0 for one in found]),
        ]
        levels = [(float(side[0]), "the image")]
        panels: list[Panel] = [Lines("rows of the image", "layer, from the first", "pixels", lines, levels=levels)]
        for place in spread(len(found), 5):
            one = found[place]
            panels.append(
                Map(f"{one.layer} (layer {place + 1})", one.gradient, "mean |d maps / d pixel|", "column", "row",
                    square=True)
            )  # fmt: skip
        return figure(panels, title=f"{subject.operand}: receptive fields", note=subject.weights, columns=3)

    return View(
        columns=["layer", "maps", "can see", "sees", "95 % within"],
        right=["can see", "sees", "95 % within"],
        rows=[
            (
                one.layer, shape_text(one.shape), shape_text(one.sees) if isinstance(one.sees, tuple) else one.sees,
                shape_text(one.seen), one.most_within,
            )
            for one in found
        ],
        records=[
            {
                "layer": one.layer, "shape": list(one.shape),
                "can_see": list(one.sees) if isinstance(one.sees, tuple) else one.sees, "sees": list(one.seen),
                "most_within": one.most_within,
            }
            for one in found
        ],
        notes=[
            f"of the middle place of each layer, in pixels of the {shape_text(side)} image; weights: {subject.weights}",
            "can see: by kernels and strides, also beyond the image; sees: the box of all pixels that change it; 95 %"
            " within: the square that holds so much of the gradient",
        ],
        draw=draw,
    )  # fmt: skip


def _has_places(seen: Seen) -> bool:
    return seen.output is not None and seen.output.shape.rank == 4


def _rows(one: Field, all_rows: int) -> float:
    """Rows that a place can see by the form; not a number where that is not known."""
    if isinstance(one.sees, tuple):
        return one.sees[0]
    return all_rows if one.sees == "all" else float("nan")


def _images(subject: Subject) -> NDArray[np.float32]:
    """A few images, or frames of clips, of the split."""
    count = IMAGES if subject.limit is None else subject.limit
    indices = np.arange(min(count, subject.task.size(subject.split_name)))
    batch = subject.task.batch(subject.split_name, indices, epoch=None)
    return batch["images"] if "images" in batch else batch["clips"][:, batch["clips"].shape[1] // 2]
