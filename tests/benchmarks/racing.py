"""Contenders that race: each is a process that holds its model and waits; medians and ratios of what they reach."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO


def answers() -> TextIO:
    """Where a contender answers: what stdout was, which a library's prints no longer reach."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def serve(out: TextIO, work: Callable[[int], float], *, parameters: int | None = None) -> None:
    """Says that a contender is ready, and for each number on stdin prints what its work of so many times gave.

    Args:
        out: where it answers.
        work: does so many times what is raced for.
        parameters: how many of its model are trained.
    """
    print("ready", "" if parameters is None else parameters, file=out, flush=True)
    for line in sys.stdin:
        print(work(int(line)), file=out, flush=True)


def start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A contender, which `await_ready` waits for."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def await_ready(name: str, process: subprocess.Popen[str]) -> str:
    """Waits until a contender can begin, and returns how many parameters it trains; ends the race where it cannot."""
    said = process.stdout.readline().split() if process.stdout else []
    if said[:1] != ["ready"]:
        sys.exit(f"{name} did not start: {process.args}")
    return " ".join(said[1:])


def check_alike(parameters: Mapping[str, str]) -> None:
    """Ends a race whose contenders do not all train as many parameters.

    Args:
        parameters: of each contender, as `await_ready` returns them.
    """
    if len(set(parameters.values())) > 1:
        sys.exit(f"the models differ: {', '.join(f'{name} has {count}' for name, count in parameters.items())}")


def ask(process: subprocess.Popen[str], times: int) -> float:
    """What a contender answers when it has worked so many times."""
    assert process.stdin is not None and process.stdout is not None
    print(times, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def in_turn(processes: Mapping[str, subprocess.Popen[str]], number: int) -> Iterable[str]:
    """The names in the order of a round, which is turned round from round to round."""
    return processes if number % 2 == 0 else reversed(list(processes))


def report(
    speeds: Mapping[str, Sequence[float]], ratios: Iterable[tuple[str, str, float | None]], *, width: int
) -> None:
    """Prints the medians over the rounds, and as ratios the median over the rounds of the quotients.

    Args:
        speeds: of each contender in each round.
        ratios: whose speed by whose, and what is to be reached.
        width: of the column of names.
    """
    for name, values in speeds.items():
        print(f"  {name:{width}}{statistics.median(values):8.0f}   ({min(values):.0f} to {max(values):.0f})")
    for ours, theirs, goal in ratios:
        if ours in speeds and theirs in speeds:
            ratio = statistics.median(a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True))
            print(f"  {ours} / {theirs}: {ratio:.2f}x" + (f"   (to reach: {goal}x)" if goal else ""))
