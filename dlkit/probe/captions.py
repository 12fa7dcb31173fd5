"""Pictures of captions: a page of images with their captions, and where in an image each word looked."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dlkit.probe.pictures import ORANGE, fitting

COLUMNS = 6  # images in a row
SIDE, GAP, LINE, MARGIN, HEAD, FOOT = 1.75, 0.2, 0.15, 0.15, 0.45, 0.32  # inches
LETTERS = 28  # in a line below an image
LINES = 4  # of each text
WORD = 16  # letters of a word above an image
DIMMED = 0.25  # of the brightness is left where a word did not look


def page(images: NDArray[np.uint8], captions: Sequence[tuple[str, ...]], *, title: str) -> Figure:
    """Images in rows, each with one text or several below it, the first in bold. All sizes are in inches.

    Args:
        images: (n, height, width, channels).
        captions: of each image its texts.
        title: the first line.
    """
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    several = max(map(len, captions))
    below = LINE * (LINES * several + 0.5)
    side = SIDE * images.shape[1] / images.shape[2]
    width = max(2 * MARGIN + columns * (SIDE + GAP) - GAP, 7.0)
    height = HEAD + rows * (side + below + GAP) + MARGIN
    figure = Figure(figsize=(width, height))
    for place, (image, texts) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + place % columns * (SIDE + GAP)
        top = height - HEAD - place // columns * (side + below + GAP)
        axes = figure.add_axes((left / width, (top - side) / height, SIDE / width, side / height))
        axes.imshow(_in_colour(image), interpolation="nearest")
        axes.set_axis_off()
        for at, text in enumerate(texts):
            lines = textwrap.wrap(fitting(text, LETTERS * LINES), LETTERS, max_lines=LINES, placeholder=" ...")
            figure.text(
                left / width, (top - side - 0.06 - at * LINE * LINES) / height, "\n".join(lines), va="top", fontsize=7,
                color="0.0" if at == 0 else "0.45", weight="bold" if at == 0 else "normal", parse_math=False,
            )  # fmt: skip
    figure.text(MARGIN / width, 1 - 0.12 / height, fitting(title), va="top", fontsize=12, parse_math=False)
    return figure


def looks(image: NDArray[np.uint8], weights: NDArray[np.floating], words: Sequence[str], *, title: str) -> Figure:
    """The image once for each word, bright where the word looked (Xu et al. 2015, figure 3).

    Args:
        image: (height, width, channels).
        weights: (words, rows, columns), each of which sums to 1.
        words: what was said, the end token included.
        title: the first line.
    """
    columns = min(COLUMNS, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)
    above = 1.6 * LINE
    side = SIDE * image.shape[0] / image.shape[1]
    width = max(2 * MARGIN + columns * (SIDE + GAP) - GAP, 7.0)
    height = HEAD + rows * (side + above + GAP) + FOOT
    figure = Figure(figsize=(width, height))
    shown = [(_in_colour(image), "")] + [(_lit(image, own), word) for own, word in zip(weights, words, strict=True)]
    for place, (picture, word) in enumerate(shown):
        left = MARGIN + place % columns * (SIDE + GAP)
        top = height - HEAD - place // columns * (side + above + GAP) - above
        axes = figure.add_axes((left / width, (top - side) / height, SIDE / width, side / height))
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        if word:
            most = f"{100 * weights[place - 1].max():.0f} %"
            figure.text(left / width, (top + 0.03) / height, fitting(word, WORD), fontsize=9, parse_math=False)
            figure.text((left + SIDE) / width, (top + 0.03) / height, most, ha="right", fontsize=7, color=ORANGE)
    figure.text(MARGIN / width, 1 - 0.12 / height, fitting(title), va="top", fontsize=12, parse_math=False)
    note = "Bright is where a word looked, as a share of where it looked most; the number is the weight of that place."
    figure.text(MARGIN / width, 0.1 / height, note, va="bottom", fontsize=8, color="0.3", parse_math=False)
    return figure


def _in_colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _lit(image: NDArray[np.uint8], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """The image with the brightness that each place's weight gives it, smooth from place to place."""
    height, width = image.shape[:2]
    share = np.asarray(weights, np.float32) / max(float(weights.max()), 1e-12)
    smooth = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR), np.float64)
    light = DIMMED + (1 - DIMMED) * smooth.clip(0, 1)
    return _in_colour(image) / 255 * light[..., np.newaxis]
