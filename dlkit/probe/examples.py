"""Examples of a dataset, as they are and as training sees them, and a picture of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dlkit import data as datasets
from dlkit.console import safe
from dlkit.data.augment import alternation, augment, example_keys, option_names
from dlkit.data.batching import shuffled
from dlkit.data.images import ImageData, check_division, statistics
from dlkit.data.split_names import check_split
from dlkit.errors import DataError
from dlkit.probe import pictures
from dlkit.recipe import DataSection, image_options

SMALLEST, LARGEST = 96, 160  # dots of a tile's longer side: smaller images are enlarged, larger ones reduced
STATISTICS = 1000  # so many images are enough to standardize what is only looked at


@dataclass(frozen=True)
class ShownImage:
    """An image of a split and what training sees of it.

    Args:
        index: its place in the split.
        image: (height, width, channels) uint8.
        label: the name of its class.
        seen: the augmented image, of the same form, its colours put back; None without augmentation.
        parts: what `seen` is made of: class names and their shares, which sum up to 1.
    """

    index: int
    image: NDArray[np.uint8]
    label: str
    seen: NDArray[np.uint8] | None
    parts: dict[str, float]


@dataclass(frozen=True)
class Gallery:
    """The first examples of an epoch, in the order of training, as one batch.

    Args:
        data: the dataset.
        section: its augmentations and their options.
        split: where the examples come from.
        seed: the seed of a run.
        epoch: which of its epochs.
        examples: what is shown.
    """

    data: ImageData
    section: DataSection
    split: str
    seed: int
    epoch: int
    examples: Sequence[ShownImage]

    @classmethod
    def of(
        cls, section: DataSection, split: str, *, count: int, seed: int = 0, epoch: int = 0, asked: Iterable[str] = ()
    ) -> "Gallery":
        """Loads the data and draws the examples; fewer than `count` when the split has not as many.

        Args:
            section: of the data.
            split: its name.
            count: how many examples.
            seed: of their choice and of what chance does to them.
            epoch: likewise.
            asked: which options of the section a user wrote.

        Raises:
            dlkit.errors.UsageError: there is no such split, there are no labelled images, an augmentation is not for
                images of their form, or a division is asked for of images that are divided.
            dlkit.errors.DataError: the data is missing or damaged, or the split is empty.
        """
        options = {key: value for key, value in section.options.items() if key not in image_options()}
        data = datasets.load_images(section.name, **options, **({"dir": section.dir} if section.dir else {}))
        check_division(data, {key: options[key] for key in asked if key in options})
        check_split(split, data.splits, data.name)
        indices = shuffled(len(data.splits[split]), seed=seed, epoch=epoch)[:count]
        if not len(indices):
            raise DataError(f"the {split} split of {data.name} is empty")
        return cls(data, section, split, seed, epoch, _examples(data, section, split, indices, (seed, epoch)))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Class -> split -> number of images."""
        classes = self.data.classes
        of_splits = {
            name: np.bincount(split.labels, minlength=len(classes)) for name, split in self.data.splits.items()
        }
        return {
            label: {name: int(counts[at]) for name, counts in of_splits.items()} for at, label in enumerate(classes)
        }

    @property
    def about(self) -> str:
        """The dataset in one line."""
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in self.data.splits.items())
        shape = "x".join(map(str, self.data.shape))
        return f"{self.section.name}: {sizes}, {shape}, {len(self.data.classes)} classes"

    def to_dict(self) -> dict[str, Any]:
        """All of it but the pixels, as JSON values."""
        return {
            "data": self.section.name,
            "shape": list(self.data.shape),
            "classes": [{"class": label, **counts} for label, counts in self.counts.items()],
            "split": self.split,
            "augment": self.section.augment,
            "seed": self.seed,
            "epoch": self.epoch,
            "examples": [{"index": one.index, "class": one.label, "labels": one.parts} for one in self.examples],
        }

    def save(self, path: Path) -> None:
        """Draws the examples into a PNG file.

        Raises:
            dlkit.errors.DlkitError: the place cannot be written.
        """
        shown, there = len(self.examples), len(self.data.splits[self.split])
        title = f"{pictures.own_name(self.section.name)}, {self.split}: {shown:,} of {there:,} images"
        subtitle = note = ""
        if self.section.augment:
            subtitle = ", ".join(map(self._in_words, self.section.augment))
            note = (
                f"Left as it is, right as training sees it: the first batch of epoch {self.epoch} with seed "
                f"{self.seed}, if batches are of {shown}."
            )
        pictures.save(draw(self.examples, title=title, subtitle=subtitle, note=note), path)

    def _in_words(self, name: str) -> str:
        """An augmentation and how strong it is: `mixup (alpha 0.2)`."""
        strengths = [f"{own} {self.section.options[key]:g}" for key, own in option_names(name).items()]
        return f"{name} ({', '.join(strengths)})" if strengths else name


def _examples(
    data: ImageData, section: DataSection, split: str, indices: NDArray[np.int64], seed_and_epoch: tuple[int, int]
) -> list[ShownImage]:
    source = data.splits[split]
    train = data.splits.get("train", source)  # of data that are for tests only
    images, labels = source.fetch(indices), source.labels[indices]
    seen: Sequence[NDArray[np.uint8] | None] = [None] * len(indices)
    others, shares = labels, np.ones(len(labels))
    if section.augment:
        mean, std = statistics(train.take(shuffled(len(train), seed=0, epoch=0)[:STATISTICS]))
        keys = example_keys(*seed_and_epoch, indices)
        batch = augment(
            section.augment, images, labels, keys, mean=mean, std=std, options=section.options,
            mirrored=alternation(*seed_and_epoch, indices),
        )  # fmt: skip
        colours = batch["images"] * np.where(std > 0, std, 1) + mean
        seen = list(np.rint(255 * colours).clip(0, 255).astype(np.uint8))
        others, shares = batch.get("other_labels", others), batch.get("shares", shares).astype(np.float64)
    found = []
    for index, image, look, label, other, share in zip(indices, images, seen, labels, others, shares, strict=True):
        parts = {data.classes[label]: 1.0}
        if other != label:
            parts = {data.classes[label]: float(share), data.classes[other]: float(1 - share)}
        found.append(ShownImage(int(index), image, data.classes[label], look, parts))
    return found


def draw(shown: Sequence[ShownImage], *, title: str, subtitle: str = "", note: str = "") -> Figure:
    """A grid of examples with their classes under them; augmented ones stand to the right of their originals.

    Args:
        shown: the examples, all augmented or none.
        title: the first line.
        subtitle: the second.
        note: the last.
    """
    pairs = shown[0].seen is not None
    tiles = [_tile(one.image) for one in shown]
    tall, wide, _ = tiles[0].shape
    columns, gap, line, margin = (4, 24, 17, 24) if pairs else (8, 14, 17, 24)
    columns = min(columns, len(shown))
    cell_wide = 2 * wide + 4 if pairs else wide
    mixed = any(len(one.parts) > 1 for one in shown)
    cell_tall = tall + line * (2 if mixed else 1) + 8
    head, foot = (78 if subtitle else 54), (44 if note else margin)
    rows = -(-len(shown) // columns)
    width = max(2 * margin + columns * (cell_wide + gap) - gap, 720)  # titles need room, too
    height = head + rows * (cell_tall + gap) - gap + foot
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / pictures.DPI, height / pictures.DPI), dpi=pictures.DPI)
    letters = max(8, wide // 6)

    def say(text: str, x: int, y: int, size: float = 7, colour: str = "black") -> None:
        figure.text(x / width, 1 - y / height, text, va="top", fontsize=size, color=colour, parse_math=False)

    for place, (one, tile) in enumerate(zip(shown, tiles, strict=True)):
        left = margin + place % columns * (cell_wide + gap)
        top = head + place // columns * (cell_tall + gap)
        canvas[top : top + tall, left : left + wide] = tile
        say(_fitting(one.label, letters), left, top + tall + 4)
        if one.seen is not None:
            right = left + wide + 4
            canvas[top : top + tall, right : right + wide] = _tile(one.seen)
            for row, (name, share) in enumerate(one.parts.items() if mixed else ()):
                say(f"{share:.2f} {_fitting(name, letters - 5)}", right, top + tall + 4 + row * line)
    figure.figimage(canvas, 0, 0, origin="upper")
    say(_fitting(title, width // 11), margin, 14, 12)
    say(_fitting(subtitle, width // 8), margin, 46, 9)
    say(_fitting(note, width // 7), margin, height - 26, 8, "0.3")
    return figure


def _tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image in colour, enlarged by a whole factor or reduced, so that it can be seen and many fit."""
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    longer = max(image.shape[:2])
    if longer <= LARGEST:
        factor = -(-SMALLEST // longer)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = (max(1, round(side * LARGEST / longer)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BOX))


def _fitting(text: str, letters: int) -> str:
    text = safe(text)
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
