"""Sets that TensorFlow Datasets has prepared, read without it: what a folder holds, and its records in any order.

A prepared set is a folder of records with `dataset_info.json` (splits and files) and `features.json` (what a record
is made of). TensorFlow Datasets itself reads them from front to back, names Python modules to import in them, and needs
TensorFlow. Here the place of every record is noted in one pass, so that each can be read when it is wanted, its label
known beforehand and its image still encoded.
"""

import collections
import json
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlkit.data import tfds_names
from dlkit.data.text_files import check_fits, most_bytes
from dlkit.data.tfds_names import prepare_command, shown
from dlkit.errors import DataError, UsageError

Buffer = bytes | mmap.mmap
Row = TypeVar("Row")

INFO, FEATURES = "dataset_info.json", "features.json"
FORMATS = ("tfrecord", "array_record")


class NotPrepared(DataError):
    """A set that is not in its folder, or only half."""


class Shard(NamedTuple):
    """One file of records.

    Args:
        path: the file.
        records: how many it should have.
    """

    path: Path
    records: int


@dataclass(frozen=True)
class Prepared:
    """What the folder of a prepared set says of it.

    Args:
        name: as the user wrote it.
        root: the folder of all prepared data.
        folder: where its files are.
        file_format: `tfrecord` or `array_record`.
        splits: split name -> its files; a split without records is left out.
        features: name -> kind and details, of what a record is made of; without a name where it is a single thing.
        supervised: the names of the features that are input and target, where the set says so.
    """

    name: str
    root: Path
    folder: Path
    file_format: str
    splits: dict[str, list[Shard]]
    features: dict[str, Any]
    supervised: tuple[str, str] | None

    @property
    def sizes(self) -> dict[str, int]:
        """Number of records of each split."""
        return {split: sum(shard.records for shard in shards) for split, shards in self.splits.items()}

    def damaged(self, reason: str) -> NotPrepared:
        """The error for files that `verify` finds not to be whole, so that preparing the set makes them anew."""
        return half_prepared(self.name, self.root, self.folder, reason)

    def spoilt(self, reason: str) -> DataError:
        """The error for records that do not hold what they should, in files that are whole for `verify`.

        Whoever prepares the set again would find it prepared, unless it is out of the way.
        """
        return DataError(
            f"{self.name} is damaged in {shown(self.folder)}: {reason}",
            f"move this folder away, then `{prepare_command(self.name, self.root)}` makes it anew",
        )

    def classes(self, label: str, largest: int) -> list[str]:
        """The names of the classes of a feature; their numbers when they have no names.

        Args:
            label: the feature.
            largest: the greatest class that occurs.

        Raises:
            dlkit.errors.DataError: there are not so many.
        """
        file = self.folder / f"{label}.labels.txt"
        if file.exists():
            names = [line.strip() for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        else:
            names = [str(number) for number in range(int(self.features[label].get("numClasses") or largest + 1))]
        if largest >= len(names):
            raise self.spoilt(f"class {largest} occurs, and it has {len(names)}")
        return names


# -------------------------------------------------------------------------------------------------------- what is there


def find(text: str, root: Path) -> Prepared:
    """The prepared set of a name, in the newest version there that fits and is whole.

    Args:
        text: `cifar10`, `imagenette/160px-v2`, `cifar10:3.0.2`.
        root: the folder of prepared data.

    Raises:
        NotPrepared: it is not there, or half of it.
        dlkit.errors.UsageError: there can be no set of that name.
    """
    name = tfds_names.parse(text)
    if name is None:
        raise UsageError(
            f"{text} is no name of TensorFlow Datasets", "such as cifar10, imagenette/160px-v2, mnist:3.0.1"
        )
    base = root / name.set
    config = name.config or _default_config(base)
    place = base / config
    versions = sorted(_versions(place), key=lambda folder: tuple(map(int, folder.name.split("."))))
    fitting = [folder for folder in versions if _fits(folder.name, name.version)]
    failures = []
    for folder in reversed(fitting):  # half of a newer version, as an interrupted copy leaves it, hides no whole one
        try:
            return read(text, root, folder)
        except NotPrepared as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    if any(place.glob("incomplete.*")):
        raise half_prepared(text, root, place, "it was interrupted")
    others = [f"{name.set}/{config}" if config else name.set for config in sorted(_configs(base))]
    there = [f"{text.partition(':')[0]}:{folder.name}" for folder in versions] or others
    also = f"; prepared there: {', '.join(there)}" if there else ""
    raise NotPrepared(f"{text} is not prepared in {shown(root)}", f"`{prepare_command(text, root)}` does it{also}")


def half_prepared(text: str, root: Path, folder: Path, reason: str) -> NotPrepared:
    """The error for a set of which a part is there."""
    return NotPrepared(
        f"{text} is only half prepared in {shown(folder)}: {reason}", f"`{prepare_command(text, root)}` does it again"
    )


def _configs(base: Path) -> list[str]:
    return [path.name for path in base.glob("[!.]*") if _versions(path)]


def _default_config(base: Path) -> str:
    """The configuration that stands for none, as the set was prepared; empty when it has no configurations."""
    try:
        return str(json.loads((base / ".config" / "metadata.json").read_text(encoding="utf-8"))["default_config_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _versions(place: Path) -> list[Path]:
    return [path for path in place.glob("*") if tfds_names.VERSION.fullmatch(path.name) and path.is_dir()]


def _fits(version: str, wanted: str) -> bool:
    if wanted in {"", "*"}:
        return True
    return all(want in {"*", have} for have, want in zip(version.split("."), wanted.split("."), strict=True))


def read(text: str, root: Path, folder: Path) -> Prepared:
    """What a folder of prepared data says of itself; its files are all there, though not looked into.

    Args:
        text: the name of the set.
        root: the folder of all prepared data.
        folder: such as `~/tensorflow_datasets/cifar10/3.0.2`.

    Raises:
        NotPrepared: files are missing.
        dlkit.errors.DataError: a format that cannot be read.
    """
    info, features = (_json(text, root, folder, file) for file in (INFO, FEATURES))
    try:
        file_format = info.get("fileFormat", "tfrecord")
        splits = {split["name"]: _shards(folder, info["name"], file_format, split) for split in info.get("splits", [])}
        described = described_features(features)
        supervised = _supervised(info.get("supervisedKeys"))
    except (KeyError, TypeError, ValueError, AttributeError) as failure:
        raise half_prepared(text, root, folder, f"{INFO} or {FEATURES} does not say what is there") from failure
    if file_format not in FORMATS:
        raise DataError(
            f"{text} is prepared as {file_format} in {shown(folder)}: {' and '.join(FORMATS)} can be read",
            f"move the folder away, then `{prepare_command(text, root)}`",
        )
    missing = [shard.path for shards in splits.values() for shard in shards if not _has_content(shard.path)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise half_prepared(text, root, folder, f"{missing[0].name}{more} missing")
    splits = {name: shards for name, shards in splits.items() if shards}
    return Prepared(text, root, folder, file_format, splits, described, supervised)


def _json(text: str, root: Path, folder: Path, file: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise half_prepared(text, root, folder, f"{file} is missing") from None
    except ValueError:
        raise half_prepared(text, root, folder, f"{file} is cut short or damaged") from None
    if not isinstance(content, dict):
        raise half_prepared(text, root, folder, f"{file} is damaged")
    return content


def _shards(folder: Path, dataset: str, file_format: str, split: dict[str, Any]) -> list[Shard]:
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    counts = [int(count) for count in split.get("shardLengths", [])]
    shards = []
    for number, count in enumerate(counts):
        name = template
        for key, value in {
            "DATASET": dataset,
            "SPLIT": split["name"],
            "FILEFORMAT": file_format,
            "SHARD_X_OF_Y": f"{number:05d}-of-{len(counts):05d}",
            "SHARD_INDEX": f"{number:05d}",
            "NUM_SHARDS": f"{len(counts):05d}",
        }.items():
            name = name.replace(f"{{{key}}}", value)
        if Path(name).name != name:
            raise ValueError(name)  # a file beside the others, and nothing elsewhere
        if count:
            shards.append(Shard(folder / name, count))
    return shards


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def described_features(content: dict[str, Any]) -> dict[str, Any]:
    """`Prepared.features` of what `features.json` holds."""
    several = content["featuresDict"]["features"] if "featuresDict" in content else {"": content}
    return {key: feature(value) for key, value in several.items()}


def feature(value: dict[str, Any]) -> dict[str, Any]:
    """{"kind": "image", ...} of the {"pythonClassName": ..., "image": {...}} of a file; the class is not looked up."""
    kind = next(key for key in value if key not in {"pythonClassName", "description"})
    return {"kind": kind, **(value[kind] if isinstance(value[kind], dict) else {})}


def _supervised(keys: dict[str, Any] | None) -> tuple[str, str] | None:
    match keys:
        case {"tuple": {"items": [{"featureKey": str(source)}, {"featureKey": str(target)}]}}:
            return source, target
        case {"input": str(source), "output": str(target)}:
            return source, target
        case _:
            return None


# -------------------------------------------------------------------------------------------------------------- records


@dataclass(frozen=True)
class EncodedImages:
    """The images of one split as they stand in its files, and their labels.

    Args:
        read: takes a row and returns the encoded image; it may be called from several threads.
        labels: (n,) int32; -1 where the set has none.
        checksums: (n,) uint32, of the record that each image is in.
    """

    read: Callable[[int], bytes]
    labels: NDArray[np.int32]
    checksums: NDArray[np.uint32]


def encoded_images(prepared: Prepared, split: str, image: str, label: str) -> EncodedImages:
    """Notes where the images of a split are, in one pass over its files that decodes none.

    Args:
        prepared: the set.
        split: the name of the split.
        image: the feature that holds the image.
        label: the feature that holds the label.

    Raises:
        NotPrepared: a file is cut short or damaged.
        dlkit.errors.DataError: a record is.
    """
    shards, keys = prepared.splits[split], (image.encode(), label.encode())
    if prepared.file_format == "array_record":
        return _in_array_records(prepared, shards, keys)
    return _in_tfrecords(prepared, shards, keys)


def texts(prepared: Prepared, split: str, keys: Sequence[str]) -> list[list[str]]:
    """The texts of a split, one list for each of the features `keys`, in the order of the files.

    Raises:
        NotPrepared: a file is cut short or damaged.
        dlkit.errors.DataError: a record is, a text is no UTF-8, or all are too large for the memory.
    """
    names = [key.encode() for key in keys]
    read = _each(prepared, split, lambda record: [record.text(name) for name in names])
    rows = list(_fitting(prepared, (row for _, _, row in read), lambda row: sum(map(len, row))))
    return [[row[column] for row in rows] for column in range(len(keys))]


def images_with_texts(prepared: Prepared, split: str, image: str, texts: str) -> tuple[EncodedImages, list[list[str]]]:
    """The images of a split, with no labels, and the texts of each: any number of them.

    Args:
        prepared: the set.
        split: the name of the split.
        image: the feature that holds the image.
        texts: the feature that holds its texts.

    Raises:
        NotPrepared: a file is cut short or damaged.
        dlkit.errors.DataError: a record is, a text is no UTF-8, or all are too large for the memory.
    """
    shards = prepared.splits[split]

    def look(record: _Record) -> tuple[tuple[int, int], list[str], int]:
        return record.value(image.encode()), record.texts(texts.encode()), record.checksum

    read_from = (
        ((shard, number, *place), of_image, checksum)
        for shard, number, (place, of_image, checksum) in _each(prepared, split, look)
    )
    places, captions, checksums = [], [], []
    for place, of_image, checksum in _fitting(prepared, read_from, lambda row: sum(map(len, row[1]))):
        places.append(place)
        captions.append(of_image)
        checksums.append(checksum)
    if prepared.file_format == "array_record":
        readers = {shard.path: _array_record(prepared, shard) for shard in shards}

        def read(row: int) -> bytes:
            shard, number, first, last = places[row]
            return readers[shard.path](number)[first:last]

    else:
        mapped = lru_cache(maxsize=256)(_mapped)

        def read(row: int) -> bytes:
            shard, _, first, last = places[row]
            return mapped(shard.path)[first:last]

    return EncodedImages(read, np.zeros(len(places), np.int32), np.array(checksums, np.uint32)), captions


def labelled_texts(prepared: Prepared, split: str, text: str, label: str) -> tuple[list[str], list[int]]:
    """The texts of a split and their labels, in the order of the files; -1 where a label is withheld.

    Raises:
        NotPrepared: a file is cut short or damaged.
        dlkit.errors.DataError: a record is, a text is no UTF-8, or all are too large for the memory.
    """
    read = _each(prepared, split, lambda record: (record.text(text.encode()), record.number(label.encode())))
    rows = list(_fitting(prepared, (row for _, _, row in read), lambda row: len(row[0])))
    return [each for each, _ in rows], [number for _, number in rows]


def _fitting(prepared: Prepared, rows: Iterator[Row], characters: Callable[[Row], int]) -> Iterator[Row]:
    """What was found in each record, as far as the memory goes."""
    size, most = 0, most_bytes()
    for row in rows:
        size += characters(row)
        check_fits(size, prepared.name, most)
        yield row


class _Record:
    """A record, whose features are found by name.

    Raises:
        IndexError, KeyError, ValueError: it is not what it should be.
    """

    def __init__(self, content: Buffer, start: int, stop: int) -> None:
        self._content, self._stop = content, stop
        self._features = dict(_features(content, start, stop))

    def value(self, key: bytes) -> tuple[int, int]:
        """Where the only value of a feature stands."""
        ((first, last),) = _values(self._content, *self._features[key])
        return first, last

    def text(self, key: bytes) -> str:
        """The only text of a feature."""
        first, last = self.value(key)
        return self._content[first:last].decode()

    def texts(self, key: bytes) -> list[str]:
        """All texts of a feature, which may have none."""
        places = _values(self._content, *self._features.get(key, (0, 0)))
        return [self._content[first:last].decode() for first, last in places]

    def number(self, key: bytes) -> int:
        """The only number of a feature; 64 bits with a sign."""
        number, _ = _varint(self._content, self.value(key)[0])
        return number - (1 << 64) if number >> 63 else number

    @property
    def checksum(self) -> int:
        """That which stands behind a record of a TFRecord; else one of our own."""
        own = self._content[self._stop : self._stop + 4]
        return int.from_bytes(own, "little") if own else zlib.crc32(self._content)


def _each(prepared: Prepared, split: str, look: Callable[[_Record], Row]) -> Iterator[tuple[Shard, int, Row]]:
    """What `look` finds in each record of a split, with its file and its number there.

    Raises:
        NotPrepared: a file is cut short or damaged.
        dlkit.errors.DataError: `look` does not find what should be there.
    """
    for shard in prepared.splits[split]:
        for number, (content, start, stop) in enumerate(_records(prepared, shard)):
            try:
                found = look(_Record(content, start, stop))
            except (IndexError, KeyError, ValueError) as failure:
                raise _spoilt(prepared, shard) from failure
            yield shard, number, found


def _records(prepared: Prepared, shard: Shard) -> "Iterator[tuple[Buffer, int, int]]":
    """The records of a file as start and stop in a buffer."""
    if prepared.file_format == "array_record":
        record = _array_record(prepared, shard)
        for number in range(shard.records):
            content = record(number)
            yield content, 0, len(content)
    else:
        with _mapped(shard.path) as mapped:
            for start, stop in _tfrecord(prepared, shard, mapped):
                yield mapped, start, stop


def verify(prepared: Prepared) -> None:
    """Goes through all files once and counts their records, without a look at what they hold.

    Raises:
        NotPrepared: a file is cut short, or has more or fewer records than it should.
    """
    for shards in prepared.splits.values():
        for shard in shards:
            if prepared.file_format == "array_record":
                _array_record(prepared, shard)
            else:
                collections.deque(_tfrecord(prepared, shard, _mapped(shard.path)), maxlen=0)


def _in_tfrecords(prepared: Prepared, shards: list[Shard], keys: tuple[bytes, bytes]) -> EncodedImages:
    count = sum(shard.records for shard in shards)
    files = np.repeat(np.arange(len(shards)), [shard.records for shard in shards])
    starts, stops = np.empty(count, np.int64), np.empty(count, np.int64)
    labels, checksums = np.empty(count, np.int32), np.empty(count, np.uint32)
    mapped = lru_cache(maxsize=256)(_mapped)  # each holds a file open, and a process may have about a thousand
    row = 0
    for shard in shards:
        content = mapped(shard.path)
        for start, stop in _tfrecord(prepared, shard, content):
            (starts[row], stops[row]), labels[row] = _place_and_label(prepared, shard, content, start, stop, keys)
            checksums[row] = int.from_bytes(content[stop : stop + 4], "little")
            row += 1

    def read(row: int) -> bytes:
        return mapped(shards[files[row]].path)[starts[row] : stops[row]]

    return EncodedImages(read, labels, checksums)


def _in_array_records(prepared: Prepared, shards: list[Shard], keys: tuple[bytes, bytes]) -> EncodedImages:
    """As for TFRecords, but records are compressed here: unpacked once for the labels, and again when wanted."""
    readers = [_array_record(prepared, shard) for shard in shards]
    firsts = np.cumsum([0] + [shard.records for shard in shards])
    labels, checksums = np.empty(firsts[-1], np.int32), np.empty(firsts[-1], np.uint32)

    def record(row: int) -> tuple[Shard, bytes]:
        number = int(np.searchsorted(firsts, row, side="right")) - 1
        return shards[number], readers[number](row - int(firsts[number]))

    for row in range(len(labels)):
        shard, content = record(row)
        _, labels[row] = _place_and_label(prepared, shard, content, 0, len(content), keys)
        checksums[row] = zlib.crc32(content)

    def read(row: int) -> bytes:
        shard, content = record(row)
        (start, stop), _ = _place_and_label(prepared, shard, content, 0, len(content), keys)
        return content[start:stop]

    return EncodedImages(read, labels, checksums)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _tfrecord(prepared: Prepared, shard: Shard, content: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Start and stop of each record of a TFRecord file: length (8 bytes), checksum (4), record, checksum (4)."""
    at = count = 0
    length = struct.Struct("<Q")
    while at + 12 <= len(content) and count < shard.records:
        (size,) = length.unpack_from(content, at)
        start, at = at + 12, at + 16 + size
        if at > len(content):
            break
        count += 1
        yield start, start + size
    if at != len(content) or count != shard.records:
        raise _damaged(prepared, shard)


def _array_record(prepared: Prepared, shard: Shard) -> Callable[[int], bytes]:
    """Reads records of an ArrayRecord file by their number."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            f"{prepared.name} is prepared as array_record, and nothing here reads that", "`pip install array_record`"
        ) from None
    try:
        reader = ArrayRecordReader(str(shard.path))
        count = reader.num_records()
    except Exception as failure:
        raise _damaged(prepared, shard) from failure
    if count != shard.records:
        raise _damaged(prepared, shard)

    def record(number: int) -> bytes:
        try:
            return bytes(reader.read([number])[0])
        except Exception as failure:
            raise _spoilt(prepared, shard) from failure

    return record


def _damaged(prepared: Prepared, shard: Shard) -> NotPrepared:
    return prepared.damaged(f"{shard.path.name} is cut short or damaged")


def _spoilt(prepared: Prepared, shard: Shard) -> DataError:
    return prepared.spoilt(f"a record of {shard.path.name} does not hold what it should")


# ----------------------------------------------------------------------------------------------------- tf.train.Example

# A record is a protocol buffer: fields one after the other, each a tag (number * 8 + type) and its content.
#   Example.features = 1; Features.feature = 1, a map, so key = 1 and value = 2 in each entry;
#   Feature.bytes_list = 1, .int64_list = 3; value = 1 in each list.


def _place_and_label(
    prepared: Prepared, shard: Shard, content: Buffer, start: int, stop: int, keys: tuple[bytes, bytes]
) -> tuple[tuple[int, int], int]:
    """Where the encoded image stands, and the label."""
    try:
        record = _Record(content, start, stop)
        return record.value(keys[0]), record.number(keys[1])
    except (IndexError, KeyError, ValueError) as failure:
        raise _spoilt(prepared, shard) from failure


def _features(content: Buffer, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The features of an Example by name: where the list of values of each stands."""
    for _, first, last in _fields(content, start, stop):
        for _, entry, end in _fields(content, first, last):
            (_, key, key_end), (_, value, value_end) = _fields(content, entry, end)
            yield content[key:key_end], (value, value_end)


def _values(content: Buffer, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where each value of a feature stands. Integers share one field, which begins with the first of them."""
    for _, first, last in _fields(content, start, stop):
        for _, value, end in _fields(content, first, last):
            yield value, end


def _fields(content: Buffer, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and stop of the fields of a message."""
    while at < stop:
        tag, at = _varint(content, at)
        if tag & 7 == 2:  # a length and as many bytes
            size, at = _varint(content, at)
            end = at + size
        elif tag & 7 == 0:
            _, end = _varint(content, at)
        else:
            raise ValueError(tag)
        if end > stop:
            raise ValueError(end)
        yield tag >> 3, at, end
        at = end


def _varint(content: Buffer, at: int) -> tuple[int, int]:
    """An integer in groups of 7 bits, the lowest first, and the place after it."""
    byte = content[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while True:
        at += 1
        byte = content[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
