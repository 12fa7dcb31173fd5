"""`dlkit average`: one checkpoint whose weights are the mean of several."""

from typing import Annotated

import typer

from dlkit import console, runs
from dlkit.cli import options as opt


def average(
    run: opt.Run,
    last: Annotated[int, typer.Option("--last", min=1, help="How many of the newest checkpoints.")] = 5,
) -> None:
    """Average the weights of the last checkpoints of a run.

    The result is the checkpoint RUN@average. A run keeps train.keep checkpoints, one
    every train.checkpoint_every steps.

    Example: dlkit average runs/transformer_multi30k-1 --last 10
    """
    opened = runs.open_run(run, whole=True)
    path, names = runs.average(opened, last)
    if console.settings.json:
        console.data_json({"checkpoint": str(path), "averaged": names})
        return
    console.data(str(path))
    span = f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
    console.note(f"the mean of {len(names)} checkpoints, {span}")
    console.note(f"next: dlkit evaluate {opened.path}@average")
