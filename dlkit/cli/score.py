"""`dlkit score`: how probable a model finds given translations."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
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
    source: Annotated[
        Path | None, typer.Option("--source", metavar="FILE", help="Texts, one a line; plain or .gz.")
    ] = None,
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

    failures = lines.Failures()
    for number, found in enumerate(load(names).score(pairs, batch_size=batch_size), 1):
        if isinstance(found, DataError):  # the other pairs are still worth an answer
            failures.tell(found)
        if console.settings.json:
            console.data_json({"line": number} | _record(found))
        else:
            console.data_row(_row(found, tokens=tokens))
    failures.end()


def _pairs_of(source: Path, target: Path, batch_size: int) -> Iterator[list[Pair]]:
    sides = (lines.groups(None, path, batch_size=batch_size) for path in (source, target))
    return _side_by_side(*sides, names=(str(source), str(target)))


def _side_by_side(
    sources: Iterable[Sequence[lines.Line]], targets: Iterable[Sequence[lines.Line]], *, names: tuple[str, str]
) -> Iterator[list[Pair]]:
    """The lines of two files, whose groups are equally large until one of them ends.

    Raises:
        dlkit.errors.DataError: at the end, if one of them has more lines.
    """
    counts = [0, 0]
    for both in zip_longest(sources, targets, fillvalue=()):
        counts = [count + len(group) for count, group in zip(counts, both, strict=True)]
        yield [_pair(*sides) for sides in zip(*both, strict=False)]
    if counts[0] != counts[1]:
        raise DataError(
            f"{names[0]} has {counts[0]:,} lines but {names[1]} has {counts[1]:,}",
            "line i of one has to be the translation of line i of the other",
        )


def _pair(source: lines.Line, target: lines.Line) -> Pair:
    if isinstance(source, DataError):
        return source
    return target if isinstance(target, DataError) else (source, target)


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
        return [""] * (4 if tokens else 3)
    values = found.log_probabilities.tolist()
    row = [f"{sum(values):.4f}", f"{len(values)}", f"{sum(values) / len(values):.4f}"]
    if tokens:
        row.append(" ".join(f"{piece} {value:.2f}" for piece, value in zip(found.pieces, values, strict=True)))
    return row
