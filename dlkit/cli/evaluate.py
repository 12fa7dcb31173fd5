"""`dlkit evaluate`: the loss and metrics of a run on a split."""

from typing import Annotated, Literal

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.tasks import TASKS


def evaluate(
    model: opt.Checkpoint,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    weights: Annotated[
        Literal["auto", "raw", "ema"],
        typer.Option("--weights", help="auto: the moving average when the run keeps one."),
    ] = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Does not change the result.")] = 256,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use this many examples.")] = None,
    devices: opt.Devices = "auto",
) -> None:
    """Evaluate a run on a split of its data.

    Example: dlkit evaluate runs/lenet_digits-1 --split validation
    """
    runs.open_run(model)  # before TensorFlow takes its time
    runtime.import_tensorflow()
    from dlkit.train.evaluation import evaluate_run

    result = evaluate_run(model, split=split, weights=weights, batch_size=batch_size, limit=limit, devices=devices)
    if console.settings.json:
        console.data_json(result)
        return
    task, count = TASKS[result["task"]], result["examples"]
    console.note(f"{result['checkpoint']}, {result['weights']} weights, {count:,} examples of {split}")
    rows = []
    for name in task.metrics:
        value = result[name]
        of_all = f"{round(value * count)} of {count}" if name in task.per_example else ""
        rows.append((name, f"{value:.4f}" if name == "loss" else f"{100 * value:.2f} %", of_all))
    console.table(["metric", "value", "count"], rows, right=["value", "count"])
