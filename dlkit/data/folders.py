"""Folders of labelled images, in one of three layouts: DIR/<split>/<class>/*, DIR/<class>/*, or DIR/labels.csv.

`list_images` goes by names alone. Then the header of every file is read, which tells what size and how many channels
the images have. They are decoded when they are wanted, and kept where they fit into memory; to skip the bad ones, all
are decoded beforehand.
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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import console, file_system
from dlkit.data.image_files import Header, UnreadableImage, decoders, read_header, read_image
from dlkit.data.images import (
    DEFAULT_SIZE,
    HELD_OUT,
    ImageData,
    ImageSplit,
    Kept,
    LazySplit,
    Side,
    Split,
    check_ignored,
    fits_in_memory,
)
from dlkit.data.split_names import ROLES, NumberOrShare, split_of, uncovered
from dlkit.errors import DataError, UsageError, nearest, unreadable

Item = TypeVar("Item")
Result = TypeVar("Result")

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")
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
    root = file_system.folder(folder, "the images")
    if os.path.isfile(root / LABELS):  # noqa: PTH113 - Path.is_file() raises where it may not look
        listing = _from_table(root)
    elif _split_folders(root):
        listing = _from_splits(root)
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
    if listing.layout == CLASSES and (inner := _same_inside(listing)):
        raise DataError(
            f"{root}: {', '.join(classes)} hold the same folders, {', '.join(inner)}, as splits do and classes do not",
            "call splits train, validation and test; of images that are so by intent a labels.csv says the classes",
        )


def _same_inside(listing: Listing) -> list[str]:
    """The folders that every class holds, where no class holds anything else."""
    inside: dict[str, set[str]] = {}
    for file in listing.files:
        _, *folders, _ = file.path.split("/")
        inside.setdefault(file.label, set()).add(folders[0] if folders else "")
    first, *others = inside.values()
    return sorted(first) if len(first) > 1 and "" not in first and all(other == first for other in others) else []


def _entries(root: Path, at: str) -> list[os.DirEntry[str]]:
    """What stands in a folder, by name, without what systems put there."""
    try:
        with os.scandir(root / at) as entries:
            seen = [entry for entry in entries if entry.name[0] != "." and entry.name.casefold() not in _OF_SYSTEMS]
    except OSError as failure:
        raise unreadable(f"the folder {root / at}", failure) from None
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
        split = split_of(name)
        if split in found:
            raise DataError(f"{root}: {found[split]} and {name} are the same split", "keep one of them")
        if split:
            found[split] = name
    if not found or len(found) == len(names):
        return found
    return found if "train" in found and _folders(inside, found["train"]) and not inside.strays else {}


def _from_splits(root: Path) -> Listing:
    listing = Listing(root, "split folders")
    for at in _folders(listing, ""):
        split = split_of(at)
        if split is None:
            listing.strays += images_below(listing, at)
            continue
        for path in _folders(listing, at):
            _add_class(listing, path, label=posixpath.basename(path), split=split)
    return listing


# ---------------------------------------------------------------------------------------------------------- labels.csv


def _from_table(root: Path) -> Listing:
    """The listing of a folder with a `labels.csv`: a header `file,label[,split]`, then a line an image."""
    listing = Listing(root, LABELS)
    path = root / LABELS
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise unreadable(str(path), failure) from None
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
                    raise DataError(
                        f"{file.path} stands in line {lines[file.path]} already", "keep one of the two lines"
                    )
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
        raise DataError(f"the {'label' if name else 'file'} is missing", "each line has a file and its label")
    if posixpath.isabs(name) or ".." in name.split("/") or "\0" in name:
        raise DataError(f"{name} leads out of the folder", "paths count from the folder of labels.csv")
    split = cells.get("split", "").strip()
    if "split" in cells and split_of(split) is None:
        problem = f"no split is called {split}" if split else "the split is missing"
        raise DataError(problem, f"known: {', '.join(chain.from_iterable(ROLES.values()))}")
    return ImageFile(posixpath.normpath(name), label, split_of(split) or "", line)


# -------------------------------------------------------------------------------------------------------------- splits


def is_undivided(folder: str | Path) -> bool:
    """Whether a folder does not say itself which images are for training and which for tests.

    Raises:
        dlkit.errors.DataError: as `list_images`.
    """
    return not any(file.split for file in list_images(folder).files)


# What helps when chance has held out too little of a class.
DRAW_OTHERS = "`--set data.split_seed=1` holds out others, or name the splits yourself"


def divide(
    files: Sequence[ImageFile],
    *,
    validation: float = HELD_OUT,
    test: float | Literal["all"] = HELD_OUT,
    split_seed: int = 0,
) -> dict[str, list[ImageFile]]:
    """Divides images over the splits: as the folder does, and where it does not, by a checksum of their paths.

    Every path has a place of its own on the line from 0 to 1, and those below the share are held out: an image stays in
    its split whatever is added to the folder. (Where a number of images is asked for, those with the lowest places are
    held out, and new images can take the place of old ones.) Within a split the images are mixed in the same way, so
    that the first ones are of all classes.

    Args:
        files: the images.
        validation: a number of images, or below 1 a share of the training images, where there is no validation split.
        test: a number of images or a share of all, where the folder has no splits; `all` is for those to be tested on.
        split_seed: another one gives other places on the line.

    Raises:
        dlkit.errors.UsageError: nothing would be left to train on, or what is given is for folders of another kind.
    """
    splits: dict[str, list[ImageFile]] = {"train": [], "validation": [], "test": []}
    for file in files:
        splits[file.split or "train"].append(file)
    own = [name for name in splits if any(file.split == name for file in files)]
    if own:
        check_ignored("test", test, own)
    elif test == "all":
        splits = {"test": splits["train"]}
    else:
        splits["train"], splits["test"] = _draw(splits["train"], test, "test", split_seed)
    if "validation" in own or not splits.get("train"):
        check_ignored("validation", validation, own or splits)
        check_ignored("split_seed", split_seed, own or splits)
    else:
        splits["train"], splits["validation"] = _draw(splits["train"], validation, "validation", split_seed)
    return {name: sorted(held, key=lambda file: _place(file.path)) for name, held in splits.items() if held}


def _draw(files: list[ImageFile], part: float, split: str, seed: int) -> tuple[list[ImageFile], list[ImageFile]]:
    """Those that stay, and those that are held out: of a share one at least, but never all."""
    line = f"{seed}/{split}" if seed else split
    places = np.array([_place(f"{line}/{file.path}") for file in files])
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
    size: Side | None = None,
    validation: NumberOrShare = HELD_OUT,
    test: NumberOrShare | Literal["all"] = HELD_OUT,
    split_seed: Annotated[int, Field(ge=0)] = 0,
    on_bad: Literal["error", "skip"] = "error",
) -> ImageData:
    """The images of a folder: `DIR/<split>/<class>/*`, `DIR/<class>/*`, or images and a `labels.csv`.

    Splits are `train`, `validation` (or `val`, `valid`) and `test`; `labels.csv` has the columns `file`, `label` and,
    where there are splits, `split`. Where there are none, files are held out by a checksum of their names, so that each
    stays in its split when others are added. All images are gray when all files are, else RGB; how they are converted
    says `dlkit.data.image_files.read_image`.

    Args:
        path: the folder.
        size: side of the images in pixels; by default their own size when all are alike, else 224.
        validation: share or number of the training images held out where there is no validation split.
        test: share or number of the images held out where there are no splits at all; `all` leaves none to train on.
        split_seed: another one holds out other images.
        on_bad: what to do about a file that cannot be read: stop when it is wanted, or skip it and say how many there
            were.

    Raises:
        dlkit.errors.DataError: the folder has none of the layouts or one class only, or no file can be read.
        dlkit.errors.UsageError: nothing would be left to train on, or `validation`, `test` or `split_seed` is given for
            splits that the folder has.

    Example:
        >>> folder("photos", size=64).shape
        (64, 64, 3)
    """
    listing = list_images(path)
    listing.tell()
    reader = _Reader(listing.root)
    found = {
        name: reader.headers(files, f"{listing.root}: headers of {name} images")
        for name, files in divide(listing.files, validation=validation, test=test, split_seed=split_seed).items()
    }
    if on_bad == "skip":
        splits = _whole(listing, found, size, reader)
        reader.tell_skipped(len(listing.files))
    else:
        splits = _lazy(listing, found, size, reader)
    _tell_coverage(listing, splits)
    height, width, _ = next(iter(splits.values())).shape
    if size is None and max(height, width) > 2 * DEFAULT_SIZE:
        smaller = f"`--set data.size={DEFAULT_SIZE}` trains on smaller ones"
        console.warn(f"{path}: all images are {height}x{width} and stay so; {smaller}")
    return ImageData(path, listing.classes, splits, ignored_options=ignored_options(listing.files))


def ignored_options(files: Iterable[ImageFile]) -> tuple[str, ...]:
    """The options of `divide` that these files leave without effect."""
    own = {file.split for file in files if file.split}
    return ("test",) * bool(own) + ("validation", "split_seed") * ("validation" in own)


# The files of each split with their headers, or with the reason why a header cannot be read.
Headers = Mapping[str, Sequence[tuple[ImageFile, "Header | Unreadable"]]]


def _lazy(listing: Listing, found: Headers, size: int | None, reader: "_Reader") -> dict[str, Split]:
    """The splits of all files; one that cannot be read is an error when it is wanted."""
    shape = _common_shape(listing, found, size)
    kept = fits_in_memory(sum(map(len, found.values())), shape)
    splits: dict[str, Split] = {}
    for name, pairs in found.items():
        files = [file for file, _ in pairs]
        splits[name] = LazySplit(
            reader.reading(files, shape), np.arange(len(files)), _labels(listing, files), shape, _source(pairs),
            Kept.room(len(files), shape) if kept else None,
        )  # fmt: skip
    return splits


def _whole(listing: Listing, found: Headers, size: int | None, reader: "_Reader") -> dict[str, Split]:
    """The splits of the files that can be decoded, which is tried with each of them."""
    shape = _common_shape(listing, found, size)
    keep = fits_in_memory(sum(map(len, found.values())), shape)
    whole: dict[str, list[tuple[ImageFile, Header | Unreadable]]] = {}
    splits: dict[str, Split] = {}
    for name, pairs in found.items():
        rows, images = reader.decode(pairs, shape, f"{listing.root}: {name} images", keep=keep)
        whole[name] = [pairs[row] for row in rows]
        files = [file for file, _ in whole[name]]
        labels, source = _labels(listing, files), _source(whole[name])
        if keep and files:
            splits[name] = ImageSplit(images, labels, source)
        elif files:
            splits[name] = LazySplit(reader.reading(files, shape), np.arange(len(files)), labels, shape, source)
    if splits and _common_shape(listing, whole, size) != shape:  # a size that only skipped files have
        splits.clear()
        return _whole(listing, whole, size, reader)
    if not splits:
        raise _nothing_readable(listing)
    return splits


def _labels(listing: Listing, files: Sequence[ImageFile]) -> NDArray[np.int32]:
    number = {label: index for index, label in enumerate(listing.classes)}
    return np.array([number[file.label] for file in files], np.int32)


def _nothing_readable(listing: Listing) -> DataError:
    check = f"`dlkit data check {shlex.quote(str(listing.root))}` says why"
    return DataError(f"{listing.root}: none of the {len(listing.files):,} images can be read", check)


def _common_shape(listing: Listing, found: Headers, size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that all images are given, by the headers that can be read."""
    headers = [header for pairs in found.values() for _, header in pairs if isinstance(header, Header)]
    if not headers:
        raise _nothing_readable(listing)
    channels = 1 if all(header.is_gray for header in headers) else 3
    own = {(header.height, header.width) for header in headers}
    if size is not None or len(own) != 1:
        return size or DEFAULT_SIZE, size or DEFAULT_SIZE, channels
    return *own.pop(), channels


def _source(pairs: Iterable[tuple[ImageFile, "Header | Unreadable"]]) -> str:
    """A checksum of the names and marks of files; that of a copy of the folder is the same."""
    digest = hashlib.sha256()
    for file, header in pairs:
        mark = header.mark if isinstance(header, Header) else ""
        digest.update(f"{file.path}\0{mark}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _tell_coverage(listing: Listing, splits: Mapping[str, Split]) -> None:
    """Warns of classes that are not learned."""
    not_learned = uncovered_by(splits, listing.classes).get("train", set())
    if told := classes_without(not_learned, "images to train on"):
        console.warn(f"{listing.root}: {told}")


def uncovered_by(splits: Mapping[str, Split], classes: Sequence[str]) -> dict[str, Set[str]]:
    """`dlkit.data.split_names.uncovered` of images."""
    there = {name: {classes[label] for label in np.unique(split.labels)} for name, split in splits.items()}
    return uncovered(there, set(classes))


def classes_without(classes: Set[str], what: str) -> str:
    """In words for people: `2 classes have no test images (cat, ...)`; empty without classes."""
    if not classes:
        return ""
    have = "1 class has" if len(classes) == 1 else f"{len(classes):,} classes have"
    return f"{have} no {what} ({min(classes, key=natural)}{', ...' * (len(classes) > 1)})"


class _Reader:
    """Reads the files of a folder, and takes down in `bad` those that could not be read.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bad: dict[str, str] = {}  # path -> reason

    def headers(self, files: Sequence[ImageFile], doing: str) -> list[tuple[ImageFile, "Header | Unreadable"]]:
        """Each file with its header."""
        return list(zip(files, self._each(read_header, files, doing), strict=True))

    def decode(
        self,
        pairs: Sequence[tuple[ImageFile, "Header | Unreadable"]],
        shape: tuple[int, int, int],
        doing: str,
        *,
        keep: bool,
    ) -> tuple[list[int], NDArray[np.uint8]]:
        """The indices of the files that can be decoded, and with `keep` their images."""
        readable = [index for index, (_, header) in enumerate(pairs) if isinstance(header, Header)]
        files = [pairs[index][0] for index in readable]
        kept: list[int] = []
        images = np.empty((len(files) if keep else 0, *shape), np.uint8)
        for index, image in zip(readable, self._each(partial(read_image, shape=shape), files, doing), strict=True):
            if isinstance(image, Unreadable):
                continue
            if keep:
                images[len(kept)] = image
            kept.append(index)
        return kept, images[: len(kept)]

    def _each(
        self, read: Callable[[Path], Result], files: Sequence[ImageFile], doing: str
    ) -> "Iterator[Result | Unreadable]":
        """What `read` gives for each file."""
        with closing(in_threads(partial(attempt, read), [self.root / file.path for file in files], doing)) as results:
            for file, result in zip(files, results, strict=True):
                if isinstance(result, Unreadable):
                    self.bad[file.path] = result.reason
                yield result

    def reading(self, files: Sequence[ImageFile], shape: tuple[int, int, int]) -> Callable[[int], NDArray[np.uint8]]:
        """A function that decodes the file of an index, and says which file it is when that fails."""

        def read(index: int) -> NDArray[np.uint8]:
            try:
                return read_image(self.root / files[index].path, shape)
            except UnreadableImage as failure:
                raise self._error(files[index], failure.reason) from None

        return read

    def _error(self, file: ImageFile, reason: str) -> DataError:
        place = f"{self.root / LABELS} line {file.line}: " if file.line else ""
        return DataError(
            f"{place}{self.root / file.path} {reason}",
            f"`dlkit data check {shlex.quote(str(self.root))}` finds all such files, `--on-bad skip` leaves them out",
        )

    def tell_skipped(self, count: int) -> None:
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
class Unreadable:
    """Says why a file could not be read. The exception itself would hold all that was in memory when it was raised."""

    reason: str


def attempt(read: Callable[[Path], Result], path: Path) -> Result | Unreadable:
    """What `read` gives for an image file, or why the file cannot be read."""
    try:
        return read(path)
    except UnreadableImage as failure:
        return Unreadable(failure.reason)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], doing: str) -> Generator[Result]:
    """Calls a function for each item, several at a time, and gives the results in order; shows how far it is.

    Args:
        function: called in the threads that decode images.
        items: its arguments.
        doing: what is done, in words.
    """
    waiting: deque[Future[Result]] = deque()
    with progress(doing, len(items)) as advance:
        try:
            for done, item in enumerate(items):
                waiting.append(decoders().submit(function, item))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
                    advance(done)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def progress(doing: str, count: int) -> Iterator[Callable[[int], None]]:
    """Shows how far it is with many images: a bar on a terminal, elsewhere a line now and then.

    Args:
        doing: what is done, in words.
        count: of images.

    Yields:
        A function that takes how many are done.
    """
    shown = console.is_terminal() and not console.settings.quiet and count > AHEAD
    bar = console.progress(doing, count) if shown else None
    told = time.monotonic()

    def advance(done: int) -> None:
        nonlocal told
        if bar:
            bar.update(bar.task_ids[0], completed=done, figures=f"{done:,} of {count:,}")
        elif time.monotonic() - told > QUIET:
            console.note(f"{doing}: {done:,} of {count:,}")
            told = time.monotonic()

    with bar or nullcontext():
        yield advance
