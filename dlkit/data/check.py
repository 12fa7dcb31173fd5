"""Looks through a dataset for what would spoil a training: `dlkit data check`."""

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlkit import data as datasets
from dlkit import runtime
from dlkit.data.folders import (
    DRAW_OTHERS,
    Unreadable,
    attempt,
    divide,
    ignored_options,
    in_threads,
    list_images,
    progress,
)
from dlkit.data.image_files import is_gray, open_image, pixel_digest
from dlkit.data.images import ImageData, ImageSplit, in_runs
from dlkit.data.split_names import ROLES, uncovered
from dlkit.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

SMALLEST = 8  # pixels a side: less is hardly an image
BALANCED = 10  # so many times the images of the smallest class may the largest have

UNREADABLE, IN_SPLITS, CONTRADICTED = "unreadable", "in several splits", "several labels"


class Finding(NamedTuple):
    """Something odd.

    Args:
        kind: in a word or two, such as "unreadable".
        where: the file, the folder, the class, or "train 17" for an image that comes from no file.
        what: in words.
    """

    kind: str
    where: str
    what: str


class Seen(NamedTuple):
    """An image that can be read.

    Args:
        where: the file, or "train 17".
        label: its class.
        split: its split.
        digest: of its pixels.
        is_gray: whether its file is.
    """

    where: str
    label: str
    split: str
    digest: bytes
    is_gray: bool = False


@dataclass
class Report:
    """What `check` found.

    Args:
        name: of the dataset.
        images: how many there are, the unreadable ones included.
        counts: class -> split -> number of images that can be read.
        findings: in the order of their kinds.
    """

    name: str
    images: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def splits(self) -> list[str]:
        """The names of the splits, in the usual order."""
        there = {split for counts in self.counts.values() for split in counts}
        usual = list(ROLES)
        return sorted(there, key=lambda split: (usual.index(split) if split in usual else len(usual), split))

    def number(self, kind: str) -> int:
        """How many findings there are of a kind."""
        return sum(finding.kind == kind for finding in self.findings)

    @property
    def is_bad(self) -> bool:
        """Whether an image cannot be read, is in several splits, or has several labels."""
        return any(self.number(kind) for kind in (UNREADABLE, IN_SPLITS, CONTRADICTED))

    @property
    def verdict(self) -> str:
        """The sum of it in one line."""
        unreadable, shared = self.number(UNREADABLE), self.number(IN_SPLITS)
        parts = [f"{unreadable:,} of {self.images:,} images cannot be read" if unreadable else ""]
        parts += [f"{shared:,} {'image is' if shared == 1 else 'images are'} in several splits" if shared else ""]
        twice = self.number(CONTRADICTED)
        parts += [f"{twice:,} {'image has' if twice == 1 else 'images have'} several labels" if twice else ""]
        if not self.is_bad:
            parts = [f"all {self.images:,} images can be read, and none is in several splits or classes"]
        return f"{self.name}: " + ", ".join(part for part in parts if part)

    @property
    def hint(self) -> str:
        """What to do about bad data."""
        skip = "mend or remove the files, or train with `--on-bad skip`" if self.number(UNREADABLE) else ""
        once = "keep each image in one split: a test on images that were trained on tells nothing"
        right = "keep each image in the class that it is of: no net can learn both"
        shared, twice = self.number(IN_SPLITS), self.number(CONTRADICTED)
        return "; ".join(filter(None, [skip, once if shared else "", right if twice else ""]))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "data": self.name, "images": self.images, "fine": not self.is_bad, "classes": self.counts,
            "findings": [finding._asdict() for finding in self.findings],
        }  # fmt: skip


def check(name: str, *, data_dir: Path | None = None) -> Report:
    """Looks through a dataset: every file is decoded, and images are compared pixel by pixel.

    Found are files that cannot be read, images of unusual kinds or below 8 pixels, gray ones among coloured ones and
    the other way round, empty and unbalanced classes, those that are learned but not measured, the same image in
    several splits or classes (a copy that is saved anew without loss counts), different images of the same name, and
    files that are no images. A folder without splits is divided as training does by default.

    Args:
        name: a folder, or a dataset of images.
        data_dir: the folder of prepared data.

    Raises:
        dlkit.errors.DataError: there is no such folder or set, or it cannot be used at all.
        dlkit.errors.UsageError: an unknown dataset, or one that has no labelled images.
    """
    if datasets.is_path(name):
        if data_dir is not None:
            raise UsageError(f"--data-dir is where prepared sets lie, and {name} is a folder itself", "leave it out")
        return _check_folder(name)
    return _check_arrays(datasets.load_images(name, **({} if data_dir is None else {"dir": data_dir})))


def _check_folder(name: str) -> Report:
    listing = list_images(name)
    splits = divide(listing.files)
    report = Report(name, len(listing.files), {label: Counter() for label in listing.classes})
    odd: list[Finding] = []
    seen: list[Seen] = []
    files = [(file, split) for split, held in splits.items() for file in sorted(held, key=lambda file: file.path)]
    paths = [listing.root / file.path for file, _ in files]
    for (file, split), looked in zip(files, in_threads(partial(attempt, _look), paths, f"{name}: images"), strict=True):
        if isinstance(looked, Unreadable):
            line = f" (line {file.line})" if file.line else ""
            report.findings.append(Finding(UNREADABLE, file.path, looked.reason + line))
            continue
        digest, gray, oddities = looked
        odd += [Finding(kind, file.path, what) for kind, what in oddities]
        seen.append(Seen(file.path, file.label, split, digest, gray))
        report.counts[file.label][split] += 1
    report.findings += _repeated(seen)
    report.findings += sorted(odd)
    report.findings += _of_other_colour(seen)
    report.findings += _same_names(seen)
    report.findings += [Finding("empty class", path, "is a folder without images") for path in listing.empty]
    report.findings += unbalanced(report.counts)
    drawn = {"validation", "test"}.difference(ignored_options(listing.files))
    report.findings += not_measured(report.counts, report.splits, drawn=drawn)
    report.findings += [Finding("left out", path, "is in no class") for path in listing.strays]
    report.findings += [Finding("left out", path, "is a link to a folder") for path in listing.links]
    report.findings += [
        Finding("no image", path, "is not named as PNG, JPEG, BMP, GIF or WebP") for path in listing.others
    ]
    return report


def _check_arrays(data: ImageData) -> Report:
    """The checks that need no files."""
    report = Report(data.name, sum(map(len, data.splits.values())), {label: Counter() for label in data.classes})
    seen = []
    for split, held in data.splits.items():
        for rows in in_runs(np.arange(len(held)), held.shape):
            for row, image in zip(rows, held.fetch(rows), strict=True):
                label = data.classes[held.labels[row]]
                digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()  # all have one shape
                seen.append(Seen(f"{split} {row}", label, split, digest))
                report.counts[label][split] += 1
    report.findings += _repeated(seen)
    report.findings += [Finding(kind, data.name, what) for kind, what in _small(*data.shape[:2])]
    for label, counted in report.counts.items():
        if not counted:
            report.findings.append(Finding("empty class", label, "has no images"))
    report.findings += unbalanced(report.counts)
    report.findings += not_measured(report.counts, report.splits)
    return report


def decode_all(data: ImageData) -> None:
    """Decodes every image once, so that one that cannot be decoded ends the work now and not hours later.

    Several processes that train together share the images out: each decodes every so manieth.

    Raises:
        dlkit.errors.DataError: names the first one.
    """
    here = runtime.process()
    for name in ROLES:  # the others, such as the half million extra digits of SVHN, nobody reads
        split = data.splits.get(name)
        if split is None or isinstance(split, ImageSplit):
            continue
        ours = np.arange(here.rank, len(split), len(here.addresses))
        with progress(f"{data.name}: {name} images", len(ours)) as advance:
            done = 0
            for rows in in_runs(ours, split.shape):
                split.fetch(rows)
                done += len(rows)
                advance(done)


def _look(path: Path) -> tuple[bytes, bool, list[tuple[str, str]]]:
    """The digest of an image file, whether it is gray, and what is odd about it as (kind, in words)."""
    with open_image(path) as image:
        odd = _kinds(image) + _small(image.height, image.width)
        gray = is_gray(image)  # as it is called when its header is read
        digest = pixel_digest(image)
        return digest, gray, odd + ([("animated", "its first frame is taken")] if _is_animated(image) else [])


def _kinds(image: "Image.Image") -> list[tuple[str, str]]:
    layout = str(getattr(image, "tile", ""))  # how samples stand in the file, such as RGB;16B
    odd = {
        ("CMYK", "is converted to RGB"): image.mode == "CMYK",
        ("16-bit", "is scaled to 8 bits"): image.mode.startswith("I") or ";16" in layout,
        ("palette", "is converted to RGB"): image.mode == "P" and image.format != "GIF",  # every GIF has one
        ("transparent", "is laid on white"): image.has_transparency_data,
    }
    return [kind for kind, holds in odd.items() if holds]


def _is_animated(image: "Image.Image") -> bool:
    try:
        return image.format in {"GIF", "PNG", "WEBP"} and bool(getattr(image, "is_animated", False))
    except Exception:  # what comes after the first frame is damaged, and nobody wants it
        return False


def _small(height: int, width: int) -> list[tuple[str, str]]:
    return [("small", f"{height}x{width} pixels")] if min(height, width) < SMALLEST else []


def _repeated(seen: Iterable[Seen]) -> list[Finding]:
    """Images whose pixels are in several splits, then those whose pixels have several labels."""
    groups: defaultdict[bytes, list[Seen]] = defaultdict(list)
    for image in seen:
        groups[image.digest].append(image)
    found = []
    for kind, of, what in ((IN_SPLITS, "split", "in"), (CONTRADICTED, "label", "labelled")):
        for group in groups.values():
            places: dict[str, Seen] = {}
            for image in group:
                places.setdefault(getattr(image, of), image)
            first, *others = places.values()
            if others:
                also = ", ".join(f"{what} {getattr(image, of)}: {image.where}" for image in others)
                found.append(Finding(kind, first.where, f"is also {also}"))
    return found


def _of_other_colour(seen: Sequence[Seen]) -> list[Finding]:
    """One finding for the fewer of the gray and the coloured files, of which one in colour makes all images RGB."""
    gray, coloured = ([image for image in seen if image.is_gray is wanted] for wanted in (True, False))
    if not gray or not coloured:
        return []
    share = f"{min(len(gray), len(coloured)):,} of {len(seen):,} images"
    if len(gray) < len(coloured):
        return [Finding("gray", gray[0].where, f"{share}; read as RGB like the others")]
    return [Finding("in colour", coloured[0].where, f"{share}; so the gray ones are read as RGB, too")]


def _same_names(seen: Iterable[Seen]) -> list[Finding]:
    """One finding for all names that stand for different images of a class: numbered anew, or scaled copies."""
    groups: defaultdict[tuple[str, str], list[Seen]] = defaultdict(list)
    for image in seen:
        groups[image.label, posixpath.basename(image.where).casefold()].append(image)
    alike = [group for group in groups.values() if len({image.digest for image in group}) > 1]
    if not alike:
        return []
    first, second = alike[0][:2]
    more = f"; {len(alike) - 1:,} more names are used so" if len(alike) > 1 else ""
    return [Finding("same name", first.where, f"is another image than {second.where}{more}")]


def unbalanced(counts: Mapping[str, Mapping[str, int]], what: str = "images") -> list[Finding]:
    """Classes with far fewer training examples than another, and those with none.

    Args:
        counts: class -> split -> number of examples.
        what: they are.
    """
    there = {label: counted["train"] for label, counted in counts.items() if counted.get("train")}
    classes = {label for label, counted in counts.items() if any(counted.values())}
    not_learned = uncovered({"train": set(there)}, classes)["train"] if there else set()
    found = [Finding("not learned", label, f"has no training {what}") for label in counts if label in not_learned]
    if there and max(there.values()) > BALANCED * min(there.values()):
        large, small = max(there, key=there.__getitem__), min(there, key=there.__getitem__)
        told = f"has {there[small]:,} training {what}, and {large} {there[large]:,}"
        remedy = "; `--set data.class_weights=balanced` makes up for it" if what == "images" else ""
        found.append(Finding("unbalanced", small, told + remedy))
    return found


def not_measured(
    counts: Mapping[str, Mapping[str, int]],
    splits: Sequence[str],
    what: str = "images",
    *,
    drawn: Set[str] = frozenset(),
) -> list[Finding]:
    """Classes with training examples that have none to validate or to test on, though others have.

    Args:
        counts: class -> split -> number of examples.
        splits: that are there.
        what: the examples are.
        drawn: splits that chance has held out: another draw may have what is missing.
    """
    found: list[Finding] = []
    there = {split: {label for label, counted in counts.items() if counted.get(split)} for split in splits}
    lacking = uncovered(there, set(counts))
    for label in counts:
        if missing := [split for split in ("validation", "test") if label in lacking.get(split, ())]:
            remedy = "" if drawn.isdisjoint(missing) else f"; {DRAW_OTHERS}"
            found.append(Finding("not measured", label, f"has no {' and no '.join(missing)} {what}{remedy}"))
    return found
