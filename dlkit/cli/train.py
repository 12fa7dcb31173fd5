"""`dlkit train`: trains a model, or goes on with a run."""

from typing import Annotated

import typer

from dlkit.cli import options as opt
from dlkit.errors import UsageError


def train(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A name of `dlkit models`.", autocompletion=opt.complete_model),
    ] = None,
    data: opt.Data = None,
    recipe: opt.Recipe = None,
    sets: opt.Set = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Go on with this run.", autocompletion=opt.complete_run),
    ] = None,
    name: opt.Name = None,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
    data_dir: opt.DataDir = None,
    on_bad: opt.OnBad = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training data.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates, instead of epochs.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Examples per update, over all devices.")
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            "--batch-tokens",
            help="Instead of --batch-size: tokens per update, at most so many on either side, padding included. A"
            " longer pair is a batch of its own.",
        ),
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Language to translate from, such as en.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Language to translate to.")] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            "--accumulate",
            help="Micro-batches per update. Saves memory and gives the same update, except that batch norm takes its"
            " statistics from each micro-batch.",
        ),
    ] = None,
    lr: opt.Lr = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", metavar="NAME", help="sgd, adam or adamw.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="NAME",
            help="constant, step, cosine, one_cycle, polynomial, inverse_sqrt, noam or plateau.",
        ),
    ] = None,
    warmup: Annotated[float | None, typer.Option("--warmup", help="Steps, or below 1 a share of all steps.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="Biases and norms do not decay.")] = None,
    label_smoothing: Annotated[float | None, typer.Option("--label-smoothing", help="Share of the target.")] = None,
    clip_norm: Annotated[float | None, typer.Option("--clip-norm", help="Largest norm of the gradient.")] = None,
    clip_value: Annotated[float | None, typer.Option("--clip-value", help="Largest entry of the gradient.")] = None,
    ema: Annotated[float | None, typer.Option("--ema", help="Decay of the moving average of the weights.")] = None,
    precision: opt.Precision = None,
    seed: opt.Seed = None,
    devices: opt.Devices = "auto",
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Train as N processes on this machine; on several machines TF_CONFIG says who they are.",
        ),
    ] = 1,
    limit: opt.Limit = None,
    max_time: Annotated[
        str | None, typer.Option("--max-time", metavar="TIME", help="Save and stop after 90s, 10m or 2h.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="RUN",
            help="Start from a run's weights; the last layer may differ.",
            autocompletion=opt.complete_run,
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option("--freeze", metavar="PATTERN", help="Do not train layers of this pattern: `stage1_*`; repeat it."),
    ] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits every time, somewhat slower.")
    ] = None,
    tensorboard: Annotated[bool | None, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, time a few steps, write nothing.")
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Train with a rate that grows until the loss diverges, say which --lr to take, and keep no run."
            " --steps says in how many updates; by default 100.",
        ),
    ] = False,
    lr_range: Annotated[
        str | None,
        typer.Option("--lr-range", metavar="LOW,HIGH", help="With --find-lr: the rates to try.  [default: 1e-7,10]"),
    ] = None,
    png: Annotated[
        bool,
        typer.Option(
            "--png", help="With --find-lr: draw the loss over the rate into RECIPE_lr.png, or else RECIPE_lr-2.png ..."
        ),
    ] = False,
) -> int:
    """Train a model, or go on with a run.

    Example: dlkit train lenet --data digits --epochs 5; dlkit train lenet --find-lr
    """
    arguments = locals().copy()
    from dlkit import workers as processes

    if workers > 1 and not processes.launcher() and not find_lr:
        return processes.train(context.find_root().obj, workers)
    given = opt.recipe_flags(arguments)
    if warmup is not None and warmup == int(warmup):
        given["train.warmup"] = int(warmup)
    of_a_run = {"--name": name, "--dry-run": dry_run, "--runs-dir": runs_dir != opt.RUNS_DIR}
    from dlkit.cli import training

    if find_lr:
        from dlkit.cli import find_lr as finder

        if other := opt.given({"--resume": resume, **of_a_run, "--workers": workers > 1}):
            raise UsageError(f"{other} is about a run, and --find-lr makes none", "leave it out")
        updates = given.pop("train.steps", None)
        asked = training.resolve(model, data, recipe, sets or [], given)
        finder.find(asked, updates=updates, devices=devices, lr_range=lr_range, png=png)
        return 0
    if only := opt.given({"--lr-range": lr_range, "--png": png}):
        raise UsageError(f"{only} is for --find-lr", "add it, or leave this out")
    if resume is not None:
        others = {"MODEL": model, "--data": data, "--recipe": recipe, "--set": sets, **of_a_run}
        training.resume(resume, given, {flag for flag, value in others.items() if value}, devices=devices)
    else:
        asked = training.resolve(model, data, recipe, sets or [], given)
        training.train_new(asked, devices=devices, runs_dir=runs_dir, name=name, dry_run=dry_run)
    return 0
