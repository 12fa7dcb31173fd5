"""`dlkit predict` with a run that reads texts: the class of each line, or a tag for each of its words."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dlkit import console, runtime
from dlkit.cli import lines
from dlkit.cli.lines import Failures, Line
from dlkit.errors import DataError, UsageError
from dlkit.runs import Run

STDIN = "-"


def predict_texts(models: Sequence[str], run: Run, operands: Sequence[str], *, top: int, batch_size: int) -> None:
    """Prints a row for each line: the line and its classes, or its words with their tags.

    Args:
        models: the runs or checkpoints, as they were named.
        run: the first one.
        operands: files, `-`, and texts; none for standard input.
        top: how many classes to name.
        batch_size: lines at a time.
    """
    tags = run.task == "tagging"
    if tags and top > 1:
        raise UsageError(f"--top is about classes, and {run.path} tags words", "leave it out")
    groups = _groups(operands, batch_size)
    runtime.import_tensorflow()
    from dlkit.tasks.text_classifier import Tagger, TextClassifier

    reader: Tagger | TextClassifier = Tagger(models) if tags else TextClassifier(models)
    options = {"batch_size": batch_size} if tags else {"batch_size": batch_size, "top": top}
    things, also = ("words", " and have a tag") if tags else ("tokens", "")
    failures, number = Failures(), 0
    for group in groups:
        texts = [line for line in group if not isinstance(line, DataError)]
        found: Iterator[Any] = iter(reader.answers(texts, **options) if texts else ())
        for line in group:
            number += 1
            answer, cut = (None, None) if isinstance(line, DataError) else next(found)
            if cut:
                has, read = cut
                console.warn(f"line {number} has {has:,} {things}, of which only the first {read:,} are read{also}")
            _print(number, line, answer, failures, tags=tags)
    failures.end()


def _groups(operands: Sequence[str], batch_size: int) -> Iterator[list[Line]]:
    """The lines of the operands: of a file its lines, else the operand itself.

    Raises:
        dlkit.errors.DataError: an operand is a folder, or looks like a file that is not there.
    """
    if not operands:
        return lines.groups(None, None, batch_size=batch_size)
    for operand in operands:
        path = Path(operand)
        if _is_there(operand) and path.is_dir():
            raise DataError(f"{operand} is a folder", "name files of lines, or give the texts themselves")
        if path.suffix in {".txt", ".gz", ".tsv"} and " " not in operand and not _is_there(operand):
            raise DataError(f"there is no file {operand}", "a text of one word with such an end goes to standard input")
    each = (
        lines.groups(None, None, batch_size=batch_size)
        if operand == STDIN
        else lines.groups(None, Path(operand), batch_size=batch_size)
        if _is_there(operand)
        else lines.groups([operand], None, batch_size=batch_size)
        for operand in operands
    )
    return chain.from_iterable(each)


def _is_there(operand: str) -> bool:
    """Whether an operand names a file or a folder; an empty text names none."""
    return os.path.exists(operand)  # noqa: PTH110 - Path.exists() raises for a text that is too long for a name


def _print(number: int, line: Line, answer: Any, failures: Failures, *, tags: bool) -> None:
    """One row; of a line that cannot be read an empty one, so that all keep their places."""
    as_json = console.settings.json
    if isinstance(line, DataError):
        failures.tell(line)
        if as_json:
            console.data_json({"line": number, "error": line.message})
        else:
            console.data_row([""] if tags else ["", ""])
    elif tags and as_json:
        console.data_json({"line": number, "text": line, "words": [{"word": word, "tag": tag} for word, tag in answer]})
    elif tags:
        console.data_row([" ".join(f"{word}/{tag.replace(' ', '_')}" for word, tag in answer)])
    elif as_json:
        console.data_json({"line": number, "text": line, "classes": answer})
    else:
        shares = "  ".join(f"{guess['class']} {100 * guess['probability']:.1f} %" for guess in answer)
        console.data_row([line, shares])
