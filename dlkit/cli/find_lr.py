"""`dlkit train --find-lr`: which learning rate to train with, before any run is made."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlkit import cluster, console, runtime
from dlkit.cli.files import new_file
from dlkit.cli.live import amount
from dlkit.errors import UsageError

if TYPE_CHECKING:
    from dlkit.recipe import Recipe
    from dlkit.train.lr_range import RangeTest

ROWS = 24  # of the table on a terminal; --json has all
HEIGHT, WIDEST = 12, 100

# Keys of [train] that a test of a few updates, each with a rate of its own, does not read.
UNREAD = (
    "epochs", "lr", "schedule", "warmup", "final_lr", "milestones", "gamma", "power", "plateau_patience", "ema",
    "monitor", "select", "patience", "evaluate_every", "decode_every", "checkpoint_every", "keep", "log_every",
    "max_time", "tensorboard",
)  # fmt: skip
ENDED = {
    "diverged": "the mean of five losses was over four times the least one",
    "not finite": "the loss or a gradient was not finite",
    "end of the range": "the range ended",
}


def find(recipe: "Recipe", *, updates: int | None, devices: str, lr_range: str | None, png: bool) -> None:
    """Tests learning rates on the data, the model and the settings of a recipe, and prints what it found.

    Args:
        recipe: a resolved recipe.
        updates: of the test; None for the usual number.
        devices: where.
        lr_range: `LOW,HIGH`; None for the usual ones.
        png: whether to draw a picture.

    Raises:
        dlkit.errors.UsageError: the recipe sets what the test has no use for, or the range is none.
    """
    if len(runtime.process().addresses) > 1:
        raise UsageError("TF_CONFIG names several processes, and --find-lr is for one", "unset it for the test")
    low, high = _limits(lr_range)
    for key, source in recipe.sources.items():
        section, _, name = key.partition(".")
        if source in {"set", "flag"} and (section == "decode" or (section == "train" and name in UNREAD)):
            hint = "`--steps` says in how many updates" if name == "epochs" else "leave it out"
            raise UsageError(f"{key} is not for --find-lr, which tries rates on training batches", hint)
    if recipe.sources.get("train.steps") == "set":
        raise UsageError("train.steps is not for --find-lr", "`--steps` says in how many updates")
    recipe = replace(recipe, train=recipe.train.model_copy(update={"ema": None, "tensorboard": False}))  # for runs
    picture = new_file(None, f"{recipe.name}_lr") if png else None
    runtime.import_tensorflow()
    from dlkit.cli.training import introduce, live_of
    from dlkit.train import start as worker
    from dlkit.train.lr_range import HIGHEST, LOWEST, UPDATES, growing, range_test

    count = UPDATES if updates is None else updates
    if count < 10:
        raise UsageError(f"--steps {count} is too few to see a loss fall and rise", "100 is a usual number")
    rates = growing(low or LOWEST, high or HIGHEST, count)
    with cluster.together() as peers:
        prepared = worker.prepare(recipe, devices=devices, peers=peers)
        cost = worker.expected(prepared)
        loop = worker.new_loop(prepared, live_of(prepared), folder=None)
        introduce(prepared, loop, cost)
        epochs = amount(count / loop.length.steps_per_epoch)
        console.note(f"test    {count:,} updates ({epochs} epochs), rates from {rates[0]:.2g} to {rates[-1]:.2g}")
        found = range_test(rates, _shown(loop.losses_at(rates), count))
    if picture:
        from dlkit.probe import lr_range as drawing
        from dlkit.probe import pictures

        title = f"{recipe.name}: loss over a growing learning rate"
        in_nats = not prepared.task.info.get("outputs")  # numbers are told with a squared error
        pictures.save(drawing.picture(found, title=title, in_nats=in_nats), picture)
    _tell(found, recipe.name, count, picture)


def _limits(text: str | None) -> tuple[float, float] | tuple[None, None]:
    """The two rates of `LOW,HIGH`."""
    if text is None:
        return None, None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--lr-range must be two numbers, not {text}", "such as `--lr-range 1e-5,1`") from None
    if not 0 < low < high < math.inf:
        raise UsageError(f"--lr-range {text}: the first rate is above 0, and the second above it", "such as `1e-5,1`")
    return low, high


def _shown(losses: Iterable[float], count: int) -> Iterator[float]:
    """The losses, with a bar on a terminal."""
    if not console.is_terminal() or console.settings.quiet:
        yield from losses
        return
    with console.progress("update 0", count) as bar:
        for number, loss in enumerate(losses, 1):
            bar.update(bar.task_ids[0], completed=number, place=f"update {number}/{count}", figures=f"loss {loss:.3g}")
            yield loss


def _tell(found: "RangeTest", name: str, count: int, picture: Path | None) -> None:
    means, suggested = found.means, found.suggestion
    if console.settings.json:
        at = {"least": found.least, "steepest": found.steepest}
        console.data_json({
            "recipe": name, "suggestion": suggested,
            **{key: None if place is None else found.rates[place] for key, place in at.items()},
            "ended": found.ended, "updates": len(means), "rates": list(found.rates), "losses": list(found.losses),
            "means": means, **({"picture": str(picture)} if picture else {}),
        })  # fmt: skip
        return
    if console.is_terminal("stdout") and not picture and len(means) > 1:
        _print_curve(found, name)
    chosen = sorted({round(place * (len(means) - 1) / (ROWS - 1)) for place in range(ROWS)} if means else ())
    columns = ["learning rate", "loss", "mean of five"]
    rows = [[f"{found.rates[at]:.2e}", f"{found.losses[at]:.4f}", f"{means[at]:.4f}"] for at in chosen]
    console.table(columns, rows, right=columns)
    console.note(f"ended after {len(means)} of {count} updates: {ENDED[found.ended]}")
    if picture:
        console.note(f"picture {picture}")
    if suggested is None or found.least is None or found.steepest is None:
        console.note("the loss has hardly fallen: no rate can be suggested; --lr-range and --steps try others")
        return
    facts = [
        ("mean loss fell most around", found.rates[found.steepest]),
        ("mean loss was least at", found.rates[found.least]),
        ("suggested, a tenth of that", suggested),
    ]
    console.data("")
    console.table(["", "learning rate"], [[what, f"{rate:.2g}"] for what, rate in facts], right=["learning rate"])
    if found.is_open:
        console.note(f"it was still falling at the end: `--lr-range {found.rates[0]:g},{100 * found.rates[-1]:g}`")
    console.note(f"next: the same command with `--lr {suggested:.2g}` in place of --find-lr")


def _print_curve(found: "RangeTest", name: str) -> None:
    from dlkit.probe.charts import lines
    from dlkit.probe.curves import Chart, Series

    series = Series(name, "training", tuple(found.rates), tuple(found.means))
    panel = Chart("loss", "loss, mean of five batches", "rate", (series,))
    for line in lines(panel, width=min(console.width("stdout"), WIDEST), height=HEIGHT):
        console.data(line)
    console.data("")
