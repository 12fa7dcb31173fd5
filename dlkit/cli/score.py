"""`dlkit score`: how probable a model finds given translations."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit import console, runs, runtime
from dlkit.cli import lines
from dlkit.cli import options as opt
from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from dlkit.tasks.translator import Scored

Pair = tuple[str, str] | DataError


def score(
    source: Annotated[Path | None, typer.Option("--source", metavar="FILE", help="Texts, one a line.")] = None,
    target: Annotated[Path | None, typer.Option("--target", metavar="FILE", help="Their translations.")] = None,
    model: opt.RunModels = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print each token with its log-probability.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pairs at a time.")] = 32,
    runs_dir: opt.NewestIn = None,
) -> None:
    """Say how probable a model finds given translations.

    For each pair it prints the log-probability, the number of tokens with the end token, and the log-probability of a
    token on average. Without files, each line of standard input is a text, a tab and its translation.

    Example: dlkit score --source test.fr --target test.en
    """
    if (source is None) != (target is None):
        raise UsageError("--source and --target go together", "give both files, or none for standard input")
    names = opt.runs_or_shipped(model, "translation", runs_dir)
    for name in names:
        runs.open_run(name)  # before TensorFlow takes its time
    pairs = _pairs_of(source, target, batch_size) if source and target else _typed_pairs(batch_size)
    runtime.import_tensorflow()
    from dlkit.tasks.translator import load

    failed = None
    for number, found in enumerate(load(names).score(pairs, batch_size=batch_size), 1):
        if isinstance(found, DataError):  # the other pairs are still worth an answer
            failed = found
            console.error(found)
        if console.settings.json:
            console.data_json({"line": number} | _record(found))
        else:
            console.data_row(_row(found, tokens=tokens))
    if failed:
        raise typer.Exit(failed.code)


def _pairs_of(source: Path, target: Path, batch_size: int) -> Iterator[list[Pair]]:
    """The lines of two files, which must be as many."""
    from dlkit.data.parallel import read_both

    texts = read_both(source, target)
    for start in range(0, len(texts), batch_size):
        chosen = slice(start, start + batch_size)
        yield list(zip(texts.source[chosen], texts.target[chosen], strict=True))


def _typed_pairs(batch_size: int) -> Iterator[list[Pair]]:
    before = 0
    for group in lines.groups(None, None, batch_size=batch_size):
        yield [_parted(line, number) for number, line in enumerate(group, before + 1)]
        before += len(group)


def _parted(line: lines.Line, number: int) -> Pair:
    if isinstance(line, DataError):
        return line
    cells = line.split("\t")
    if len(cells) != 2:
        return DataError(f"line {number} has {len(cells) - 1} tabs, not 1", "a tab parts a text and its translation")
    return cells[0], cells[1]


def _record(found: "Scored | DataError") -> dict[str, Any]:
    if isinstance(found, DataError):
        return {"error": found.message}
    values = found.log_probabilities.tolist()
    return {
        "log_probability": sum(values),
        "mean": sum(values) / len(values),
        "tokens": [{"token": piece, "log_probability": v} for piece, v in zip(found.pieces, values, strict=True)],
    }


def _row(found: "Scored | DataError", *, tokens: bool) -> list[str]:
    if isinstance(found, DataError):
        return ["", "", ""]
    values = found.log_probabilities.tolist()
    row = [f"{sum(values):.4f}", f"{len(values)}", f"{sum(values) / len(values):.4f}"]
    if tokens:
        row.append(" ".join(f"{piece} {value:.2f}" for piece, value in zip(found.pieces, values, strict=True)))
    return row
