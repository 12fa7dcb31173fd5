"""`dlkit average`: one checkpoint whose weights are the mean of several."""

from typing import Annotated

import typer

from dlkit import console, runs
from dlkit.cli import options as opt
from dlkit.cli.live import count


def average(
    run: opt.Run,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="How many of the newest checkpoints; by default all of them.")
    ] = None,
) -> None:
    """Average the weights of the newest checkpoints of a run.

    The result is the checkpoint RUN@average. A run keeps its newest train.keep checkpoints;
    a best one that is older does not count.

    Example: dlkit average runs/transformer_multi30k-1 --last 5
    """
    opened = runs.open_run(run, whole=True)
    path, names = runs.average(opened, last)
    if console.settings.json:
        console.data_json({"checkpoint": str(path), "averaged": names})
        return
    console.data(str(path))
    console.note(f"the mean of {count(len(names), 'checkpoint')}: {', '.join(names)}")
    console.note(f"next: dlkit evaluate {opened.path}@average")
