"""Two drawn shapes, one beside or above the other, with the one sentence that says so: captions whose truth is known.

What is drawn depends on (seed, split, index) alone, as in `dlkit.data.shapes`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data.augment import example_keys, uniform
from dlkit.data.captions import CaptionData, CaptionSplit
from dlkit.data.images import Kept, LazySplit, fits_in_memory
from dlkit.data.shapes import COLOURS, SHAPES, SIZES, SPLITS, Drawing, draw, jittered, noisy
from dlkit.data.tokenizer import WordTokenizer

# Radius of the circle around a shape, as a share of the image's side: two large ones fit beside each other.
RADII = {"small": (0.12, 0.145), "large": (0.2, 0.235)}
GAP = 0.02  # at least between two circles, as a share of the side
ASLANT = 0.6  # the most that the shapes are apart across the relation, as a share of how far they are along it

Item = TypeVar("Item")
Relation = Literal["above", "left of"]
RELATIONS: tuple[Relation, ...] = ("above", "left of")
WORDS = ("a", *SIZES, *COLOURS, *SHAPES, "above", "left", "of")


@dataclass(frozen=True)
class Scene:
    """What an image shows.

    Args:
        first: the upper or the left shape.
        relation: how it stands to the other one.
        second: the other one, on the same background.
    """

    first: Drawing
    relation: Relation
    second: Drawing

    @property
    def caption(self) -> str:
        """One sentence: `a large red circle above a small blue square`."""
        one, other = (f"a {each.size} {each.colour} {each.shape}" for each in (self.first, self.second))
        return f"{one} {self.relation} {other}"


def mirrored(caption: str) -> str:
    """The caption of the mirrored image: what stood left comes second.

    Example:
        >>> mirrored("a small red ring left of a large blue star")
        'a large blue star left of a small red ring'
    """
    one, beside, other = caption.partition(" left of ")
    return f"{other}{beside}{one}"


def scene(split: str, index: int, *, seed: int = 0) -> Scene:
    """What the image `index` of a split shows, without drawing it. All is drawn evenly.

    Example:
        >>> scene("train", 0).caption
        'a large red square left of a small green cross'
    """
    # Interleaved, so that no number, and with it no key, belongs to two splits.
    key = example_keys(seed, 0, [len(SPLITS) * index + SPLITS.index(split)])
    draws = iter(uniform(key, 32, purpose="scenes")[0].tolist())

    def one_of(names: Sequence[Item]) -> Item:
        return names[int(next(draws) * len(names))]

    relation = one_of(RELATIONS)
    background = one_of(list(COLOURS))
    ground = jittered(background, [next(draws) for _ in range(3)])
    others = [name for name in COLOURS if name != background]
    kinds = [(one_of(list(SHAPES)), one_of(SIZES), one_of(others)) for _ in range(2)]
    radii = [RADII[size][0] + next(draws) * (RADII[size][1] - RADII[size][0]) for _, size, _ in kinds]
    centres = _centres(radii, [next(draws) for _ in range(4)])
    first, second = (
        Drawing(
            shape, size, colour, background, radius, (across, along) if relation == "above" else (along, across),
            next(draws) * 2 * math.pi, jittered(colour, [next(draws) for _ in range(3)]), ground,
        )
        for (shape, size, colour), radius, (along, across) in zip(kinds, radii, centres, strict=True)
    )  # fmt: skip
    return Scene(first, relation, second)


def _centres(radii: list[float], draws: list[float]) -> list[tuple[float, float]]:
    """Where two circles stand along the relation and across it, so that they do not touch and both lie inside."""
    slack = 1 - 2 * sum(radii) - GAP
    before, until = sorted(slack * draw for draw in draws[:2])
    start = radii[0] + before
    stop = 2 * radii[0] + GAP + radii[1] + until
    one = radii[0] + draws[2] * (1 - 2 * radii[0])
    reach = ASLANT * (stop - start)
    least, most = max(radii[1], one - reach), min(1 - radii[1], one + reach)
    return [(start, one), (stop, least + draws[3] * (most - least))]


def scenes(
    *,
    size: Annotated[int, Field(ge=16, le=1024)] = 32,
    train: Annotated[int, Field(ge=1)] = 10_000,
    validation: Annotated[int, Field(ge=1)] = 500,
    test: Annotated[int, Field(ge=1)] = 1_000,
    noise: Annotated[float, Field(ge=0, le=1)] = 0.05,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> CaptionData:
    """Colour images of two shapes each, with a caption that the image determines, and a vocabulary of all its words.

    Args:
        size: side of the images in pixels.
        train: number of images to train on.
        validation: number of images for choosing.
        test: number of images for reporting.
        noise: standard deviation of the noise on every pixel, in units of 1 = white.
        seed: chooses the images.

    Example:
        >>> scenes(train=600).splits["train"].captions[0]
        ['a large red square left of a small green cross']
    """
    splits = {}
    keep = fits_in_memory(train + validation + test, (size, size, 3))
    for name, count in zip(SPLITS, (train, validation, test), strict=True):
        read = partial(_image, name, size=size, noise=noise, seed=seed)
        room = Kept.room(count, (size, size, 3)) if keep else None  # drawn when wanted: an evaluation needs one split
        images = LazySplit(read, np.arange(count), np.zeros(count, np.int32), (size, size, 3), kept=room)
        captions = [[scene(name, index, seed=seed).caption] for index in range(count)]
        splits[name] = CaptionSplit(images, captions)
    return CaptionData("synthetic:shapes", splits, own=WordTokenizer(WORDS), mirror=mirrored)


def _image(split: str, index: int, *, size: int, noise: float, seed: int) -> NDArray[np.uint8]:
    shown = scene(split, index, seed=seed)
    return noisy(draw(shown.first, size, shown.second), noise, key=[seed, SPLITS.index(split), index, 2])
