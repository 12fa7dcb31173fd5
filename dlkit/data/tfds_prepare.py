"""Downloading a set of TensorFlow Datasets and preparing it: by one process at a time, whole or not at all.

The set is made in a folder of our own, `.dlkit` beside the prepared sets, under a lock, and then moved to its place in
one step. So a kill at any moment leaves nothing in the way of the next attempt, and what was prepared before stays.
"""

import contextlib
import errno
import fcntl
import importlib.resources.abc
import importlib.util
import io
import logging
import os
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dlkit import console, durable, runtime
from dlkit.data import tfds_files, tfds_names
from dlkit.data.tfds_files import NotPrepared, Prepared
from dlkit.data.tfds_names import prepare_command, shown
from dlkit.errors import DataError, DlkitError, UsageError, interrupted, unknown

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Seconds until a host must have taken the call, and until it must have said something or the next bytes have come. A
# call that fails so is repeated.
CONNECT, READ = 10.0, 60.0
RETRIES = 2

# Takes a set's name, its features and what it is to be learned with; raises when it is not what is wanted.
Check = Callable[[str, dict[str, Any], tuple[str, str] | None], object]


def obtain(name: str, root: Path, *, wanted: Check) -> Prepared:
    """The prepared set; on a terminal the user is asked whether to prepare it now, elsewhere nothing is downloaded.

    Args:
        name: of the set.
        root: the folder of prepared data.
        wanted: raises for a set of another kind, before it is downloaded.

    Raises:
        NotPrepared: it is not prepared, or only half.
    """
    try:
        return tfds_files.find(name, root)
    except NotPrepared as failure:
        missing = failure
    while _waited(name, root):
        with contextlib.suppress(NotPrepared):
            return tfds_files.find(name, root)
        time.sleep(0.2)  # it was stopped; another one may have waited, too, and go on in its place
    if (_parts(name).config or _parts(name).version) and _parts(name).set in tfds_names.names():
        _builder(name, _nowhere(root))  # says when there is no such configuration or version, network or not
    if may_ask():
        return prepare(name, root, wanted=wanted)
    if not _fetched(name, root) and not _can_be_reached(tfds_names.downloads(_parts(name).set)):
        raise _unreachable(missing.message, name, root)
    raise missing


def prepare(name: str, root: Path, *, agreed: bool = False, wanted: Check | None = None) -> Prepared:
    """Downloads and prepares a set, unless it lies there whole.

    Args:
        name: of the set.
        root: the folder of prepared data.
        agreed: whether to go on without asking.
        wanted: raises for a set of another kind.

    Raises:
        NotPrepared: the user said no, or the source cannot be reached.
        dlkit.errors.UsageError: there is no such set, configuration or version, or nobody can be asked.
        dlkit.errors.DataError: the source gives something else, or its files must be fetched by hand.
        dlkit.errors.DlkitError: the disk is full or may not be written to.
    """
    if found := _whole(name, root):
        return found
    if _waited(name, root) and (found := _whole(name, root)):
        return found
    with _explained(name, root):
        plan = _plan(name, root)
        if wanted:
            wanted(name, *_kind(plan.builder))
        _check_manual_files(plan)
        _check_space(plan)
        console.note(plan.describe())
        by_hand = bool(plan.builder.MANUAL_DOWNLOAD_INSTRUCTIONS)  # then its files are there
        if not (by_hand or _fetched(name, root)) and not _can_be_reached(tfds_names.downloads(_parts(name).set)):
            raise _unreachable(f"{name} is not prepared in {shown(root)}", name, root)
        if not agreed:
            _ask(plan)
        with _alone(name, root):
            return _whole(name, root) or _carry_out(plan)


def _parts(name: str) -> tfds_names.Name:
    parsed = tfds_names.parse(name)
    if parsed is None:
        raise UsageError(f"{name} is no name of TensorFlow Datasets", "such as cifar10, imagenette/160px-v2")
    return parsed


def _fetched(name: str, root: Path) -> bool:
    """Whether an attempt before has downloaded files of the set: perhaps all that is needed."""
    folder = _downloads(name, root)
    begun = _begun(folder)
    return any(path.is_file() and not begun.intersection(path.parents) for path in folder.rglob("*"))


def _downloads(name: str, root: Path) -> Path:
    """Where TensorFlow Datasets puts what it downloads of a set."""
    return root / "downloads" / _parts(name).set


def _whole(name: str, root: Path) -> Prepared | None:
    """The set, if it is there to the last record."""
    try:
        found = tfds_files.find(name, root)
        tfds_files.verify(found)
    except NotPrepared:
        return None
    return found


# ------------------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Plan:
    """What preparing a set takes.

    Args:
        name: of the set.
        root: the folder of prepared data.
        builder: what would prepare it, in a folder that does not exist.
        download: bytes to download; None when the set does not say.
    """

    name: str
    root: Path
    builder: "tfds.core.DatasetBuilder"
    download: int | None

    @property
    def disk(self) -> int | None:
        """Bytes on disk, roughly: the download, what is unpacked from it until it is done, and the records."""
        return self.download and 3 * self.download

    @property
    def manual(self) -> Path:
        """Where files lie that the user has to fetch."""
        return self.root / "downloads" / "manual"

    def describe(self) -> str:
        """The sizes and the place in one line."""
        if self.builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            sizes = f"from the files in {shown(self.manual)}"
        elif self.download is None:
            sizes = "a download of unknown size"
        else:
            sizes = f"{_size(self.download)} to download, up to {_size(self.disk or 0)} on disk"
        return f"{self.name}: {sizes}, to be prepared in {shown(self.root)}"


def _plan(name: str, root: Path) -> _Plan:
    nowhere = _nowhere(root)
    builder = _builder(name, nowhere)
    sizes = {url: int(info.size) for url, info in (builder.url_infos or {}).items()}
    wanted = _addresses(_builder(name, nowhere)) if len(sizes) > 1 else set(sizes)
    total = sum(sizes[url] for url in (wanted & set(sizes)) or sizes)
    return _Plan(name, root, builder, total or None)


def _nowhere(root: Path) -> Path:
    """A folder that does not exist: a builder with this place comes from the package and from no files."""
    return root / ".dlkit" / "none"


def _builder(name: str, place: Path) -> "tfds.core.DatasetBuilder":
    """The builder of a set of the installed package, which writes into `place`."""
    dataset, config, version = _parts(name)
    tfds = _import_tfds()
    with _silence():
        try:
            cls = tfds.builder_cls(dataset)
        except ValueError:
            raise unknown("dataset", name, tfds_names.image_names(), "`dlkit data list` lists all") from None
        configs = [each.name for each in cls.BUILDER_CONFIGS]
        if config and not configs:
            raise UsageError(f"{dataset} has no configurations: {name}", f"did you mean `{dataset}`?")
        if config and config not in configs:
            listing = "" if len(configs) <= 20 else f"{dataset} has {len(configs)} of them"
            raise unknown(f"configuration of {dataset}", config, configs, listing)
        try:
            return cls(data_dir=place, config=config or None, version=version or None)
        except AssertionError as failure:
            there = str(failure).rpartition("only: ")[2].rstrip(".")
            raise UsageError(
                f"{dataset} cannot be prepared in version {version}", f"in version {there} it can"
            ) from None


def _import_tfds() -> ModuleType:
    runtime.import_tensorflow()
    if importlib.util.find_spec("importlib_resources") is None:
        # Its builders import the backport of what Python has, and it asks for it on old versions of Python only.
        sys.modules["importlib_resources"] = importlib.resources
    with _silence():
        import tensorflow_datasets as tfds
    return tfds


class _Addresses:
    """Stands in for a download manager, and notes what a builder would download."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def download(self, what: Any) -> Any:
        """A path that does not exist, or as many as were asked for."""
        if isinstance(what, dict):
            return {key: self.download(item) for key, item in what.items()}
        if isinstance(what, list | tuple):
            return [self.download(item) for item in what]
        self.found.add(str(getattr(what, "url", what)))
        return Path("/nonexistent")

    download_and_extract = download


def _addresses(builder: "tfds.core.DatasetBuilder") -> set[str]:
    """What a builder downloads in its configuration; the list in its package is of all configurations together.

    It is let run until it looks into the first file, which is not there.
    """
    manager = _Addresses()
    with _silence(), contextlib.suppress(Exception):
        builder._split_generators(manager)
    return manager.found


def _kind(builder: "tfds.core.DatasetBuilder") -> tuple[dict[str, Any], tuple[str, str] | None]:
    """Features and supervised keys, as in `tfds_files.Prepared`, of a set that is not prepared yet."""
    from google.protobuf import json_format  # type: ignore[import-untyped]

    content = json_format.MessageToDict(builder.info.features.to_proto())
    keys = builder.info.supervised_keys
    supervised = (str(keys[0]), str(keys[1])) if keys and len(keys) == 2 else None
    return tfds_files.described_features(content), supervised


def _check_manual_files(plan: _Plan) -> None:
    instructions = plan.builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if instructions and not any(plan.manual.glob("*")):
        raise DataError(
            f"{plan.name} has to be fetched by hand: put its files into {shown(plan.manual)}",
            " ".join(instructions.split()),
        )


def _check_space(plan: _Plan) -> None:
    place = plan.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if plan.download and free < 2 * plan.download:
        raise DlkitError(
            f"{plan.name} takes up to {_size(plan.disk or 0)} on disk, and {_size(free)} are free in {shown(place)}",
            "free some space, or choose another folder with --data-dir",
        )


def _carry_out(plan: _Plan) -> Prepared:
    """Downloads and prepares; no other process does so now."""
    tfds = _import_tfds()
    dataset = _parts(plan.name).set
    work, downloads = plan.root / ".dlkit" / dataset, plan.root / "downloads"
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    begun = _begun(_downloads(plan.name, plan.root))
    for part in begun:
        if _idle(part) > READ:
            shutil.rmtree(part, ignore_errors=True)
    config = tfds.download.DownloadConfig(
        extract_dir=work / "extracted", manual_dir=plan.manual, try_download_gcs=False
    )
    try:
        builder = _builder(plan.name, work)
        with _downloading(plan), _silence():
            builder.download_and_prepare(download_dir=downloads, download_config=config)
        _move(Path(builder.data_dir), work, plan.root)
    except KeyboardInterrupt as failure:
        again = f"`{prepare_command(plan.name, plan.root)}` begins anew, with those files that have come whole"
        raise interrupted(failure, again) from failure
    finally:
        for folder in [work, *(_begun(_downloads(plan.name, plan.root)) - begun)]:
            _remove(folder)
    return tfds_files.find(plan.name, plan.root)


def _remove(folder: Path) -> None:
    """Removes a folder into which a thread that has been told to stop may still put a file."""
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _begun(folder: Path) -> set[Path]:
    """The folders of downloads that are going on, or were cut off."""
    return {part for part in folder.rglob("*.tmp.*") if part.is_dir()}


def _idle(part: Path) -> float:
    """Seconds since a download has grown."""
    return time.time() - max(path.stat().st_mtime for path in [part, *part.iterdir()])


def _move(made: Path, work: Path, root: Path) -> None:
    """Moves a prepared set to its place in one step; what was half prepared there goes then, and not before."""
    place = root / made.relative_to(work)
    place.parent.mkdir(parents=True, exist_ok=True)
    for default in work.glob("*/.config/metadata.json"):  # says which configuration is meant when none is named
        kept = root / default.relative_to(work)
        kept.parent.mkdir(exist_ok=True)
        durable.write(kept, default.read_bytes())
    durable.sweep(place.parent)
    with durable.folder(place) as temporary:
        for file in made.iterdir():
            file.rename(temporary / file.name)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"


# ------------------------------------------------------------------------------------------------------------- the user


def may_ask() -> bool:
    """Whether there is somebody to ask: at a terminal, and of a cluster at its first process only."""
    if sys.stdin is None or not sys.stdin.isatty() or not console.is_terminal("stderr") or console.settings.quiet:
        return False
    return runtime.process().is_chief


def _ask(plan: _Plan) -> None:
    if not may_ask():
        raise UsageError(f"nobody can be asked whether to download {plan.name}", "add `--yes` to agree beforehand")
    console.note("go on? [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise NotPrepared(
            f"nothing was downloaded: {plan.name} is not prepared", "`dlkit data list` shows what is ready"
        )


def _unreachable(message: str, name: str, root: Path) -> NotPrepared:
    return NotPrepared(f"{message}, and its source cannot be reached", _elsewhere(name, root))


def _elsewhere(name: str, root: Path) -> str:
    return (
        f"on a machine with a network run `dlkit data prepare {name}`, then copy the folder to {shown(root)} or pass "
        "--data-dir"
    )


# ------------------------------------------------------------------------------------------------------ other processes


def _lock(name: str, root: Path) -> Path:
    return root / ".dlkit" / f"{_parts(name).set}.lock"


@contextlib.contextmanager
def _alone(name: str, root: Path) -> Iterator[None]:
    """In the block no other process prepares the set; those that come wait. The lock goes with its process."""
    path = _lock(name, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        _take(file.fileno(), fcntl.LOCK_EX, name)
        yield


def _waited(name: str, root: Path) -> bool:
    """Waits while another process prepares the set; returns whether one did."""
    try:
        file = _lock(name, root).open("rb")
    except OSError:
        return False
    with file:
        return _take(file.fileno(), fcntl.LOCK_SH, name)


def _take(descriptor: int, kind: int, name: str) -> bool:
    """Takes the lock; returns whether it had to be waited for."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        console.note(f"{name} is being prepared by another process: waiting for it")
        fcntl.flock(descriptor, kind)
        return True
    except OSError:  # a file system without locks
        return False
    return False


# --------------------------------------------------------------------------------------------- the network and the disk


def _can_be_reached(addresses: Iterable[str]) -> bool:
    """Whether the host of the first address answers, whatever it says; True when no address is known."""
    for address in (address for address in addresses if address.startswith("http")):
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "dlkit"})
        try:
            with urllib.request.urlopen(request, timeout=CONNECT):
                return True
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError):
            return False
    return True


@contextlib.contextmanager
def _downloading(plan: _Plan) -> Iterator[None]:
    """In the block TensorFlow Datasets gives up early on a host that does not answer, and a bar shows what has come.

    By itself it waits for ever for an answer, tries ten times, and its threads go on downloading and unpacking after
    Ctrl-C. After the block those that have begun stop before the next bytes or file; what waits for a thread goes on
    as it would by itself, which the command line, whose process ends then, does not wait for.
    """
    from tensorflow_datasets.core.download import downloader, extractor

    stopped = threading.Event()
    opened, copied, members = downloader._open_url, extractor._copy, extractor.iter_archive

    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(_bar(plan))

        def go_on() -> None:
            if stopped.is_set():
                raise ConnectionAbortedError

        def passing(blocks: Iterable[bytes]) -> Iterator[bytes]:
            for block in blocks:
                go_on()
                advance(len(block))
                yield block

        @contextlib.contextmanager
        def watched(address: str, **options: Any) -> Iterator[tuple[Any, Iterator[bytes]]]:
            go_on()
            with opened(address, timeout=(CONNECT, READ), **options) as (response, blocks):
                yield response, passing(blocks)

        def unpacked(*archive: Any) -> Iterator[tuple[str, Any]]:
            for member in members(*archive):
                go_on()
                yield member

        def copy(*content_and_place: Any) -> None:
            go_on()
            copied(*content_and_place)

        stack.enter_context(_set(downloader, _open_url=watched, MAX_RETRIES=RETRIES))
        stack.enter_context(_set(extractor, _copy=copy, iter_archive=unpacked))
        stack.callback(stopped.set)
        yield


@contextlib.contextmanager
def _set(module: ModuleType, **changes: Any) -> Iterator[None]:
    """In the block a module has these things under these names."""
    before = {name: getattr(module, name) for name in changes}
    try:
        for name, thing in changes.items():
            setattr(module, name, thing)
        yield
    finally:
        for name, thing in before.items():
            setattr(module, name, thing)


@contextlib.contextmanager
def _bar(plan: _Plan) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how much has been downloaded; takes the bytes that came."""
    if console.settings.quiet or not console.is_terminal():
        yield lambda count: None
        return
    total, come = plan.download or 0, 0
    with console.progress(f"preparing {plan.name}", total) as bar:

        def advance(count: int) -> None:
            nonlocal come
            come += count
            bar.update(bar.task_ids[0], completed=come, figures=_size(come) + (f" of {_size(total)}" if total else ""))

        yield advance


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what TensorFlow Datasets prints, logs and warns of in the block, unless under `--verbose`."""
    if console.settings.verbose:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _explained(name: str, root: Path) -> Iterator[None]:
    """Whatever fails in the block is explained in one line; nothing half-made is left."""
    try:
        yield
    except DlkitError:
        raise
    except Exception as failure:
        raise _in_our_words(failure, name, root) from failure


def _in_our_words(failure: Exception, name: str, root: Path) -> DlkitError:
    import requests
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    text = str(failure).strip()
    first = " ".join(text.splitlines()[:1])
    # It may be an OSError, one of TensorFlow, or a RuntimeError that quotes one of these.
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
        if os.strerror(number) in text:
            hint = "free some space there, or choose another folder with --data-dir"
            return DlkitError(f"cannot write to {shown(root)}: {os.strerror(number).lower()}", hint)
    match failure:
        case NonMatchingChecksumError():
            hint = "a newer tensorflow-datasets may know of a change at the source"
            return DataError(f"{name}: what was downloaded is not what was published: {first}", hint)
        case DownloadError():
            return DataError(f"{name}: its source does not give it: {first}", _elsewhere(name, root))
        case requests.RequestException() | urllib.error.URLError() | ConnectionError() | TimeoutError():
            return _unreachable(f"{name} is not prepared in {shown(root)}", name, root)
        case ImportError():
            return DataError(f"{name} cannot be prepared: {first}", f"`pip install {failure.name or 'it'}`")
        case _:
            what = f"{type(failure).__name__}: {first}"
            return DataError(f"{name} could not be prepared in {shown(root)}: {what}", "`--debug` shows where")
