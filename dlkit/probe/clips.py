"""A picture of clips: each one a row of its frames, with what each is labelled."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dlkit.console import safe
from dlkit.probe.pictures import DPI

TILE = 64  # dots of a frame's longer side, at least
GAP, LINE, MARGIN, HEAD = 6, 15, 20, 48  # dots


def draw(pixels: NDArray[np.uint8], labels: Sequence[Sequence[str]], *, title: str) -> Figure:
    """Clips from top to bottom, their frames from left to right.

    Args:
        pixels: (clips, frames, height, width, channels), one channel for gray, else three for colour.
        labels: of each clip one name, or one for each frame, written below.
        title: the first line.
    """
    factor = -(-TILE // max(pixels.shape[2:4]))
    tiles = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    if tiles.shape[-1] == 1:
        tiles = tiles.repeat(3, axis=-1)
    clips, frames, tall, wide, _ = tiles.shape
    width = max(2 * MARGIN + frames * (wide + GAP) - GAP, 480)  # a title needs room, too
    height = HEAD + clips * (tall + LINE + GAP) + MARGIN
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for row, (clip, names) in enumerate(zip(tiles, labels, strict=True)):
        top = HEAD + row * (tall + LINE + GAP)
        for column, frame in enumerate(clip):
            left = MARGIN + column * (wide + GAP)
            canvas[top : top + tall, left : left + wide] = frame
            if column < len(names):
                figure.text(
                    left / width, 1 - (top + tall + 2) / height, safe(names[column]), va="top", fontsize=6.5,
                    parse_math=False,
                )  # fmt: skip
    figure.figimage(canvas, 0, 0, origin="upper")
    figure.text(MARGIN / width, 1 - 14 / height, safe(title), va="top", fontsize=11, parse_math=False)
    return figure
