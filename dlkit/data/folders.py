"""Folders of labelled images, in one of three layouts: DIR/<split>/<class>/*, DIR/<class>/*, or DIR/labels.csv.

`list_images` goes by names alone. Then the header of every file is read, which tells what size and how many channels
the images have; then they are decoded, once into memory or, where they do not fit, whenever they are wanted.
"""

import csv
import hashlib
import io
import os
import posixpath
import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import console
from dlkit.data.images import (
    DEFAULT_SIZE,
    Header,
    ImageData,
    ImageSplit,
    LazySplit,
    Split,
    UnreadableImage,
    decoders,
    fits_in_memory,
    read_header,
    read_image,
)
from dlkit.errors import DataError, UsageError, nearest

Item = TypeVar("Item")
Result = TypeVar("Result")

# A number of images, or below 1 a share of them.
Part = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
LABELS, CLASSES = "labels.csv", "class folders"  # layouts
# Names of columns, as programs that write such files call them.
COLUMNS = {
    "file": ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "img"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset"),
}

# --------------------------------------------------------------------------------------------------------------- names


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of a folder.

    Args:
        path: from the folder, with slashes.
        label: the name of its class.
        split: train, validation or test; empty where the folder does not say.
        line: of labels.csv; 0 in the other layouts.
    """

    path: str
    label: str
    split: str = ""
    line: int = 0


@dataclass
class Listing:
    """What a folder holds, by its names.

    Args:
        root: the folder.
        layout: in words.
        files: the images, in the order of their paths.
        empty: class folders without images.
        others: files that are not named as images are.
        strays: images that stand in no class folder, or not in labels.csv.
        links: links to folders that are not followed.
    """

    root: Path
    layout: str
    files: list[ImageFile] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, sorted as people sort: 2 before 10."""
        return sorted({file.label for file in self.files}, key=natural)

    def tell(self) -> None:
        """Says in a line each what is left out."""
        home = LABELS if self.layout == LABELS else "a class folder"
        for paths, what, say in (
            (self.others, "{file} not named as PNG, JPEG, BMP, GIF or WebP", console.note),
            (self.strays, f"{{image}} outside of {home}", console.warn),
            (self.links, "{link} to folders", console.warn),
            (self.empty, "{class folder} without images", console.warn),
        ):
            if paths:
                counted = re.sub(r"{(.*)}", rf"{len(paths):,} \1{'s' * (len(paths) > 1)}", what)
                say(f"{self.root}: left out {counted} ({paths[0]}{', ...' * (len(paths) > 1)})")


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people do.

    Example:
        >>> sorted(["class10", "Class2", "class1"], key=natural)
        ['class1', 'Class2', 'class10']
    """
    parts = re.split(r"([0-9]{1,18})", name.casefold())  # text and digits take turns, so like meets like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def list_images(folder: str | Path) -> Listing:
    """Finds the images of a folder and their labels, without opening one.

    Sub-folders of a class belong to it. Hidden files, `Thumbs.db`, `desktop.ini` and `__MACOSX` are passed over. A link
    may stand for an image, a class or a split; links to folders that lead up, or that stand deeper, are not followed,
    so that no circle of links goes on for ever.

    Raises:
        dlkit.errors.DataError: there is no such folder, it cannot be read, it has none of the layouts, `labels.csv` is
            wrong, or there is only one class.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise DataError(f"no such folder: {root}", "the path counts from the current folder")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder", "name the folder that the images lie in")
    if os.path.isfile(root / LABELS):  # noqa: PTH113 - Path.is_file() raises where it may not look
        listing = _from_table(root)
    elif splits := _split_folders(root):
        listing = _from_splits(root, splits)
    else:
        listing = Listing(root, CLASSES)
        for name in _folders(listing, ""):
            _add_class(listing, name, label=name)
    listing.files.sort(key=lambda file: file.path)
    _check_labels(listing)
    return listing


def _check_labels(listing: Listing) -> None:
    root, classes = listing.root, listing.classes
    layouts = "folders DIR/<class>/*, DIR/<split>/<class>/*, or images and a labels.csv"
    if not listing.files:
        home = f"named in {LABELS}" if listing.layout == LABELS else "in a class folder"
        what = f"no image is {home}" if listing.strays else f"no images ({', '.join(SUFFIXES)})"
        raise DataError(f"{root}: {what}", f"a dataset is {layouts}")
    if len(classes) == 1:
        nested = all(posixpath.dirname(file.path) not in {"", classes[0]} for file in listing.files)
        inside = shlex.quote(str(root / classes[0]))
        hint = f"did you mean {inside}?" if nested and listing.layout == CLASSES else f"a dataset is {layouts}"
        raise DataError(f"{root} has only one class: {classes[0]}", hint)
    if any(file.split for file in listing.files) and not any(file.split == "train" for file in listing.files):
        raise DataError(f"{root} has no images to train on", "its split `train` is missing or empty")


def _entries(root: Path, at: str) -> list[os.DirEntry[str]]:
    """What stands in a folder, by name, without what systems put there."""
    try:
        with os.scandir(root / at) as entries:
            seen = [entry for entry in entries if entry.name[0] != "." and entry.name.casefold() not in _OF_SYSTEMS]
    except OSError as failure:
        raise DataError(f"cannot read the folder {root / at}: {str(failure.strerror).lower()}") from None
    return sorted(seen, key=lambda entry: natural(entry.name))


_OF_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx"}


def _is_image(name: str) -> bool:
    return name.casefold().endswith(SUFFIXES)


def _folders(listing: Listing, at: str) -> list[str]:
    """The folders in `at`, which are splits or classes; the listing takes down what else stands there."""
    found = []
    for entry in _entries(listing.root, at):
        path = posixpath.join(at, entry.name)
        if not os.path.isdir(entry.path):  # noqa: PTH112 - Path.is_dir() raises for some links
            (listing.strays if _is_image(entry.name) else listing.others).append(path)
        elif entry.is_symlink() and _leads_up(entry.path):
            listing.links.append(path)
        else:
            found.append(path)
    return found


def _leads_up(link: str) -> bool:
    target, parent = Path(link).resolve(), Path(link).parent.resolve()
    return target == parent or target in parent.parents


def images_below(listing: Listing, at: str) -> Iterator[str]:
    """The images in a folder of the listing and in its sub-folders; the listing takes down what else stands there."""
    waiting = [at]
    while waiting:
        at = waiting.pop()
        for entry in _entries(listing.root, at):
            path = posixpath.join(at, entry.name)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif os.path.isdir(entry.path):  # noqa: PTH112
                listing.links.append(path)
            elif _is_image(entry.name):
                yield path
            else:
                listing.others.append(path)


def _add_class(listing: Listing, at: str, *, label: str, split: str = "") -> None:
    before = len(listing.files)
    listing.files += [ImageFile(path, label, split) for path in images_below(listing, at)]
    if len(listing.files) == before:
        listing.empty.append(at)


def _split_folders(root: Path) -> dict[str, str]:
    """The splits of a folder as name -> folder; none when its folders are classes.

    Classes may be called `train` and `bus`: `train` is a split when it holds folders and no image.
    """
    names = _folders(Listing(root, ""), "")
    inside = Listing(root, "")
    found: dict[str, str] = {}
    for name in names:
        split = SPLITS.get(name.casefold())
        if split in found:
            raise DataError(f"{root}: {found[split]} and {name} are the same split", "keep one of them")
        if split:
            found[split] = name
    if not found or len(found) == len(names):
        return found
    return found if "train" in found and _folders(inside, found["train"]) and not inside.strays else {}


def _from_splits(root: Path, splits: Mapping[str, str]) -> Listing:
    listing = Listing(root, "split folders")
    for at in _folders(listing, ""):
        split = SPLITS.get(at.casefold())
        if split is None:
            listing.strays += images_below(listing, at)
            continue
        for path in _folders(listing, at):
            _add_class(listing, path, label=posixpath.basename(path), split=split)
    if "train" not in splits:
        raise DataError(f"{root} has no images to train on", f"it has {', '.join(splits.values())}, and no `train`")
    return listing


# ---------------------------------------------------------------------------------------------------------- labels.csv


def _from_table(root: Path) -> Listing:
    """The listing of a folder with a `labels.csv`: a header `file,label[,split]`, then a line an image."""
    listing = Listing(root, LABELS)
    path = root / LABELS
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise DataError(f"cannot read {path}: {str(failure.strerror).lower()}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text in UTF-8", "save it as UTF-8, with `iconv` for example") from None
    first = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    columns: list[str] = []
    lines: dict[str, int] = {}  # path -> where it stands
    try:
        for row in rows:
            if not columns:
                columns = _columns(row)
            elif row:
                file = _table_row(dict(zip(columns, row, strict=False)), rows.line_num, len(row) - len(columns))
                if file.path in lines:
                    raise DataError(f"{file.path} stands in line {lines[file.path]} already")
                lines[file.path] = file.line
                listing.files.append(file)
    except (DataError, csv.Error) as failure:
        hint = failure.hint if isinstance(failure, DataError) else "it is a table of comma-separated values"
        raise DataError(f"{path} line {rows.line_num}: {failure}", hint) from None
    listing.strays = [image for image in images_below(listing, "") if image not in lines]
    listing.others = [other for other in listing.others if other not in lines and other != LABELS]
    return listing


def _columns(header: Sequence[str]) -> list[str]:
    columns = []
    form = "the first line is `file,label` or `file,label,split`"
    for cell in header:
        column = next((name for name, others in COLUMNS.items() if cell.strip().casefold() in others), None)
        if column is None:
            match = nearest(cell.strip(), COLUMNS)
            raise DataError(
                f"unknown column: {cell.strip() or 'one without a name'}", f"did you mean `{match}`?" if match else form
            )
        if column in columns:
            raise DataError(f"two columns for the {column}", form)
        columns.append(column)
    for name in ("file", "label"):
        if name not in columns:
            raise DataError(f"no column for the {name}", form)
    return columns


def _table_row(cells: Mapping[str, str], line: int, surplus: int) -> ImageFile:
    if surplus:
        raise DataError(f"{abs(surplus)} cells too {'many' if surplus > 0 else 'few'}", "quote what has a comma in it")
    name, label = cells["file"].strip(), cells["label"].strip()
    if not name or not label:
        raise DataError(f"the {'label' if name else 'file'} is missing")
    if posixpath.isabs(name) or ".." in name.split("/") or "\0" in name:
        raise DataError(f"{name} leads out of the folder", "paths count from the folder of labels.csv")
    split = cells.get("split", "").strip()
    if "split" in cells and split.casefold() not in SPLITS:
        raise DataError(f"no split is called {split or 'nothing'}", f"known: {', '.join(SPLITS)}")
    return ImageFile(posixpath.normpath(name), label, SPLITS[split.casefold()] if split else "", line)


# -------------------------------------------------------------------------------------------------------------- splits


def divide(files: Sequence[ImageFile], *, validation: float, test: float) -> dict[str, list[ImageFile]]:
    """Divides images over the splits: as the folder does, and where it does not, by a checksum of their paths.

    Every path has a place of its own on the line from 0 to 1, and those below the share are held out: an image stays in
    its split whatever is added to the folder. (Where a number of images is asked for, those with the lowest places are
    held out, and new images can take the place of old ones.) Within a split the images are mixed in the same way, so
    that the first ones are of all classes.

    Args:
        files: the images.
        validation: a number of images, or below 1 a share of the training images, unless there is a validation split.
        test: a number of images or a share of all, unless the folder has splits.

    Raises:
        dlkit.errors.UsageError: nothing would be left to train on.
    """
    splits: dict[str, list[ImageFile]] = {"train": [], "validation": [], "test": []}
    for file in files:
        splits[file.split or "train"].append(file)
    if not any(file.split for file in files):
        splits["train"], splits["test"] = _draw(splits["train"], test, "test")
    if not splits["validation"]:
        splits["train"], splits["validation"] = _draw(splits["train"], validation, "validation")
    return {name: sorted(held, key=lambda file: _place(file.path)) for name, held in splits.items() if held}


def _draw(files: list[ImageFile], part: float, split: str) -> tuple[list[ImageFile], list[ImageFile]]:
    """Those that stay, and those that are held out: of a share one at least, but never all."""
    places = np.array([_place(f"{split}/{file.path}") for file in files])
    count = int(part) if part >= 1 else min(max(int(np.sum(places < part)), 1 if part else 0), len(files) - 1)
    if count >= len(files):
        raise UsageError(
            f"data.{split} {count} leaves nothing of {len(files)} images", "choose fewer, or a share such as 0.1"
        )
    held = set(np.argsort(places, kind="stable")[:count].tolist())
    return [file for i, file in enumerate(files) if i not in held], [file for i, file in enumerate(files) if i in held]


def _place(text: str) -> float:
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64


# -------------------------------------------------------------------------------------------------------------- pixels


def folder(
    path: str,
    *,
    size: Annotated[int, Field(ge=8, le=4096)] | None = None,
    validation: Part = 0.1,
    test: Part = 0.1,
    on_bad: Literal["error", "skip"] = "error",
) -> ImageData:
    """The images of a folder: `DIR/<split>/<class>/*`, `DIR/<class>/*`, or images and a `labels.csv`.

    Splits are `train`, `validation` (or `val`, `valid`) and `test`; `labels.csv` has the columns `file`, `label` and,
    where there are splits, `split`. Where there are none, files are held out by a checksum of their names, so that each
    stays in its split when others are added. All images are gray when all files are, else RGB; how they are converted
    says `dlkit.data.images.read_image`.

    Args:
        path: the folder.
        size: side of the images in pixels; by default their own size when all are alike, else 224.
        validation: share or number of the training images held out where there is no validation split.
        test: share or number of the images held out where there are no splits at all.
        on_bad: what to do about a file that cannot be read: stop, or skip it and say how many there were.

    Raises:
        dlkit.errors.DataError: the folder has none of the layouts or one class only, or a file cannot be read.
        dlkit.errors.UsageError: nothing would be left to train on.

    Example:
        >>> folder("photos", size=64).shape
        (64, 64, 3)
    """
    listing = list_images(path)
    listing.tell()
    reader = _Reader(listing.root, skip=on_bad == "skip")
    found = {}
    for name, files in divide(listing.files, validation=validation, test=test).items():
        headers = reader.each(read_header, files, f"{listing.root}: headers of {name} images")
        found[name] = [(files[i], header) for i, header in headers]
    splits = _load(listing, found, size, reader)
    reader.tell(len(listing.files))
    if "train" not in splits:
        raise DataError(f"{listing.root} has no images to train on", f"`dlkit data check {shlex.quote(path)}` says why")
    _tell_coverage(listing, splits)
    height, width, _ = splits["train"].shape
    if size is None and max(height, width) > 2 * DEFAULT_SIZE:
        smaller = f"`--set data.size={DEFAULT_SIZE}` trains on smaller ones"
        console.warn(f"{path}: all images are {height}x{width} and stay so; {smaller}")
    return ImageData(path, listing.classes, splits)


Found = Mapping[str, Sequence[tuple[ImageFile, Header]]]


def _load(listing: Listing, found: Found, size: int | None, reader: "_Reader") -> dict[str, Split]:
    """The splits of the files that can be read, in memory if they fit."""
    shape = _common_shape(found, size)
    lazy = not fits_in_memory(sum(map(len, found.values())), shape)
    kept, images = {}, {}
    for name, pairs in found.items():
        kept[name] = pairs
        if not lazy or reader.skip:  # what is decoded when wanted is decoded now, too, to find what is to be skipped
            files = [file for file, _ in pairs]
            rows, images[name] = reader.decode(files, shape, f"{listing.root}: {name} images", keep=not lazy)
            kept[name] = [pairs[row] for row in rows]
    if _common_shape(kept, size) != shape:  # a size that only skipped files have
        images.clear()
        return _load(listing, kept, size, reader)
    number = {label: index for index, label in enumerate(listing.classes)}
    splits: dict[str, Split] = {}
    for name, pairs in kept.items():
        files = [file for file, _ in pairs]
        labels, source = np.array([number[file.label] for file in files], np.int32), _source(pairs)
        if lazy and files:
            splits[name] = LazySplit(reader.reading(files, shape), np.arange(len(files)), labels, shape, source)
        elif files:
            splits[name] = ImageSplit(images[name], labels, source)
    return splits


def _common_shape(found: Found, size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that all images are given."""
    headers = [header for pairs in found.values() for _, header in pairs]
    channels = 1 if all(header.is_gray for header in headers) else 3
    own = {(header.height, header.width) for header in headers}
    if size is not None or len(own) != 1:
        return size or DEFAULT_SIZE, size or DEFAULT_SIZE, channels
    return *own.pop(), channels


def _source(pairs: Iterable[tuple[ImageFile, Header]]) -> str:
    """A checksum of the names and marks of files; that of a copy of the folder is the same."""
    digest = hashlib.sha256()
    for file, header in pairs:
        digest.update(f"{file.path}\0{header.mark}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _tell_coverage(listing: Listing, splits: Mapping[str, Split]) -> None:
    """Warns of classes that are not learned, or that stand in the training folder only."""
    held = {name: {listing.classes[label] for label in np.unique(split.labels)} for name, split in splits.items()}
    given = {file.split for file in listing.files} & set(held) - {"train"}
    elsewhere = set().union(*(held[name] for name in given)) if given else held["train"]
    for missing, what in (
        (set(listing.classes) - held["train"], "no images to train on"),
        (held["train"] - elsewhere, "images to train on only"),
    ):
        if missing:
            names = sorted(missing, key=natural)
            noun = f"1 class has {what}" if len(names) == 1 else f"{len(names)} classes have {what}"
            console.warn(f"{listing.root}: {noun} ({names[0]}{', ...' * (len(names) > 1)})")


class _Reader:
    """Reads the files of a folder; at one that cannot be read it stops, or skips it and takes it down in `bad`.

    Args:
        root: the folder.
        skip: whether to go on.
    """

    def __init__(self, root: Path, *, skip: bool) -> None:
        self.root, self.skip = root, skip
        self.bad: dict[str, str] = {}  # path -> reason

    def each(
        self, read: Callable[[Path], Result], files: Sequence[ImageFile], doing: str
    ) -> Iterator[tuple[int, Result]]:
        """The index of each file that can be read, and what `read` gives for it."""
        paths = [self.root / file.path for file in files]
        with closing(in_threads(partial(attempt, read), paths, doing)) as results:
            for index, result in enumerate(results):
                if not isinstance(result, Unread):
                    yield index, result
                elif self.skip:
                    self.bad[files[index].path] = result.reason
                else:
                    raise self.error(files[index], result.reason)

    def decode(
        self, files: Sequence[ImageFile], shape: tuple[int, int, int], doing: str, *, keep: bool
    ) -> tuple[list[int], NDArray[np.uint8]]:
        """The indices of the files that can be decoded, and with `keep` their images."""
        kept: list[int] = []
        images = np.empty((len(files) if keep else 0, *shape), np.uint8)
        for index, image in self.each(partial(read_image, shape=shape), files, doing):
            if keep:
                images[len(kept)] = image
            kept.append(index)
        return kept, images[: len(kept)]

    def reading(self, files: Sequence[ImageFile], shape: tuple[int, int, int]) -> Callable[[int], NDArray[np.uint8]]:
        """A function that decodes the file of an index."""

        def read(index: int) -> NDArray[np.uint8]:
            try:
                return read_image(self.root / files[index].path, shape)
            except UnreadableImage as failure:
                raise self.error(files[index], failure.reason) from None

        return read

    def error(self, file: ImageFile, reason: str) -> DataError:
        """What to say of a file that cannot be read, when that ends the work."""
        place = f"{self.root / LABELS} line {file.line}: " if file.line else ""
        return DataError(
            f"{place}{self.root / file.path} {reason}",
            f"`dlkit data check {shlex.quote(str(self.root))}` finds all such files, `--on-bad skip` leaves them out",
        )

    def tell(self, count: int) -> None:
        """Says in a line how many files were skipped."""
        if self.bad:
            path, reason = next(iter(self.bad.items()))
            console.warn(
                f"{self.root}: skipped {len(self.bad):,} of {count:,} images, which cannot be read; the first: "
                f"{path} {reason}"
            )


# ------------------------------------------------------------------------------------------------------------- threads

AHEAD = 64  # so many files are read before their turn
QUIET = 30  # seconds between lines about the progress, where there is no terminal to show a bar


@dataclass(frozen=True)
class Unread:
    """Says why a file could not be read. The exception itself would hold all that was in memory when it was raised."""

    reason: str


def attempt(read: Callable[[Path], Result], path: Path) -> Result | Unread:
    """What `read` gives for an image file, or why the file cannot be read."""
    try:
        return read(path)
    except UnreadableImage as failure:
        return Unread(failure.reason)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], doing: str) -> Generator[Result]:
    """Calls a function for each item, several at a time, and gives the results in order; shows how far it is.

    Args:
        function: called in the threads that decode images.
        items: its arguments.
        doing: what is done, in words.
    """
    shown = console.is_terminal() and not console.settings.quiet and len(items) > AHEAD
    bar = console.progress(doing, len(items)) if shown else None
    waiting: deque[Future[Result]] = deque()
    told = time.monotonic()
    try:
        if bar:
            bar.start()
        for done, item in enumerate(items):
            waiting.append(decoders().submit(function, item))
            if len(waiting) < AHEAD:
                continue
            yield waiting.popleft().result()
            if bar:
                bar.update(bar.task_ids[0], completed=done, figures=f"{done:,} of {len(items):,}")
            elif time.monotonic() - told > QUIET:
                console.note(f"{doing}: {done:,} of {len(items):,}")
                told = time.monotonic()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        if bar:
            bar.stop()
