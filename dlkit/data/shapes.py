"""Drawn shapes: colour images whose every detail is known, of any number and size.

What is drawn depends on (seed, split, index) alone: asking for more images, or for another split, changes none.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field

from dlkit.data.augment import example_keys, uniform
from dlkit.data.images import ImageData, LazySplit, Split, fits_in_memory, in_memory

SPLITS = ("train", "validation", "test")
SIZES = ("small", "large")
# Radius of the circle around a shape, as a share of the image's side: no shape is of a size in between.
RADII = {"small": (0.14, 0.2), "large": (0.3, 0.42)}
# Far enough apart to be told from each other, jitter included.
COLOURS = {
    "red": (215, 45, 45), "yellow": (240, 220, 60), "green": (45, 155, 75), "blue": (50, 95, 225),
    "purple": (150, 45, 150), "white": (235, 235, 235), "gray": (125, 125, 125), "black": (25, 25, 25),
}  # fmt: skip
JITTER = 15  # most that each channel of a colour is off
SUPERSAMPLING = 4

Corners = list[tuple[float, float]]
Draw = ImageDraw.ImageDraw


def shapes(
    *,
    size: Annotated[int, Field(ge=8, le=1024)] = 32,
    train: Annotated[int, Field(ge=1)] = 2_000,
    validation: Annotated[int, Field(ge=1)] = 500,
    test: Annotated[int, Field(ge=1)] = 500,
    noise: Annotated[float, Field(ge=0, le=1)] = 0.05,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> ImageData:
    """Colour images of one shape each: circle, square, triangle, star, cross or ring.

    Colours, size, place and rotation are drawn; `describe` says what they are.

    Args:
        size: side of the images in pixels.
        train: number of images to train on.
        validation: number of images for choosing.
        test: number of images for reporting.
        noise: standard deviation of the noise on every pixel, in units of 1 = white.
        seed: chooses the images.

    Example:
        >>> shapes(size=64, train=600).shape
        (64, 64, 3)
    """
    splits: dict[str, Split] = {}
    for name, count in zip(SPLITS, (train, validation, test), strict=True):
        rows, shape = np.arange(count), (size, size, 3)
        read = partial(_image, name, size=size, noise=noise, seed=seed)
        split = LazySplit(read, rows, (rows % len(SHAPES)).astype(np.int32), shape)
        splits[name] = in_memory(split) if fits_in_memory(train + validation + test, shape) else split
    return ImageData("synthetic:shapes", list(SHAPES), splits)


def _image(split: str, index: int, *, size: int, noise: float, seed: int) -> NDArray[np.uint8]:
    return noisy(draw(describe(split, index, seed=seed), size), noise, key=[seed, SPLITS.index(split), index])


def noisy(image: NDArray[np.uint8], noise: float, *, key: list[int]) -> NDArray[np.uint8]:
    """The image with noise of that standard deviation, in units of 1 = white, on every pixel; `key` seeds it."""
    if not noise:
        return image
    random = np.random.default_rng(key)
    changed = image + 255 * noise * random.standard_normal(image.shape, np.float32)
    return np.rint(changed).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Drawing:
    """What an image shows.

    Args:
        shape: a key of `SHAPES`.
        size: a word of `SIZES`.
        colour: a key of `COLOURS`.
        background: another key of `COLOURS`.
        radius: of the circle around the shape, as a share of the image's side.
        centre: of that circle, x to the right and y down, as shares of the side; all of it lies inside.
        angle: by which the shape is turned clockwise, in radians.
        fill: the colour of the shape, RGB.
        ground: the colour of the background, RGB.
    """

    shape: str
    size: str
    colour: str
    background: str
    radius: float
    centre: tuple[float, float]
    angle: float
    fill: tuple[int, int, int]
    ground: tuple[int, int, int]

    @property
    def caption(self) -> str:
        """One sentence: `a small red circle on a blue background`."""
        return f"a {self.size} {self.colour} {self.shape} on a {self.background} background"


def describe(split: str, index: int, *, seed: int = 0) -> Drawing:
    """What the image `index` of a split shows, without drawing it.

    The shapes take turns, so any run of images has as many of each. All else is drawn, evenly.

    Example:
        >>> describe("train", 0).caption
        'a large purple circle on a gray background'
    """
    # Interleaved, so that no number, and with it no key, belongs to two splits.
    key = example_keys(seed, 0, [len(SPLITS) * index + SPLITS.index(split)])
    draws = uniform(key, 13, purpose="shapes")[0].tolist()
    names = list(COLOURS)
    colour = names.pop(int(draws[0] * len(names)))
    background = names[int(draws[1] * len(names))]
    size = SIZES[int(draws[2] * len(SIZES))]
    least, most = RADII[size]
    radius = least + draws[3] * (most - least)
    x, y = (radius + draw * (1 - 2 * radius) for draw in draws[4:6])
    return Drawing(
        list(SHAPES)[index % len(SHAPES)], size, colour, background, radius, (x, y), draws[6] * 2 * math.pi,
        jittered(colour, draws[7:10]), jittered(background, draws[10:13]),
    )  # fmt: skip


def jittered(colour: str, draws: list[float]) -> tuple[int, int, int]:
    """The RGB of a key of `COLOURS`, each channel a little off, by a draw from [0, 1) for each."""
    red, green, blue = (
        min(max(value + round((2 * draw - 1) * JITTER), 0), 255)
        for value, draw in zip(COLOURS[colour], draws, strict=True)
    )
    return red, green, blue


def draw(drawing: Drawing, size: int, *others: Drawing) -> NDArray[np.uint8]:
    """Draws an image of (size, size, 3), smooth at the edges; `others` stand on the same background."""
    side = SUPERSAMPLING * size
    canvas = Image.new("RGB", (side, side), drawing.ground)
    for each in (drawing, *others):
        SHAPES[each.shape](ImageDraw.Draw(canvas), each, side)
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def _around(drawing: Drawing, side: int, angles: list[float], radii: list[float]) -> Corners:
    """Corners at angles, 0 being up, and distances from the centre in units of the radius."""
    (x, y), radius = drawing.centre, drawing.radius
    return [
        (
            side * (x + radius * share * math.sin(drawing.angle + angle)),
            side * (y - radius * share * math.cos(drawing.angle + angle)),
        )
        for angle, share in zip(angles, radii, strict=True)
    ]


def _disk(canvas: Draw, drawing: Drawing, side: int, share: float, colour: tuple[int, int, int]) -> None:
    (x, y), radius = drawing.centre, drawing.radius * share
    corners = [side * (x - radius), side * (y - radius), side * (x + radius), side * (y + radius)]
    canvas.ellipse(corners, fill=colour)


def _circle(canvas: Draw, drawing: Drawing, side: int) -> None:
    _disk(canvas, drawing, side, 1, drawing.fill)


def _ring(canvas: Draw, drawing: Drawing, side: int) -> None:
    _disk(canvas, drawing, side, 1, drawing.fill)
    _disk(canvas, drawing, side, 0.55, drawing.ground)


def _polygon(corners: int) -> Callable[[Draw, Drawing, int], None]:
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    return lambda canvas, drawing, side: canvas.polygon(
        _around(drawing, side, angles, [1.0] * corners), fill=drawing.fill
    )


def _star(canvas: Draw, drawing: Drawing, side: int) -> None:
    angles = [math.pi * corner / 5 for corner in range(10)]
    # The inner corners of a five-pointed star lie where its lines cross, at 1 / golden ratio squared.
    canvas.polygon(_around(drawing, side, angles, [1.0, (3 - math.sqrt(5)) / 2] * 5), fill=drawing.fill)


def _cross(canvas: Draw, drawing: Drawing, side: int) -> None:
    half = math.atan(1 / 3)  # arms as wide as a third of their length
    angles = [quarter * math.pi / 2 + offset for quarter in range(4) for offset in (-half, half, math.pi / 4)]
    inner = math.sqrt(2) * math.sin(half)
    canvas.polygon(_around(drawing, side, angles, [1.0, 1.0, inner] * 4), fill=drawing.fill)


SHAPES: dict[str, Callable[[Draw, Drawing, int], None]] = {
    "circle": _circle,
    "square": _polygon(4),
    "triangle": _polygon(3),
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
