"""Which parts of an input a model's answer depends on: gradients of it, and maps weighted by gradients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlkit.errors import UsageError
from dlkit.probe.features import shape_text
from dlkit.probe.scores import Derivative, derivative
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import numbered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES = 10  # of an image that the table lists
POOLS = (
    keras.layers.MaxPooling2D, keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)  # fmt: skip


def strength(gradient: NDArray) -> NDArray:
    """How fast a number changes with each pixel: the greatest absolute value of its derivative over the channels.

    Simonyan, Vedaldi and Zisserman 2014, Deep inside convolutional networks, section 3.1.

    Args:
        gradient: (..., channels).

    Returns:
        (...).
    """
    return np.abs(gradient).max(axis=-1)


def weighted_maps(maps: NDArray, gradient: NDArray) -> NDArray:
    """Where the maps of a layer speak for a class: ReLU(sum_k a_k A_k).

    Selvaraju et al. 2017, Grad-CAM, equations 1 and 2: each map A_k weighs what the logit's derivative with respect to
    it is on average over its places, a_k, and of the sum over the maps only what is positive stays.

    Args:
        maps: (height, width, maps).
        gradient: of the class's logit with respect to them, of the same shape.

    Returns:
        (height, width).
    """
    return np.maximum((maps * gradient.mean(axis=(0, 1))).sum(axis=-1), 0)


def as_large_as(values: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """A map, enlarged smoothly."""
    small = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def shown(image: NDArray) -> NDArray:
    """A standardized image as pixels from 0 to 1: (height, width), in colour (height, width, 3)."""
    pixels = (image - image.min()) / (np.ptp(image) or 1)
    return pixels if pixels.shape[-1] == 3 else pixels.mean(axis=-1)


# --------------------------------------------------------------------------------------------------------------- views


def view(subject: Subject) -> View:
    """The view `saliency`."""
    found, called, names = _of_one(subject)
    told = f"{called}: how it changes the {found.name}"
    if found.shown.ndim >= 4:
        return _of_pixels(subject, found, told)
    return _of_steps(subject, found, told, names)


def _of_one(subject: Subject) -> tuple[Derivative, str, list[str]]:
    """The derivative of one example, what to call it, and the names of its steps where it is a text."""
    from dlkit.probe.one_example import example

    one = example(subject)
    return derivative(subject, one.batch), one.called, one.source


def _of_pixels(subject: Subject, found: Derivative, told: str) -> View:
    images, gradients = found.shown[0], found.gradient[0]
    if images.ndim == 3:
        images, gradients = images[np.newaxis], gradients[np.newaxis]
    maps = np.stack([strength(gradient) for gradient in gradients])  # (frames, height, width)
    several = len(maps) > 1
    order = np.argsort(-maps, axis=None)[:PLACES]
    places = [tuple(int(side) for side in np.unravel_index(at, maps.shape)) for at in order]

    def draw() -> "Figure":
        from dlkit.probe import panels, pictures

        chosen = pictures.spread(len(maps), 4) if several else [0]
        drawn: list[panels.Panel] = []
        for at in chosen:
            what = f"frame {at}" if several else "input"
            drawn.append(panels.Image(what, shown(images[at])))
            unit = "|d number / d pixel|, standardized pixels"
            drawn.append(panels.Map("saliency", maps[at], unit, "column", "row", square=True))
        return panels.figure(drawn, title=f"{subject.operand}: saliency", note=told)

    return View(
        columns=[*(["frame"] if several else []), "row", "column", "|gradient|"],
        right=["frame", "row", "column", "|gradient|"],
        rows=[(*place[0 if several else 1 :], f"{maps[place]:.3g}") for place in places],
        records=[
            {"frame": frame, "row": row, "column": column, "gradient": float(maps[frame, row, column])}
            for frame, row, column in places
        ],
        notes=[told, f"the {len(places)} pixels that change it most, the greatest of their channels"],
        draw=draw,
        facts={"example": told, "number": found.name, "value": found.value, "map": maps.tolist()},
        key="places",
    )


def _of_steps(subject: Subject, found: Derivative, told: str, names: list[str]) -> View:
    sizes = np.linalg.norm(found.gradient[0], axis=-1)  # (time,)
    names = names[: len(sizes)]
    offset = len(sizes) - len(names) if names else 0  # a token of the model's own before the words
    steps = [(at, names[at - offset] if names and at >= offset else "") for at in range(len(sizes))]
    unit = "norm of d number / d word vector" if names else "norm of d number / d input"

    def draw() -> "Figure":
        from dlkit.probe import panels

        title = f"{subject.operand}: saliency"
        if names:
            rows = panels.Rows(
                "each word", unit, [name or "(start)" for _, name in steps], {"": sizes.tolist()}, bars=True
            )
            return panels.figure([rows], title=title, note=told)
        line = panels.Line("", range(len(sizes)), sizes.tolist())
        channels = panels.Map("input", found.shown[0].T, "standardized", "step", "channel")
        return panels.figure([panels.Lines("each step", "step", unit, [line]), channels], title=title, note=told)

    return View(
        columns=["step", *(["token"] if names else []), "|gradient|"],
        right=["step", "|gradient|"],
        rows=[(at, *([name] if names else []), f"{size:.3g}") for (at, name), size in zip(steps, sizes, strict=True)],
        records=[
            {"step": at, **({"token": name} if names else {}), "gradient": float(size)}
            for (at, name), size in zip(steps, sizes, strict=True)
        ],
        notes=[told, unit],
        draw=draw,
        facts={"example": told, "number": found.name, "value": found.value},
        key="steps",
    )


@dataclass(frozen=True)
class _Weighted:
    layer: str
    shape: tuple[int, ...]
    maps: NDArray  # (images, height, width)


def view_gradcam(subject: Subject) -> View:
    """The view `gradcam`."""
    found, called, _ = _of_one(subject)
    images = found.shown[0] if found.shown.ndim == 5 else found.shown
    layers = _weighted(subject, found)
    told = f"{called}: where maps speak for the {found.name}"
    height, width = images.shape[1:3]

    def draw() -> "Figure":
        from dlkit.probe import panels, pictures

        drawn: list[panels.Panel] = []
        several = len(images) > 1
        for at in pictures.spread(len(images), 4):
            pixels = shown(images[at])
            drawn.append(panels.Image(f"frame {at}" if several else "input", pixels))
            for one in layers:
                title = f"{one.layer}, {shape_text(one.maps.shape[1:])}"
                over = as_large_as(one.maps[at], height, width)
                drawn.append(panels.Image(title, pixels, over, "weighted sum of maps"))
        columns = min(3, 1 + len(layers))
        return panels.figure(drawn, title=f"{subject.operand}: Grad-CAM", note=told, columns=columns)

    rows, records = [], []
    for one in layers:
        at = np.unravel_index(int(one.maps.argmax()), one.maps.shape)
        row, column = (
            round((float(place) + 0.5) * side / count - 0.5)
            for place, side, count in zip(at[1:], (height, width), one.maps.shape[1:], strict=True)
        )
        share = float((one.maps > 0).mean())
        most = float(one.maps.max())
        rows.append((one.layer, shape_text(one.shape), f"{most:.3g}", f"{row}, {column}", f"{100 * share:.0f} %"))
        records.append(
            {"layer": one.layer, "shape": list(one.shape), "largest": most, "row": row, "column": column,
             "positive": share, "map": one.maps.tolist()}
        )  # fmt: skip
    return View(
        columns=["layer", "maps", "largest", "at row, column", "positive"],
        right=["largest", "at row, column", "positive"],
        rows=rows,
        records=records,
        notes=[told, "rows and columns of the image; positive is the share of places that speak for it"],
        draw=draw,
        facts={"example": told, "number": found.name, "value": found.value},
    )


def _weighted(subject: Subject, found: Derivative) -> list[_Weighted]:
    """The maps of the layers that are asked for, else of the last that is no pool."""
    spatial: dict[str, tuple[Any, NDArray]] = {}
    for name, seen, gradient in zip(numbered(found.calls), found.calls, found.of_calls, strict=True):
        output = seen.output
        if gradient is not None and output is not None and output.shape.rank == 4 and min(output.shape[1:3]) > 1:
            spatial[name] = seen, gradient
    if not spatial:
        raise UsageError(f"{subject.operand} has no maps to weigh: its layers have no height and width", "saliency can")
    if subject.layers:
        names = subject.chosen(list(spatial))
    else:
        names = [name for name, (seen, _) in spatial.items() if not isinstance(seen.layer, POOLS)][-1:]
    layers = []
    for name in names:
        seen, gradient = spatial[name]
        values = np.asarray(seen.output)
        maps = np.stack([weighted_maps(*pair) for pair in zip(values, gradient, strict=True)])
        layers.append(_Weighted(name, values.shape[1:], maps))
    return layers
