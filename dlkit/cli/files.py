"""Where pictures, pages and other files go, and what they may take the place of.

What is drawn of a run goes into the run, in the place of what was drawn there before. Otherwise no picture and no page
is written over a file: without a name the next one that is free is taken (`lenet_gradcam-2.png`), and a name that is
taken ends the command before it begins its work.
"""

import itertools
import os
import shlex
from pathlib import Path

from dlkit import durable, file_system
from dlkit.errors import UsageError, cannot_write
from dlkit.runs import Run


def check_writable(output: Path | None) -> None:
    """Says before any work is done that a file cannot be written where it is to be.

    Raises:
        dlkit.errors.UsageError: it is a folder, or lies in none.
    """
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder", "name a file")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}", "make it, or name another file")


def check_picture_name(file: Path | None) -> None:
    """Raises a UsageError when a file is named that is none of a picture."""
    if file is not None and file.suffix.lower() != ".png":
        raise UsageError(f"{file} has no name for a picture", "pictures are PNG files: let the name end in .png")


def check_new(file: Path | None, option: str) -> None:
    """Says before any work is done that a file would be written over, or cannot be written where it is to be.

    Args:
        file: that is named; None passes.
        option: that it is named after.

    Raises:
        dlkit.errors.UsageError: it exists, or lies in no folder.
    """
    if file is not None and os.path.lexists(file):
        raise UsageError(f"{file} exists", f"name another file after {option}, or remove this one")
    check_writable(file)


def new_file(file: Path | None, what: str, *, suffix: str = ".png") -> Path:
    """The file for a picture that is of no single run: the one that is named, else one here.

    Args:
        file: that is named; None for the first of `WHAT.png`, `WHAT-2.png`, ... that is free.
        what: its name, without the suffix.
        suffix: `.png` or `.html`.

    Raises:
        dlkit.errors.UsageError: as `check_new`.
    """
    if file is not None:
        check_new(file, f"--{suffix[1:]}")
        return file
    names = itertools.chain([what], (f"{what}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not os.path.lexists(path := Path(f"{name}{suffix}")))


def without_option(file: Path, option: str = "--png") -> UsageError:
    """An error about a file that is named without the option that writes it."""
    does = "draws a picture" if option == "--png" else "writes a page"
    return UsageError(f"what to do with {file}?", f"`{option} {shlex.quote(str(file))}` {does} into it")


def picture_path(run: Run | str | None, what: str, file: Path | None, *, suffix: str = ".png") -> Path:
    """Where a picture of one run or model goes: into the run, or where we are when the run is only to be read.

    Only the run's own picture is made anew. Of what is no run, its name stands before that of the picture.

    Raises:
        dlkit.errors.UsageError: as `new_file`.
    """
    if not isinstance(run, Run):
        return new_file(file, f"{run}_{what}" if run else what, suffix=suffix)
    own = run.path / f"{what}{suffix}"
    if file is not None and file_system.real(file) == file_system.real(own):
        return file
    if file is None and os.access(run.path, os.W_OK) and not run.is_shipped:
        return own
    return new_file(file, f"{run.name}_{what}", suffix=suffix)


def write_page(text: str, path: Path) -> None:
    """Writes a page, in one step.

    Raises:
        dlkit.errors.DlkitError: the place cannot be written.
    """
    try:
        durable.write(path, text)
    except OSError as failure:
        raise cannot_write(path, failure) from None
