"""Pictures of what the probes find, drawn without a display, in colours that colour-blind people can tell apart.

A function takes what a probe returns and gives a figure; `save` writes it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit import durable
from dlkit.console import safe
from dlkit.errors import cannot_write
from dlkit.probe.look import COLOURS, on_log_axis, plain

if TYPE_CHECKING:
    from dlkit.probe.activations import LayerActivations
    from dlkit.probe.features import LayerFeatures
    from dlkit.probe.filters import LayerFilters

DPI = 120
COLUMNS = 16  # tiles in one row
TILE = 16  # at least so many dots are its longer side
NAME = 26  # letters of a layer's name
MAX_LAYERS = 20  # in a picture of maps or kernels
MAX_IMAGES = 96  # kernels of a first layer, six rows
BLUE, ORANGE, GREEN = COLOURS[0], COLOURS[4], COLOURS[2]


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, in one step.

    Raises:
        dlkit.errors.DlkitError: the place cannot be written.
    """
    content = png(figure)
    try:
        durable.write(path, content)
    except OSError as failure:
        raise cannot_write(path, failure) from None


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0 to count - 1, evenly spaced, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, limit)).tolist()})


def mosaic(tiles: NDArray[np.floating], columns: int) -> NDArray[np.float64]:
    """Lays tiles out in rows, with a gap of about an eighth of a tile. Small tiles are enlarged by whole factors.

    Args:
        tiles: (n, height, width), or (n, height, width, 3) in colour.
        columns: tiles in a row; where there are fewer, the row stays empty to the right.

    Returns:
        One image: not-a-number, in colour white, where there is no tile.
    """
    factor = -(-TILE // max(tiles.shape[1:3]))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, *colours = tiles.shape
    gap = round(max(height, width) / 8)
    rows = -(-count // columns)
    shape = rows * (height + gap) - gap, columns * (width + gap) - gap, *colours
    whole = np.full(shape, 1.0 if colours else np.nan)
    for place, tile in enumerate(tiles):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        whole[top : top + height, left : left + width] = tile
    return whole


@dataclass(frozen=True)
class _Strip:
    """A mosaic across the picture, with its label at its left; gray or colours as they are, else a map."""

    image: NDArray[np.floating]
    label: str
    colours: str = "gray"
    least: float = 0.0
    most: float = 1.0


def _stacked(strips: Sequence[_Strip], *, title: str, subtitle: str = "", note: str = "") -> Figure:
    """Strips one below the other. All sizes are in inches, so nothing overlaps whatever the number of strips."""
    labels_width, strip_width, gap, line, margin = 1.75, 9.0, 0.14, 0.155, 0.15
    heights = [
        max(strip_width * strip.image.shape[0] / strip.image.shape[1], line * (strip.label.count("\n") + 1))
        for strip in strips
    ]
    head = 0.62 if subtitle else 0.42
    foot = 0.32 if note else margin
    width = labels_width + strip_width + 2 * margin
    height = head + sum(heights) + gap * (len(strips) - 1) + foot
    figure = Figure(figsize=(width, height))
    top = height - head
    for strip, tall in zip(strips, heights, strict=True):
        left = margin + labels_width
        axes = figure.add_axes((left / width, (top - tall) / height, strip_width / width, tall / height))
        axes.imshow(strip.image, cmap=strip.colours, vmin=strip.least, vmax=strip.most, interpolation="nearest")
        axes.set_anchor("NW")
        axes.set_axis_off()
        figure.text(
            (left - 0.12) / width, top / height, strip.label, ha="right", va="top", fontsize=8, linespacing=1.25,
            parse_math=False,
        )  # fmt: skip
        top -= tall + gap
    figure.text(margin / width, 1 - 0.1 / height, fitting(title), ha="left", va="top", fontsize=12, parse_math=False)
    if subtitle:
        figure.text(margin / width, 1 - 0.35 / height, fitting(subtitle), va="top", fontsize=9, parse_math=False)
    figure.text(margin / width, 0.1 / height, note, va="bottom", fontsize=8, color="0.3", parse_math=False)
    return figure


def features(
    maps: "Sequence[LayerFeatures]", image: NDArray[np.float32], *, title: str, subtitle: str = "", layers: int = 0
) -> Figure:
    """The image, then a strip of feature maps for each layer; 20 layers at most, and the first 16 maps of each.

    Args:
        maps: outputs of layers; those without height and width are left out.
        image: (height, width, channels), standardized.
        title: the first line.
        subtitle: the second.
        layers: of how many layers `maps` is a choice; the picture says so when it leaves some out.
    """
    spatial = [one for one in maps if one.values.ndim == 3]
    drawn = [spatial[at] for at in spread(len(spatial), MAX_LAYERS)]
    picture = (image - image.min()) / (np.ptp(image) or 1)
    tile = picture if picture.shape[-1] == 3 else picture[..., 0]
    strips = [_Strip(mosaic(tile[np.newaxis], COLUMNS // 2), "input")]
    for one in drawn:
        height, width, channels = one.values.shape
        shown = np.moveaxis(one.values[..., :COLUMNS], -1, 0)  # (maps, height, width)
        least, most = float(one.values.min()), float(one.values.max())
        of = f"{COLUMNS} of " if channels > COLUMNS else ""
        label = f"{fitting(one.layer, NAME)}\n{of}{channels} maps {height}x{width}\n{least:.3g} to {most:.3g}"
        strips.append(_Strip(mosaic(shown, COLUMNS), label, "cividis", least, most))
    note = "Colours from blue to yellow: from the least to the greatest output of the layer, as written beside it."
    layers = max(layers, len(spatial))
    if len(drawn) < layers:
        note += f" {len(drawn)} of {layers} layers; --layer chooses others."
    return _stacked(strips, title=title, subtitle=subtitle, note=note)


def filters(layers: "Sequence[LayerFilters]", *, title: str) -> Figure:
    """A strip of kernels for each convolution, 20 at most.

    Kernels that look at a gray or colour image are drawn as images. Of the deeper ones a line of tiles is one filter,
    and a tile its weights for one input channel: the first filters (4, or fewer when there are many layers), the first
    16 channels.
    """
    strips = []
    lines = max(1, min(4, 24 // len(layers)))
    for one in (layers[at] for at in spread(len(layers), MAX_LAYERS)):
        limit = float(np.abs(one.kernel).max()) or 1.0
        kernels = np.moveaxis(one.kernel, -1, 0)  # (filters, height, width, inputs)
        count, height, width, inputs = kernels.shape
        if inputs in {1, 3}:
            shown = kernels[:MAX_IMAGES]
            tiles = (shown / limit + 1) / 2 if inputs == 3 else shown[..., 0]
            what = f"{_of(len(shown), count)} filters {height}x{width}"
        else:
            shown = np.moveaxis(kernels[:lines, ..., :COLUMNS], -1, 1)  # (filters, inputs, height, width)
            empty = [(0, 0), (0, COLUMNS - shown.shape[1]), (0, 0), (0, 0)]
            tiles = np.pad(shown, empty, constant_values=np.nan).reshape(-1, height, width)
            what = f"{_of(len(shown), count)} filters {height}x{width},\n{_of(shown.shape[1], inputs)} channels"
        label = f"{fitting(one.layer, NAME)}\n{what}\n±{limit:.2g}"
        strips.append(_Strip(mosaic(tiles, COLUMNS), label, "gray", -limit, limit))
    note = (
        "Gray is a weight of 0, black and white are the weights that are written beside the layer, below and above 0."
    )
    if len(strips) < len(layers):
        note += f" {len(strips)} of {len(layers)} layers; --layer chooses others."
    return _stacked(strips, title=title, note=note)


def fitting(text: str, length: int = 100) -> str:
    """A text as it can stand over a picture: nothing invisible, and cut in the middle when it is too long."""
    text = safe(text)
    return text if len(text) <= length else f"{text[: length // 2 - 1]} … {text[-length // 2 + 2 :]}"


def letters(width: float, size: int) -> int:
    """How many letters of a font size, in points, stand side by side in so many inches."""
    return int(width / (0.0095 * size))


def heading(name: str, text: str, length: int = 100) -> str:
    """`NAME: TEXT` as it can stand over a picture; when it is too long the name loses of its beginning what it has to.

    Example:
        >>> heading("runs/lenet_digits-1", "360 examples of digits, test", 45)
        '… enet_digits-1: 360 examples of digits, test'
    """
    name, text = safe(name), safe(text)
    room = max(length - len(text) - 2, length // 3)
    name = name if len(name) <= room else f"… {name[2 - room :]}"
    return f"{name}: {fitting(text, length - len(name) - 2)}"


def own_name(data: str) -> str:
    """A data name without the folders that it lies in.

    Example:
        >>> own_name("my/photos/"), own_name("/data/x.en,/data/x.de"), own_name("imagenette/160px-v2")
        ('photos', 'x.en,x.de', 'imagenette/160px-v2')
    """
    parts = data.split(",")
    return ",".join(Path(part).name or part if datasets.is_path(part) else part for part in parts)


def told_apart(names: Sequence[str], length: int) -> list[str]:
    """Names of runs that stand beside each other, shortened where all are alike, so that they still differ.

    Example:
        >>> told_apart(["runs/resnet20_cifar10_split-1", "runs/resnet20_cifar10_split-2"], 16)
        ['resnet … split-1', 'resnet … split-2']
    """
    folder = _common_beginning(names).rpartition("/")[0]
    names = [safe(name.removeprefix(f"{folder}/") if folder else name) for name in names]
    shared = _common_beginning(names)
    left_out = max(map(len, names)) - length + 3
    if left_out <= 3:
        return names
    if left_out > len(shared):
        return [fitting(name, length) for name in names]
    kept = (len(shared) - left_out) // 2
    return [f"{name[:kept]} … {name[kept + left_out :]}".lstrip() for name in names]


def _common_beginning(texts: Sequence[str]) -> str:
    pairs = zip(min(texts), max(texts), strict=False)  # what these two share all share
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _of(shown: int, count: int) -> str:
    return f"{shown} of {count}" if shown < count else str(count)


def activations(layers: "Sequence[LayerActivations]", *, title: str) -> Figure:
    """Panels over the same layers: mean and standard deviation; shares of zeros, of dead and of saturated units.

    With batch norms two more: how far their running means are from those of the data, and the variances of the data
    over the running ones, on a logarithmic axis.
    """
    count = len(layers)
    places = np.arange(count)
    height = min(0.22 * count, 40.0) + 1.7
    has_norms = any(one.mean_gap is not None for one in layers)
    widths = [5.0, 5.0, 3.8, 3.8] if has_norms else [5.0, 5.0]
    figure = Figure(figsize=(sum(widths) + 0.5, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    left, right, *of_norms = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
    left.errorbar(
        [one.mean for one in layers], places, xerr=[one.std for one in layers],
        fmt="o", markersize=4, color=BLUE, elinewidth=1.4,
    )  # fmt: skip
    left.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    left.set_xlabel("output: mean (dot), one standard deviation to each side (line)", fontsize=9)
    named = spread(count, 180)
    left.set_yticks(named, [fitting(layers[at].layer, NAME) for at in named], fontsize=8, parse_math=False)
    left.set_ylim(count - 0.4, -0.6)  # the first layer on top
    right.barh(places, [100 * one.zeros for one in layers], height=0.6, color=BLUE, label="outputs that are 0")
    dead = [(at, 100 * one.dead / one.units) for at, one in enumerate(layers) if one.dead is not None]
    saturated = [(at, 100 * one.saturated) for at, one in enumerate(layers) if one.saturated is not None]
    for points, what, marker, colour in (
        (dead, "ReLU units that are dead", "D", ORANGE),
        (saturated, "saturated outputs of a sigmoid or tanh", "^", GREEN),
    ):
        if points:
            right.scatter(
                [share for _, share in points], [at for at, _ in points], label=what,
                marker=marker, s=22, color=colour, edgecolor="black", linewidth=0.6, zorder=3, clip_on=False,
            )  # fmt: skip
    right.set_xlim(0, 100)
    right.set_xlabel("share of the layer, %", fontsize=9)
    right.tick_params(axis="y", length=0)
    if has_norms:
        _draw_norms(layers, *of_norms)
    for axes in (left, right, *of_norms):
        plain(axes)
        axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower right", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(fitting(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    return figure


def _draw_norms(layers: "Sequence[LayerActivations]", means: Axes, variances: Axes) -> None:
    """What comes into each batch norm against its running statistics."""
    from dlkit.probe.panels import powers  # which itself needs this module

    gaps = [(at, one.mean_gap) for at, one in enumerate(layers) if one.mean_gap is not None]
    means.barh([at for at, _ in gaps], [gap for _, gap in gaps], height=0.6, color=BLUE)
    means.set_xlabel("mean off the running mean, in running sd", fontsize=9)
    means.set_xlim(left=0)
    ratios = on_log_axis(one.variance_ratio or 0.0 for one in layers)
    there = [ratio for ratio in ratios if np.isfinite(ratio)]
    variances.scatter(
        ratios, range(len(layers)), marker="s", s=22, color=BLUE, edgecolor="black", linewidth=0.6, zorder=3
    )
    variances.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    variances.set_xscale("log")
    ends = min([0.5, *(ratio / 1.2 for ratio in there)]), max([2.0, *(1.2 * ratio for ratio in there)])
    variances.set_xlim(ends)
    powers(variances.xaxis, ends)
    variances.set_xlabel("variance over the running variance", fontsize=9)
    for axes in (means, variances):
        axes.tick_params(axis="y", length=0)
