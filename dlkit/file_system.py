"""What stands at a path that a user gives.

Python's own functions raise for some paths: for a folder that may not be entered, a name that is too long, a circle of
links, the home of a user that is not there. Here the first and the last of these are one line for people, as is a disk
that fails, and at the others there is nothing. Where a word need not be a path, `os.path.exists` and its like do, which
never raise.
"""

import errno
import os
import stat
from pathlib import Path

from dlkit.errors import DataError, UsageError, not_there, unreadable

# What the system says of a path at which there is nothing: a name that is too long and a circle of links lead nowhere.
NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


def expanded(path: str | Path) -> Path:
    """A path with `~` and `~name` written out.

    Raises:
        dlkit.errors.UsageError: there is no user of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise UsageError(f"no home folder is known of {home}: {path}", "write the path in full") from None


def real(path: str | Path) -> Path:
    """A path written out and without links; a circle of links stays as it is."""
    return Path(os.path.realpath(expanded(path)))


def exists(path: str | Path) -> bool:
    """Whether a file or a folder is there.

    Raises:
        dlkit.errors.DataError: a folder on the way to it may not be entered, or its disk cannot be read.
    """
    return _mode(path) != 0


def is_folder(path: str | Path) -> bool:
    """Whether it is a folder, or a link to one; raises as `exists`."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: str | Path) -> bool:
    """Whether it is a regular file, or a link to one; raises as `exists`."""
    return stat.S_ISREG(_mode(path))


def _mode(path: str | Path) -> int:
    """What kind of thing is there; 0 for nothing."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - a text may be no path at all
    except ValueError:  # a zero byte
        return 0
    except OSError as failure:
        if failure.errno in NOTHING_THERE:
            return 0
        raise unreadable(str(path), failure) from None


def folder(path: str | Path, content: str) -> Path:
    """The folder at a path, which is written out.

    Args:
        path: of it.
        content: what the folder is to hold, in words.

    Raises:
        dlkit.errors.DataError: there is none.
        dlkit.errors.UsageError: as `expanded`.
    """
    root = expanded(path)
    if not exists(root):
        raise not_there("folder", root)
    if not is_folder(root):
        raise DataError(f"{root} is a file, not a folder", f"name the folder that {content} lie in")
    return root


def entries(root: Path) -> list[Path]:
    """What stands in a folder, by name.

    Raises:
        dlkit.errors.DataError: the folder cannot be read.
    """
    try:
        return sorted(root.iterdir())
    except OSError as failure:
        raise unreadable(f"the folder {root}", failure) from None
