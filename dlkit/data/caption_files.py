"""Folders of images with captions: a `captions.txt`, or the files of Flickr8k (Hodosh et al. 2013)."""

import csv
import hashlib
import os
import posixpath
import shlex
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import console, file_system
from dlkit.data.captions import CaptionData, CaptionPreparation, CaptionSplit
from dlkit.data.folders import (
    COLUMNS,
    SUFFIXES,
    ImageFile,
    Listing,
    Unreadable,
    attempt,
    divide,
    images_below,
    in_threads,
)
from dlkit.data.image_files import Header, UnreadableImage, Within, read_header, read_image
from dlkit.data.images import DEFAULT_SIZE, HELD_OUT, Kept, LazySplit, Side, Split, fits_in_memory
from dlkit.data.pairs import prepared
from dlkit.data.split_names import NumberOrShare, split_of
from dlkit.data.text_files import read_lines
from dlkit.errors import DataError, unreadable

TABLES = ("captions.txt", "captions.csv", "captions.tsv")
FLICKR8K = ("Flickr8k.token.txt", "Flickr8k.token.txt.gz")
FLICKR8K_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
CAPTION_COLUMNS = ("caption", "captions", "text", "description", "sentence", "comment")
LAYOUT = "a dataset is images and a captions.txt of lines `file<TAB>caption`, or the files of Flickr8k"


@dataclass(frozen=True)
class Picture:
    """Where an image lies.

    Args:
        name: for people, from the folder.
        path: the file, or the tar that it is in.
        within: where in a tar.
    """

    name: str
    path: Path
    within: Within | None = None

    def header(self) -> Header:
        """See `dlkit.data.image_files.read_header`."""
        return read_header(self.path, self.within)

    def pixels(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """See `dlkit.data.image_files.read_image`."""
        return read_image(self.path, shape, self.within)


@dataclass
class _Content:
    """What a folder holds.

    Args:
        root: the folder.
        captions: path of an image -> its captions, in the order of the file.
        pictures: path of an image -> where it lies.
        splits: path of an image -> its split, where the folder says so.
        notes: what was left out, a line each.
    """

    root: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _root(path: str) -> Path:
    return file_system.folder(path, "the images and captions.txt")


def is_undivided(path: str) -> bool:
    """Whether a folder of captions does not say itself which images are for tests.

    Raises:
        dlkit.errors.DataError: as `folder`.
    """
    return not _content(_root(path)).splits


@partial(prepared, how=CaptionPreparation)
def folder(
    path: str,
    *,
    size: Side | None = None,
    validation: NumberOrShare = HELD_OUT,
    test: NumberOrShare | Literal["all"] = HELD_OUT,
    split_seed: Annotated[int, Field(ge=0)] = 0,
    on_bad: Literal["error", "skip"] = "error",
) -> CaptionData:
    """A folder of images with a `captions.txt`, or with the files of Flickr8k.

    `captions.txt` has a line for each caption: the image's file, a tab or comma, the caption; an image may have
    several. A first line `file,caption` may stand above. Files are named from the folder, or by their name alone where
    it is the only one. Where all lie in folders `train`, `val` and `test`, these are the splits; else images are held
    out by a checksum of their names, with all their captions.

    Of Flickr8k the folder, or one in it, has `Flickr8k.token.txt` and `Flickr_8k.trainImages.txt`, `devImages` and
    `testImages`; the images lie in any folder, or in a tar.

    Args:
        path: the folder.
        size: side of the images in pixels; by default their own size when all are alike, else 224.
        validation: share or number of the training images held out where there is no validation split.
        test: share or number of the images held out where there are no splits at all; `all` leaves none to train on.
        split_seed: another one holds out other images.
        on_bad: what to do about an image that cannot be read: stop when it is wanted, or skip it and say how many there
            were.

    Raises:
        dlkit.errors.DataError: there are no captions, none of their images, or no image can be read; a line is wrong.
        dlkit.errors.UsageError: nothing would be left to train on, or `validation`, `test` or `split_seed` is given for
            splits that the folder has.

    Example:
        >>> folder("flickr8k").splits["test"].captions[0]
        ['The dogs are in the snow in front of a fence .', ...]
    """
    content = _content(_root(path))
    files = [ImageFile(name, "", content.splits.get(name, "")) for name in sorted(content.captions)]
    divided = divide(files, validation=validation, test=test, split_seed=split_seed)
    names = {split: [file.path for file in of] for split, of in divided.items()}
    splits = _read(content, names, size=size, skip=on_bad == "skip")
    for note in content.notes:
        console.warn(f"{content.root}: {note}")
    return CaptionData(path, splits)


# ------------------------------------------------------------------------------------------------------------ captions


def table_of(root: Path) -> Path | None:
    """The file of a folder that has the captions: that of Flickr8k, in it or in a folder of it, or its own."""
    inner = [place for place in file_system.entries(root) if file_system.is_folder(place) and place.name[0] != "."]
    named = [place / name for place in (root, *inner) for name in FLICKR8K] + [root / name for name in TABLES]
    return next((path for path in named if os.path.isfile(path)), None)  # noqa: PTH113 - a folder may be locked


def _content(root: Path) -> _Content:
    """What a folder holds, with what does not fit together left out and noted."""
    source = table_of(root)
    if source is None:
        raise DataError(f"{root}: no captions.txt and no Flickr8k.token.txt", LAYOUT)
    content = _Content(root)
    lines = read_lines(source, zero_bytes=False)
    told = _flickr8k_captions(lines, source) if source.name in FLICKR8K else _table(lines, source)
    if not told:
        raise DataError(f"{source} has no caption", "a line is an image's file, a tab or comma, and a caption")
    _match(content, told, source)
    listed = _flickr8k_splits(source.parent) if source.name in FLICKR8K else {}
    _divide(content, listed)
    return content


Told = dict[str, list[str]]  # an image's file -> its captions


_LINE = "a line is an image's file, a tab or comma, the same in all lines, and a caption"
_MISSING = {"": "no tab and no comma", "\t": "no tab", ",": "no comma"}


def _table(lines: Sequence[str], path: Path) -> Told:
    """The captions of lines `file<TAB>caption` or `file,caption`."""
    filled = [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    told: Told = defaultdict(list)
    separator = ""  # the first caption says which it is: a heading may have the other one
    for place, (number, line) in enumerate(filled):
        try:
            name, caption = _cells(line, separator or _separator_of(line))
        except csv.Error as failure:
            raise DataError(f"{path} line {number} cannot be read: {failure}", _LINE) from None
        if not place and name.casefold() in COLUMNS["file"] and (caption or "").casefold() in CAPTION_COLUMNS:
            continue
        if not name or not caption:
            missing = _MISSING[separator] if caption is None else "no caption" if name else "no file"
            raise DataError(f"{path} line {number} has {missing}", _LINE)
        separator = separator or _separator_of(line)
        told[posixpath.normpath(name.replace("\\", "/"))].append(caption)
    return told


def _separator_of(line: str) -> str:
    return "\t" if "\t" in line.partition(",")[0] else ","


def _cells(line: str, separator: str) -> tuple[str, str | None]:
    """The file of a line, and the caption; None where nothing parts them.

    Raises:
        csv.Error: a cell beside quotes is longer than one may be, or has a line end in it.
    """
    if separator == "," and '"' in line:  # a cell with a comma may stand in quotes
        name, *cells = next(csv.reader([line]))
        return name.strip(), ",".join(cells).strip() if cells else None
    name, found, caption = line.partition(separator)
    return name.strip(), caption.strip() if found else None


def _flickr8k_captions(lines: Sequence[str], path: Path) -> Told:
    """The captions of lines `file#number<TAB>caption`."""
    told: Told = defaultdict(list)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, tab, caption = line.rstrip("\r").partition("\t")
        name, mark, _ = name.rpartition("#")
        if not tab or not mark or not caption.strip():
            raise DataError(f"{path} line {number} is not of the form file.jpg#0<TAB>caption", "get the file again")
        told[name.strip()].append(caption.strip())
    return told


def _flickr8k_splits(place: Path) -> dict[str, str]:
    """An image's file -> its split, of `Flickr_8k.trainImages.txt` and the like."""
    found: dict[str, str] = {}
    for own, split in FLICKR8K_SPLITS.items():
        path = place / f"Flickr_8k.{own}Images.txt"
        if path.is_file():
            found.update((line.strip(), split) for line in read_lines(path) if line.strip())
    return found


# -------------------------------------------------------------------------------------------------------------- images


def _pictures(root: Path) -> dict[str, Picture]:
    """All images of a folder and of the tars in it, by their paths."""
    listing = Listing(root, "")
    found = {name: Picture(name, root / name) for name in images_below(listing, "")}
    for name in listing.others:
        if name.endswith(".tar"):
            found |= _in_tar(root, name)
    return found


def _in_tar(root: Path, name: str) -> dict[str, Picture]:
    path = root / name
    try:
        with tarfile.open(path, "r:") as archive:
            return {
                f"{name}/{member.name}": Picture(f"{name}/{member.name}", path, (member.offset_data, member.size))
                for member in archive
                if member.isreg() and member.name.casefold().endswith(SUFFIXES)
            }
    except tarfile.TarError as failure:
        raise DataError(f"{path} is no whole tar: {failure}", "get it again") from None
    except OSError as failure:
        raise unreadable(str(path), failure) from None


def _match(content: _Content, told: Told, source: Path) -> None:
    """Brings captions and images together; those without the other are left out and noted."""
    pictures = _pictures(content.root)
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in pictures:
        by_name[posixpath.basename(path)].append(path)
    lost: list[str] = []
    for name, captions in told.items():
        same = [name] if name in pictures else sorted(by_name.get(name, []))
        if len(same) > 1:
            raise DataError(f"{source}: {name} is {same[0]} and {same[1]}", "write which, from the folder")
        if same:
            content.captions.setdefault(same[0], []).extend(captions)
            content.pictures[same[0]] = pictures[same[0]]
        else:
            lost.append(name)
    if not content.captions:
        hint = "unpack archives of images (a plain .tar is read as it is)" if not pictures else "paths count from there"
        raise DataError(f"{content.root} has none of the images that {source.name} names, such as {lost[0]}", hint)
    if lost:
        lines = sum(len(told[name]) for name in lost)
        content.notes.append(
            f"left out {_counted(lines, 'caption')} of {_counted(len(lost), 'image')} that {_are(lost)} not there "
            f"({_first(lost)})"
        )
    if bare := sorted(set(pictures) - set(content.captions)):
        content.notes.append(f"left out {_counted(len(bare), 'image')} without a caption ({_first(bare)})")


def _divide(content: _Content, listed: Mapping[str, str]) -> None:
    """Notes the split of each image: that of a list, or of the folders that all images lie in."""
    if listed:
        own = {path: listed.get(posixpath.basename(path)) for path in content.captions}
        content.splits = {path: split for path, split in own.items() if split}
        if missing := set(listed) - {posixpath.basename(path) for path in content.splits}:
            content.notes.append(
                f"{_counted(len(missing), 'image')} of the splits {_are(missing)} not there ({_first(sorted(missing))})"
            )
    else:
        folders = {path: split_of(path.partition("/")[0]) for path in content.captions}
        if all(folders.values()):
            content.splits = {path: split for path, split in folders.items() if split}
        return
    if not content.splits:
        raise DataError(f"{content.root}: no image is in a split", "the names in Flickr_8k.trainImages.txt are others")
    if outside := sorted(set(content.captions) - set(content.splits)):
        content.notes.append(f"left out {_counted(len(outside), 'image')} in no split ({_first(outside)})")
        for path in outside:
            del content.captions[path]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _are(things: Iterable[str]) -> str:
    return "is" if len(list(things)) == 1 else "are"


def _first(names: Sequence[str]) -> str:
    return f"{names[0]}{', ...' * (len(names) > 1)}"


# -------------------------------------------------------------------------------------------------------------- pixels


def _read(
    content: _Content, names: Mapping[str, list[str]], *, size: int | None, skip: bool
) -> dict[str, CaptionSplit]:
    """The splits, by the paths of their images; with `skip` without the images that cannot be decoded."""
    paths = [path for of in names.values() for path in of]
    pictures = [content.pictures[path] for path in paths]
    headers = dict(zip(paths, in_threads(_header, pictures, f"{content.root}: headers of images"), strict=True))
    shape = _common_shape(content.root, headers, size)
    if skip:
        decoded = in_threads(partial(_unreadable, shape=shape), pictures, f"{content.root}: images")
        bad = {path: failure.reason for path, failure in zip(paths, decoded, strict=True) if failure}
        headers = {path: header for path, header in headers.items() if path not in bad}
        if bad:
            path, reason = next(iter(bad.items()))
            content.notes.append(
                f"skipped {len(bad):,} of {len(paths):,} images, which cannot be read; the first: {path} {reason}"
            )
        shape = _common_shape(content.root, headers, size)
    keep = fits_in_memory(len(headers), shape)
    splits = {}
    for split, of in names.items():
        kept = [path for path in of if path in headers]
        if kept:
            images = _lazy(content, kept, headers, shape, keep=keep)
            splits[split] = CaptionSplit(images, [content.captions[path] for path in kept])
    return splits


def _header(picture: Picture) -> Header | Unreadable:
    return attempt(lambda _: picture.header(), picture.path)


def _unreadable(picture: Picture, *, shape: tuple[int, int, int]) -> Unreadable | None:
    found = attempt(lambda _: picture.pixels(shape), picture.path)
    return found if isinstance(found, Unreadable) else None


def _common_shape(root: Path, headers: Mapping[str, Header | Unreadable], size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that all images are given, by the headers that can be read."""
    known = [header for header in headers.values() if isinstance(header, Header)]
    if not known:
        raise DataError(f"{root}: none of the images can be read", "are they PNG, JPEG, BMP, GIF or WebP?")
    channels = 1 if all(header.is_gray for header in known) else 3
    own = {(header.height, header.width) for header in known}
    if size is not None or len(own) != 1:
        return size or DEFAULT_SIZE, size or DEFAULT_SIZE, channels
    return *own.pop(), channels


def _lazy(
    content: _Content,
    paths: Sequence[str],
    headers: Mapping[str, Header | Unreadable],
    shape: tuple[int, int, int],
    *,
    keep: bool,
) -> Split:
    def read(row: int) -> NDArray[np.uint8]:
        picture = content.pictures[paths[row]]
        try:
            return picture.pixels(shape)
        except UnreadableImage as failure:
            raise DataError(
                f"{content.root / picture.name} {failure.reason}",
                f"`dlkit train MODEL --data {shlex.quote(str(content.root))} --on-bad skip` leaves such images out",
            ) from None

    digest = hashlib.sha256()
    for path in paths:
        header = headers[path]
        mark = header.mark if isinstance(header, Header) else ""
        digest.update(f"{posixpath.basename(path)}\0{mark}\n".encode(errors="surrogateescape"))
    room = Kept.room(len(paths), shape) if keep else None
    count = len(paths)
    return LazySplit(read, np.arange(count), np.zeros(count, np.int32), shape, digest.hexdigest(), room)
