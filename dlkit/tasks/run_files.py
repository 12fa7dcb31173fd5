"""What tasks that read or write texts have in common of a run: how it is opened, and the file of its tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlkit import runs
from dlkit.data import tokenizer
from dlkit.data.tokenizer import Tokenizer
from dlkit.errors import CheckpointError, UsageError
from dlkit.runs import Run

TOKENIZER_FILE = "tokenizer.json"

# Task -> what the runs of others do not do.
_LACK = {
    "translation": "does not translate",
    "captioning": "writes no captions",
    "language_modelling": "is no language model",
}


def open_run_of(task: str, name: str | Path) -> Run:
    """Opens a run of a task that writes.

    Raises:
        dlkit.errors.UsageError: the run is of another task.
        dlkit.errors.DataError: there is no such run.
    """
    run = runs.open_run(name)
    if run.task != task:
        raise UsageError(
            f"{run.path} {_LACK[task]}: it is a run of {run.task.replace('_', ' ')}", "`dlkit runs list` shows others"
        )
    return run


def load_tokenizer(folder: Path, info: Mapping[str, Any] | None = None) -> Tokenizer:
    """Reads the one tokenizer of a run folder.

    Args:
        folder: of the run.
        info: what the run knows of its data; None for what it cannot be compared with.

    Raises:
        dlkit.errors.DataError: the file is missing or no tokenizer.
        dlkit.errors.CheckpointError: it is not the one that the run's model was trained with.
    """
    own = tokenizer.load(folder / TOKENIZER_FILE)
    if info is not None and own.digest() != info.get("tokenizer"):
        raise CheckpointError(
            f"the tokenizer of {folder} is not the one that its model was trained with",
            "the file comes from another run",
        )
    return own
