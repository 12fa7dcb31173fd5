"""Where an export lies, and how it is told from other folders: an earlier export is replaced, nothing else is."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlkit import __version__, durable
from dlkit.errors import UsageError, cannot_write
from dlkit.runs import Run

MARK = "dlkit.json"  # says of a folder that it is an export, and of what


def default(run: Run, form: str) -> Path:
    """`export/FORM` in the run, or a name in the current folder when the run is only to be read."""
    writable = os.access(run.path, os.W_OK) and not run.is_shipped
    return run.path / "export" / form if writable else Path(f"{run.name}_{form}")


def check(folder: Path) -> None:
    """Raises a UsageError when something else than an export has the name."""
    free = not os.path.lexists(folder) or (folder / MARK).is_file() or (folder.is_dir() and not any(folder.iterdir()))
    if not free:
        raise UsageError(f"{folder} exists and is no export", "name another folder with --output, or remove this one")


@contextmanager
def filled(folder: Path, run: Run, checkpoint: Path, **about: Any) -> Iterator[Path]:
    """Gives a temporary folder to fill, which is then marked and becomes `folder`, whole or not at all.

    Args:
        folder: what `check` has let pass.
        run: what is exported.
        checkpoint: of the run.
        about: what else the mark says.

    Raises:
        dlkit.errors.DlkitError: the folder cannot be written.
    """
    content = {"dlkit": __version__, "run": run.name, "checkpoint": checkpoint.name, **about}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with durable.folder(folder.resolve()) as new:
            yield new
            (new / MARK).write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError as failure:
        full = "free some space, or name a folder elsewhere with --output"
        raise cannot_write(folder, failure, full=full) from None
