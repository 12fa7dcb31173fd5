"""Files that survive a kill and a power cut: written under a temporary name, synced to the disk, then renamed.

A reader sees the old content or the new, never a part. A failure on the way (a full disk, a signal) removes what was
begun and leaves what stood there.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}  # a rename cannot replace what holds something, or is a file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        _sync(file)
    _sync(folder)


def write(path: Path, content: bytes | str) -> None:
    """Replaces the file `path` with `content` in one step.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    with _replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def stream(path: Path) -> Iterator[TextIO]:
    """Gives a text file in UTF-8 to write to; when the block ends well it becomes `path`, replacing what is there.

    Raises:
        OSError: as `write`.
    """
    with _replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`: behind a link, what it points to; into a device or a pipe, straight."""
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))  # Path.resolve() raises for a circle of links
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; when the block ends well it becomes `path`, replacing what is there.

    Raises:
        OSError: as `write`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _sync_folder(temporary)
        _replace(path, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def _replace(path: Path, new: Path) -> None:
    """Gives a folder the name `path`. What has it, which a rename cannot replace, is moved aside until that is done."""
    if not path.exists():
        new.rename(path)
        return
    old = path.rename(_hidden(path.parent))
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def claim(parent: Path, names: Iterable[str], fill: Callable[[Path], None]) -> Path:
    """Fills a new folder and gives it the first of `names` that is free, in one step.

    The name appears together with the content, and no two processes get the same: there is never a folder that is
    claimed and not whole.

    Args:
        parent: where the folder is to be.
        names: tried in this order; that of an empty folder is free.
        fill: writes the content, into a folder of a temporary name.

    Returns:
        The folder.

    Raises:
        FileExistsError: none of the names is free.
        OSError: the disk is full, say; nothing is left behind.
    """
    temporary = _hidden(parent)
    temporary.mkdir()
    try:
        fill(temporary)
        _sync_folder(temporary)
        path = next((parent / name for name in names if _renamed(temporary, parent / name)), None)
        if path is None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(parent))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(parent)
    return path


def _hidden(parent: Path) -> Path:
    return parent / f".{uuid.uuid4().hex}.tmp"


def _renamed(old: Path, new: Path) -> bool:
    try:
        old.rename(new)
    except OSError as failure:
        if failure.errno in _TAKEN:
            return False
        raise
    return True


def remove(path: Path) -> None:
    """Removes a folder: its name in one step, then what is in it. Of a link, the link alone.

    Raises:
        OSError: it may not be removed.
    """
    if path.is_symlink():
        path.unlink()
        return
    hidden = path.rename(_hidden(path.parent))
    _sync(path.parent)
    shutil.rmtree(hidden)


def sweep(parent: Path, *, older_than: float = 0) -> None:
    """Removes what killed writers of earlier processes left in `parent`, if it is some seconds old."""
    for leftover in parent.glob(".*.tmp"):
        if older_than and time.time() - leftover.lstat().st_mtime < older_than:
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
