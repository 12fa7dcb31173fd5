"""What `dlkit train` does and says: the lines before, the run, the result after."""

import math
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import cluster, console, models, recipe, runs, runtime
from dlkit.cli.live import Live, amount, count, duration, metric, size
from dlkit.cluster import Peers
from dlkit.errors import DataError, UsageError, interrupted
from dlkit.tasks import TASKS

if TYPE_CHECKING:
    from dlkit.recipe import Recipe
    from dlkit.train.loop import Loop
    from dlkit.train.start import Cost, Prepared

# What may change between the attempts of a run, since it does not change the result.
CHANGEABLE = {"train.max_time", "data.dir"}


def train_new(
    resolved: "Recipe", *, devices: str, runs_dir: Path, name: str | None, dry_run: bool = False, alone: bool = True
) -> str:
    """Trains a new run of a resolved recipe, and says why it ended; see `Loop.fit`.

    Args:
        resolved: the recipe.
        devices: where.
        runs_dir: where runs lie.
        name: of the run.
        dry_run: only say what it would be.
        alone: whether the run is all that the command is about, so that it says what to do next, or its result as JSON.
    """
    if name is not None:
        runs.check_name(runs_dir, name)
    with cluster.together() as peers:
        _agree(peers, resolved)
        runtime.import_tensorflow()
        from dlkit.train import start as worker

        prepared = worker.prepare(resolved, devices=devices, peers=peers)
        cost = worker.expected(prepared)
        live = live_of(prepared)
        loop = worker.new_loop(prepared, live, folder=None if dry_run else runs_dir, name=name)
        with _resumable(loop.run):
            introduce(prepared, loop, cost)
            if dry_run:
                loop.try_out()
                console.note("dry run: nothing was written")
                if console.settings.json and peers.is_chief:
                    console.data_json({"run": None, "reason": "dry run", "recipe": prepared.recipe.to_dict()})
                return "dry run"
            with live:
                reason = loop.fit()
            _finish(prepared, loop, reason, alone=alone)
    return reason


@contextmanager
def _resumable(run: runs.Run | None) -> Iterator[None]:
    """Says how a run goes on when a signal comes outside of its loop: before the first step, or while it is tested."""
    try:
        yield
    except KeyboardInterrupt as failure:
        hint = f"`dlkit train --resume {run.shown}` goes on with the run" if run else ""
        raise interrupted(failure, hint) from failure


def resume(text: str, flags: Mapping[str, Any], others: set[str], *, devices: str) -> None:
    """Goes on with a run; model, data and settings are the run's own."""
    fixed = others | {"--" + key.partition(".")[2].replace("_", "-") for key in flags if key not in CHANGEABLE}
    if fixed:
        raise UsageError(
            f"--resume takes the recipe from the run: {', '.join(sorted(fixed))} cannot change now",
            "start a new run, with `--init-from` to keep the weights;"
            " --max-time, --data-dir, --devices and --workers may change",
        )
    run = _open(text)
    go_on(run, recipe.load(run.path / "recipe.toml", flags), devices=devices)


def go_on(run: runs.Run, resolved: "Recipe", *, devices: str, alone: bool = True) -> str:
    """Goes on with a run by its own recipe, and says why it ended. The other arguments are those of `train_new`."""
    with cluster.together() as peers, _resumable(run):
        _agree(peers, resolved)
        runs.check_data(run)
        runtime.import_tensorflow()
        from dlkit.train import start as worker

        prepared = worker.prepare(resolved, devices=devices, run=run, peers=peers)
        cost = worker.expected(prepared)
        live = live_of(prepared)
        loop = worker.resumed_loop(run, prepared, live)
        live.done = loop.progress.step
        introduce(prepared, loop, cost)
        if loop.finished:
            console.note("nothing is left to train: the run is complete")
            peers.say_goodbye()
            reason = loop.finished
        else:
            with live:
                reason = loop.fit()
        _finish(prepared, loop, reason, alone=alone)
    return reason


def _open(text: str) -> runs.Run:
    try:
        run = runs.open_run(text, whole=True)
    except DataError as failure:
        here = runtime.process()
        if here.is_chief:
            raise
        raise DataError(
            f"{here.names[here.rank]} does not see the run: {failure.message}",
            "all machines need the run on a file system that they share",
        ) from None
    if run.is_bundle:
        raise UsageError(
            f"{text} is a bundle: weights, and no state to go on from",
            f"`--init-from {shlex.quote(text)}` begins a run with them",
        )
    return run


def _agree(peers: Peers, resolved: "Recipe") -> None:
    """Only the chief speaks, and all of them train the same."""
    console.settings.silent = not peers.is_chief
    console.settings.quiet |= console.settings.silent  # no bars either
    keys = {
        f"{section}.{key}": value
        for section, values in resolved.to_dict().items()
        for key, value in values.items()
        if f"{section}.{key}" not in CHANGEABLE
    }
    peers.agree(keys, "start all processes with the same command")


def resolve(
    model: str | None, data: str | None, recipe_path: str | None, sets: list[str], flags: Mapping[str, Any]
) -> "Recipe":
    """The recipe of a new training.

    Raises:
        dlkit.errors.UsageError: the operand is a file or a run, or a value of the recipe is wrong.
    """
    # Not Path.is_file(), which raises for a word that is too long for a name.
    if model is not None and model not in models.targets() and os.path.isfile(model):  # noqa: PTH113
        hint = f"`dlkit train --recipe {shlex.quote(model)}` trains what a recipe says"
        raise UsageError(f"{model} is a file, not the name of a model", hint)
    if model is not None and runs.is_run(model):
        run = shlex.quote(model)
        raise UsageError(
            f"{model} is a run, not the name of a model",
            f"`dlkit train --resume {run}` goes on with it; `--init-from {run}` starts a new run from its weights",
        )
    if model in recipe.names() and model not in models.targets():
        of = recipe.read(recipe.find(model))["model"]["name"]
        raise UsageError(f"{model} is a recipe, not the name of a model", f"`dlkit train {of} --recipe {model}`")
    overrides = [(*recipe.parse_override(text), "set") for text in sets]
    return recipe.resolve(model, data, recipe_path=recipe_path, overrides=overrides, flags=flags)


def live_of(prepared: "Prepared") -> Live:
    """What shows a training while it runs."""
    from dlkit.train.loop import length_of

    length = length_of(prepared.recipe.train, prepared.task)
    metrics = list(TASKS[prepared.recipe.task].metrics)
    live = Live(steps=length.steps, steps_per_epoch=length.steps_per_epoch, metrics=metrics)
    prepared.peers.before_the_end = live.__exit__
    return live


def introduce(prepared: "Prepared", loop: "Loop", cost: "Cost") -> None:
    """The first lines: recipe, run, data, model, device. The steps and their time follow when a few are done."""
    resolved, model = prepared.recipe, prepared.model
    rows = [("recipe", resolved.origin)]
    if loop.run:
        attempt = loop.progress.attempt
        again = f" (attempt {attempt}, from step {loop.progress.step:,}; like an uninterrupted run"
        again += f" {loop.run.info['resumes']})"
        rows.append(("run", f"{loop.run.path}{again if attempt > 1 else ''}"))
    rows.append(("data", prepared.task.describe()))
    rows += [("", remark) for remark in prepared.task.remarks()]
    if prepared.task.resampling:
        rows.append(("", prepared.task.resampling.describe(prepared.task.size("train"))))
    trained = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    counts = f"{model.count_params():,} parameters, {cost.multiply_adds / 1e6:,.2f} M multiply-adds an example"
    if trained != model.count_params():
        counts += f", {trained:,} of them trained"
    rows.append(("model", f"{resolved.model.name}, {counts}"))
    described = f"{prepared.devices.description}, {resolved.train.precision}"
    rows.append(("device", f"{described}; model, optimizer and activations take about {size(cost.memory)}"))
    length = loop.length
    rows.append(("steps", f"{count(length.epochs, 'epoch')} x {length.steps_per_epoch:,} = {length.steps:,}"))
    console.labelled(rows)


def _finish(prepared: "Prepared", loop: "Loop", reason: str, *, alone: bool) -> None:
    """The result on the test split with the best weights, and what to do next."""
    run = loop.run
    if run is None:
        return
    if reason == "time is up":
        console.note(f"time is up after step {loop.progress.step:,}: `dlkit train --resume {run.shown}` goes on")
        if console.settings.json and alone:
            console.data_json({"run": str(run.path), "reason": reason, "steps": loop.progress.step})
        return
    steps = loop.progress.step
    result = loop.test()
    if console.settings.json and alone:
        console.data_json({"run": str(run.path), "reason": reason, "steps": steps, **result})
        return
    if reason != "done":
        console.note(f"{reason} after step {steps:,}")
    if result["split"]:
        figures = result["metrics"]
        examples, counted = prepared.task.size(result["split"]), TASKS[prepared.recipe.task].per_example
        shares = [
            f"{name} {100 * figures[name]:.1f} % ({round(figures[name] * examples)} of {examples})"
            if name in counted
            else metric(name, figures[name])
            for name in sorted(figures, key=lambda name: name not in counted)
        ]
        which = f"the best weights, epoch {amount(result['epoch'])}" if result["best"] else "the last weights"
        console.note(
            f"{result['split']} {', '.join(shares)} with {which}; {duration(loop.progress.seconds)} of training"
        )
    if not alone:
        return
    path = run.shown
    has_maps = any(len(variable.shape) == 4 for variable in prepared.model.variables)
    look = TASKS[prepared.recipe.task].look.format(run=path, view="features" if has_maps else "activations")
    other = "validation" if loop.validation else "train"
    split = "" if result["split"] else f" --split {other}"
    console.note(f"next: dlkit evaluate {path}{split} | {look} | dlkit runs show {path}")
