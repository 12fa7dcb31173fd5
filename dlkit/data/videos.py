"""Labelled videos, and `synthetic:moving_digits`: handwritten digits that move about in a larger frame.

What a clip shows depends on (seed, split, index) alone. The digits of a split are those of the same split of `digits`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dlkit.data import digits
from dlkit.data.augment import example_keys, uniform

SPLITS = ("train", "validation", "test")
SEEN = 1_000  # so many clips stand for a split when mean and deviation are taken
DIRECTIONS = ["up left", "up right", "down left", "down right"]
SPEED = (0.08, 0.2)  # least and most that a digit moves a frame on each axis, as shares of the way across
COVER = 128  # the gray of what a digit is covered by

Label = Literal["digit", "direction", "revealed", "next_direction"]


class Clips(NamedTuple):
    """Some clips of a split.

    Args:
        pixels: (n, frames, height, width, channels) uint8.
        labels: (n,) int32, or (n, frames) where each frame has one.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class VideoSplit:
    """One split, whose clips are made when they are wanted.

    Args:
        count: how many clips there are.
        make: takes the positions of some and returns them.
    """

    count: int
    make: Callable[[NDArray[np.int64]], Clips]

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: ArrayLike) -> Clips:
        """The clips at `indices`, in that order."""
        return self.make(np.asarray(indices, dtype=np.int64))


@dataclass(frozen=True)
class VideoData:
    """A dataset of labelled clips of equal length.

    Args:
        name: the name it is loaded by.
        classes: the class names; a label is an index into them.
        splits: split name -> clips.
        frames: how many each clip has.
        shape: height, width and channels of a frame.
        every_frame: whether each frame has a label, rather than the clip.
        source: text that names the clips, such that others have another.
        looking_back: the best accuracy on frames, on average, for who has not seen those that follow; None where it is
            not known.
    """

    name: str
    classes: list[str]
    splits: Mapping[str, VideoSplit]
    frames: int
    shape: tuple[int, int, int]
    every_frame: bool
    source: str = ""
    looking_back: float | None = None

    def fingerprint(self) -> str:
        """sha256 of what stands for the training clips, and of the first of them."""
        train = self.splits["train"]
        first = train.fetch(np.arange(min(100, len(train))))
        digest = hashlib.sha256(f"{self.name}\n{self.source}\n{len(train)}\n".encode())
        for array in first:
            digest.update(array.tobytes())
        return digest.hexdigest()


def statistics(split: VideoSplit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over the pixels of the first clips, of values from 0 to 1."""
    pixels = split.fetch(np.arange(min(SEEN, len(split)))).pixels
    values = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64) / 255
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 0, std, 1.0)


def moving_digits(
    *,
    label: Label = "digit",
    size: Annotated[int, Field(ge=16, le=128)] = 24,
    frames: Annotated[int, Field(ge=1, le=200)] = 12,
    train: Annotated[int, Field(ge=1)] = 2_000,
    validation: Annotated[int, Field(ge=1)] = 300,
    test: Annotated[int, Field(ge=1)] = 1_000,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> VideoData:
    """Clips of one handwritten digit each, half as high as the frame, which moves and bounces off the walls.

    The walls are rough: which way along the wall the digit goes on is drawn at each bounce, and shows in the frame
    after it. Srivastava, Mansimov and Salakhutdinov 2015, section 4.1, have two digits and smooth walls.

    Args:
        label: of the clip `digit`, which one it is, or `direction`, the way it goes at the end; of every frame
            `revealed`, which digit it is, though it is covered up to a frame that is drawn, or `next_direction`, the
            way it goes after its next bounce (as it goes now, where none follows). What a frame of these two is can be
            seen only in those that follow.
        size: height and width of the frames.
        frames: how many a clip has.
        train: number of clips to train on.
        validation: number of clips for choosing.
        test: number of clips for reporting.
        seed: chooses the clips.

    Example:
        >>> moving_digits(label="revealed").splits["test"].fetch([0]).labels.shape
        (1, 12)
    """
    images, labels = digits.read()
    side = size // 2
    drawn = digits.resize(images.astype(np.float32), side) * (255 / digits.INK)
    drawn = np.rint(drawn).astype(np.uint8)
    rows = digits.split_rows(labels)
    splits = {}
    for place, (name, count) in enumerate(zip(SPLITS, (train, validation, test), strict=True)):
        own = (drawn[rows[name]], labels[rows[name]])
        splits[name] = VideoSplit(count, partial(_clips, place, own, label, size=size, frames=frames, seed=seed))
    looking_back = None
    if label == "revealed":  # the share of frames in which it is seen, and of the others those of the commonest digit
        shares = np.bincount(labels[rows["test"]]) / len(rows["test"])
        looking_back = (frames + 1 + (frames - 1) * float(shares.max())) / (2 * frames)
    return VideoData(
        "synthetic:moving_digits",
        DIRECTIONS if "direction" in label else digits.CLASSES,
        splits,
        frames,
        (size, size, 1),
        every_frame=label in {"revealed", "next_direction"},
        source=f"{label}, {frames} frames of {size}, seed {seed}",
        looking_back=looking_back,
    )


def _clips(
    place: int,
    own: tuple[NDArray[np.uint8], NDArray[np.int32]],
    label: Label,
    indices: NDArray[np.int64],
    *,
    size: int,
    frames: int,
    seed: int,
) -> Clips:
    """Clips of one split; no key belongs to two splits."""
    keys = example_keys(seed, 0, len(SPLITS) * indices + place)
    drawn, labels = own
    side, draws = drawn.shape[1], uniform(keys, 2, purpose="digit")
    chosen = (draws[:, 0] * len(labels)).astype(np.int64)
    shown_from = (draws[:, 1] * frames).astype(np.int64) if label == "revealed" else np.zeros(len(keys), np.int64)
    corners, headings, segments = trajectories(keys, room=size - side, frames=frames)
    pixels = np.zeros((len(keys), frames, size, size, 1), np.uint8)
    for clip, digit in enumerate(chosen.tolist()):
        for frame, (top, left) in enumerate(corners[clip].tolist()):
            covered = frame < shown_from[clip]
            pixels[clip, frame, top : top + side, left : left + side, 0] = COVER if covered else drawn[digit]
    if label == "digit":
        return Clips(pixels, labels[chosen])
    if label == "revealed":
        return Clips(pixels, np.repeat(labels[chosen][:, np.newaxis], frames, axis=1))
    if label == "direction":
        return Clips(pixels, headings[:, -1])
    return Clips(pixels, after_next_bounce(headings, segments))


def trajectories(
    keys: NDArray[np.uint64], *, room: int, frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """How digits move.

    Args:
        keys: (n,), of `example_keys`.
        room: pixels from wall to wall, the digit's own size left out.
        frames: how many.

    Returns:
        The upper left corners (n, frames, 2), down and across; the directions in which the digits came to where they
        are, as indices of `DIRECTIONS`, (n, frames), that of the first frame being the way it sets out; and how many
        bounces came before, (n, frames). A digit at a wall has not bounced yet: the way on shows in the next frame.
    """
    count, draws = len(keys), uniform(keys, 6, purpose="motion")
    turns = uniform(keys, frames, purpose="bounces") < 0.5
    at, speed = draws[:, :2] * room, (SPEED[0] + draws[:, 2:4] * (SPEED[1] - SPEED[0])) * room
    heads = np.where(draws[:, 4:6] < 0.5, -1.0, 1.0)  # (n, 2)
    corners = np.zeros((count, frames, 2))
    headings, segments = (np.zeros((count, frames), np.int32) for _ in range(2))
    bounces, hit = np.zeros(count, np.int32), np.zeros((count, 2), bool)
    for frame in range(frames):
        if frame:
            bounced = hit[:, 0] | hit[:, 1]
            along = bounced[:, np.newaxis] & ~hit & turns[:, frame, np.newaxis]
            heads = np.where(hit | along, -heads, heads)
            bounces = bounces + bounced
            at = at + heads * speed
            hit = (at <= 0) | (at >= room)
            at = at.clip(0, room)
        corners[:, frame], segments[:, frame] = at, bounces
        headings[:, frame] = 2 * (heads[:, 0] > 0) + (heads[:, 1] > 0)
    return np.rint(corners).astype(np.int64), headings, segments


def after_next_bounce(headings: NDArray[np.int32], segments: NDArray[np.int32]) -> NDArray[np.int32]:
    """The direction after the next bounce at each frame, and where none follows the present one, (n, frames).

    Example:
        >>> after_next_bounce(np.array([[3, 3, 1, 1, 0]]), np.array([[0, 0, 1, 1, 2]]))
        array([[1, 1, 0, 0, 0]], dtype=int32)
    """
    following = headings.copy()
    for frame in range(headings.shape[1] - 2, -1, -1):
        is_last = segments[:, frame] == segments[:, frame + 1]
        following[:, frame] = np.where(is_last, following[:, frame + 1], headings[:, frame + 1])
    return following.astype(np.int32)
