"""What a shifted image is to a dense layer, to a convolution, with pooling, with a stride; and to a whole net."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.probe.features import calls_by_name, main_layers
from dlkit.probe.pictures import spread
from dlkit.probe.views import BATCH_SIZE, Subject, View
from dlkit.probe.watching import Seen, inner_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 8  # pixels
IMAGES = 32
FEATURES = 64  # of the layers that are compared
LAYERS = 6  # of the net that are shown unless they are asked for

Stage = Callable[[NDArray], NDArray]


@dataclass(frozen=True)
class Moved:
    """How much what a stage gives changes when its image moves.

    Args:
        stage: its name.
        change: for each shift from 1 pixel on, the distance between what it gives for the image and for the moved one,
            over that between what it gives for two different images: 0 is the same, 1 as if it were another image.
        undone: the same after its maps are moved back by as many of their places, over what both show; None for a stage
            without maps.
    """

    stage: str
    change: list[float]
    undone: list[float] | None


def shifted(images: NDArray, pixels: int) -> NDArray:
    """Images (n, height, width, channels), moved to the right; what comes in at the left is their left edge."""
    moved = np.roll(images, pixels, axis=2)
    moved[:, :, :pixels] = images[:, :, :1]
    return moved


def measure(name: str, stage: Stage, images: NDArray, *, most: int = MOST, stride: int | None = None) -> Moved:
    """Shifts images by 1 to `most` pixels and compares what a stage gives, see `Moved`.

    Args:
        name: of the stage.
        stage: from images to (n, height, width, maps) or (n, features).
        images: (n, height, width, channels), two or more.
        most: pixels.
        stride: pixels between two places of its maps; None for a stage without maps.
    """
    (found,) = _compared({name: stride}, ({name: stage(shifted(images, pixels))} for pixels in range(most + 1)))
    return found


def _compared(strides: Mapping[str, int | None], passes: Iterable[Mapping[str, NDArray]]) -> list[Moved]:
    """What stages give for the images, and then for those moved by 1 pixel, 2 and so on: by stage and its stride."""
    change: dict[str, list[float]] = {name: [] for name in strides}
    undone: dict[str, list[float]] = {name: [] for name in strides}
    each = iter(passes)
    images = next(each)
    for pixels, of_moved in enumerate(each, 1):
        for name, stride in strides.items():
            still, moved = (given[name].astype(np.float64) for given in (images, of_moved))
            change[name].append(_share(moved - still, still))
            if stride is not None:
                # A shift that is no whole number of places is undone as well as it can be.
                tries = {pixels // stride, -(-pixels // stride)}
                undone[name].append(min(_moved_back(moved, still, places, -(-pixels // stride)) for places in tries))
    return [Moved(name, change[name], None if stride is None else undone[name]) for name, stride in strides.items()]


def _moved_back(moved: NDArray, still: NDArray, places: int, border: int) -> float:
    """The share of change where both show what was in the image before: behind the border that has come in."""
    width = still.shape[2]
    if border + places >= width:
        return float("nan")
    there, here = moved[:, :, border + places :], still[:, :, border : width - places]
    return _share(there - here, here)


def _share(difference: NDArray, still: NDArray) -> float:
    """The mean norm of a difference over the mean distance between what different images give."""
    rows = still.reshape(len(still), -1)
    others = np.linalg.norm(rows - np.roll(rows, 1, axis=0), axis=1).mean()
    own = np.linalg.norm(difference.reshape(len(difference), -1), axis=1).mean()
    return float(own / others) if others else 0.0


def textbook_stages(shape: Sequence[int], kernel: NDArray, *, seed: int = 0) -> dict[str, tuple[Stage, int | None]]:
    """Four first layers, each with a ReLU: name -> the stage, and its stride in pixels where it has maps.

    The convolutions share their filters, and the dense layer has as many units as they have filters; its weights are
    drawn from N(0, 2 / inputs).

    Args:
        shape: height, width and channels of the images.
        kernel: (height, width, channels, filters).
        seed: of the dense layer's weights.
    """
    inputs = int(np.prod(shape))
    draw = np.random.default_rng(seed)
    weights = draw.normal(0, np.sqrt(2 / inputs), (inputs, kernel.shape[-1])).astype(np.float32)

    def dense(images: NDArray) -> NDArray:
        return np.maximum(images.reshape(len(images), -1) @ weights, 0)

    def conv(images: NDArray, stride: int = 1) -> NDArray:
        return np.asarray(tf.nn.relu(tf.nn.conv2d(images, kernel, stride, "VALID")))

    def pooled(images: NDArray) -> NDArray:
        return np.asarray(tf.nn.max_pool2d(conv(images), 2, 2, "VALID"))

    return {
        "dense": (dense, None),
        "conv": (conv, 1),
        "conv + max pool 2": (pooled, 2),
        "conv, stride 2": (lambda images: conv(images, 2), 2),
    }


def first_kernel(model: keras.Model, channels: int, *, seed: int = 0) -> tuple[NDArray[np.float32], str]:
    """The filters of a net's first convolution, or 3x3 ones that are drawn, and what to call them."""
    for name, layer in inner_layers(model):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4 and kernel.shape[2] == channels:
            return np.asarray(kernel, np.float32), f"the filters of {name}"
    draw = np.random.default_rng(seed)
    drawn = draw.normal(0, np.sqrt(2 / (9 * channels)), (3, 3, channels, FEATURES))
    return drawn.astype(np.float32), f"{FEATURES} random filters 3x3"


def view(subject: Subject) -> View:
    """The view `shift`."""
    if subject.limit is not None and subject.limit > BATCH_SIZE:
        raise UsageError(
            f"shift compares what {subject.operand} makes of {BATCH_SIZE} images at most",
            f"give --limit {BATCH_SIZE} or less",
        )
    if subject.limit == 1 or subject.examples == 1:
        raise UsageError(
            f"shift compares what {subject.operand} makes of a moved image with what it makes of another one: one image"
            " is not enough",
            "give --limit 2 or more" if subject.limit == 1 else "choose another --split",
        )
    images = next(subject.batches())[: IMAGES if subject.limit is None else subject.limit]
    model = subject.model
    most = min(MOST, images.shape[2] // 2 - 1)
    kernel, of = first_kernel(model, images.shape[-1])
    stages = textbook_stages(images.shape[1:], kernel)
    found = [measure(name, stage, images, most=most, stride=stride) for name, (stage, stride) in stages.items()]
    layers, answers = _of_net(subject, model, images, most)
    pixels = list(range(1, most + 1))

    def draw() -> "Figure":
        from dlkit.probe.panels import Line, Lines, figure

        alike = [(1.0, "another image")]
        moved, change = "pixels that the image moves", "change"
        panels = [
            Lines("first layers, as they are", moved, change, [Line(o.stage, pixels, o.change) for o in found],
                  levels=alike),
            Lines("first layers, maps moved back", moved, change,
                  [Line(o.stage, pixels, o.undone or o.change) for o in found], levels=alike),
            Lines(f"layers of {subject.model_name}", moved, change, [Line(o.stage, pixels, o.change) for o in layers],
                  levels=alike),
        ]  # fmt: skip
        note = f"{subject.weights}; first layers with {of}. Change: distance over that between two different images."
        return figure(panels, title=f"{subject.operand}: when the image moves", note=note, columns=3)

    titles = [f"{at} px" for at in pixels]
    rows: list[list[str]] = []
    for one in [*found, *layers]:
        rows.append([one.stage, *(f"{value:.2f}" for value in one.change)])
        if one.undone is not None:
            rows.append([f"{one.stage}, moved back", *(f"{value:.2f}" for value in one.undone)])
    rows.append(["answers that stay", *(f"{100 * share:.0f} %" for share in answers)])
    return View(
        columns=["layer", *titles],
        right=titles,
        rows=rows,
        records=[
            {"layer": one.stage, "change": one.change, "moved_back": one.undone, "own": one in layers}
            for one in [*found, *layers]
        ],
        notes=[
            f"over {len(images)} images of the {subject.split_name} split; weights: {subject.weights}; the first layers"
            f" have {of}",
            "change of what a layer gives, over that between two different images: 0 is the same, 1 another image;"
            " moved back: after its maps are moved as the image was",
        ],
        draw=draw,
        facts={"images": len(images), "answers_that_stay": answers},
    )


def _of_net(subject: Subject, model: keras.Model, images: NDArray, most: int) -> tuple[list[Moved], list[float]]:
    """The net's own layers, and the share of its answers that stay at each shift."""
    seen, outputs = calls_by_name(model, images)
    last = list(seen)[-1]
    if subject.layers:
        names = subject.chosen(list(seen))
    else:
        kept = [name for name in main_layers(seen) if name != last]
        names = [kept[at] for at in spread(len(kept), LAYERS)] + [last]
    answers: list[NDArray] = []

    def taken(seen: Mapping[str, Seen], outputs: tf.Tensor) -> dict[str, NDArray]:
        """What the layers have given; the net runs once for all of them and for its answers."""
        answers.append(np.asarray(outputs).argmax(axis=-1))
        return {name: np.asarray(seen[name].output) for name in names}

    still = taken(seen, outputs)
    del seen, outputs  # all that every layer gave
    moved = (taken(*calls_by_name(model, shifted(images, pixels))) for pixels in range(1, most + 1))
    found = _compared(dict.fromkeys(names), chain([still], moved))
    first, *others = answers
    return found, [float((other == first).mean()) for other in others]
