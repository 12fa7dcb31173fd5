"""`dlkit plot`: the curves of runs, and the learning rate of a training before it begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit import console, runs
from dlkit.cli import options as opt
from dlkit.cli.files import picture_path, write_page
from dlkit.errors import UsageError

if TYPE_CHECKING:
    from dlkit.probe.curves import Chart

HEIGHT = 12  # lines of a panel on a terminal
WIDEST = 100
WORDS = 3  # columns of the table that hold no numbers


def plot(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            show_default=False,
            autocompletion=opt.complete_model_or_run,
            help="Runs, such as runs/x; with --schedule one model or run. After them, with --png or --html, the new"
            " FILE to write; by default into the run, replacing the last one, or, of several, into this folder.",
        ),
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Draw this number of the log, such as accuracy, update_ratio or img_per_second. Repeat for more; by"
            " default loss, accuracy or the like, learning rate, norm of the gradient.",
        ),
    ] = None,
    along: Annotated[
        Literal["epoch", "step", "minutes"], typer.Option("--along", help="Over what: minutes are those of training.")
    ] = "epoch",
    png: Annotated[bool, typer.Option("--png", help="Draw a picture.")] = False,
    html: opt.Html = False,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="Draw the learning rate that a training would have, before it begins.")
    ] = False,
    data: opt.Data = None,
    recipe: opt.Recipe = None,
    sets: opt.Set = None,
) -> None:
    """Draw what runs have logged: training as thin lines, validation with dots.

    On a terminal the curves are letters, a for the first run; what is best and last stands in a table below.

    Example: dlkit plot runs/plain20_cifar10-1 runs/resnet20_cifar10-1 --metric loss --png
    """  # fmt: skip
    operands, file = opt.runs_and_file(models, {".png": png, ".html": html}, verb="plot")
    if file and png and html:
        raise UsageError("one name for two files", "leave the name out, or write one at a time")
    if schedule:
        if metrics:
            raise UsageError("--schedule draws the learning rate, and no --metric", "leave one of them out")
        panels, title, folder = _planned(operands, data, recipe, sets or [], along)
    else:
        given = {"--data": data, "--recipe": recipe, "--set": sets}
        if extra := next((flag for flag, value in given.items() if value), None):
            raise UsageError(f"{extra} is about a training that has not begun", "add --schedule, or leave it out")
        from dlkit.probe.curves import charts_of

        opened = [runs.open_run(opt.with_weights(text) or text) for text in operands]
        panels = charts_of(opened, metrics or (), along=along)
        title = ", ".join(run.name for run in opened)
        folder = opened[0] if len(opened) == 1 else None
    written = {
        kind: _write(kind, panels, title, folder, file, schedule=schedule)
        for kind, wanted in (("png", png), ("html", html))
        if wanted
    }
    if console.settings.json:
        console.data_json({"panels": [_record(panel) for panel in panels], **{k: str(p) for k, p in written.items()}})
        return
    if console.is_terminal("stdout") and not written:
        _print(panels)
    columns, rows = summary(panels)
    console.table(columns, rows, right=columns[WORDS:])
    for kind, path in written.items():
        console.note(f"{'picture' if kind == 'png' else 'page':<7} {path}")


def _print(panels: Sequence["Chart"]) -> None:
    from dlkit.probe.charts import lines

    for panel in panels:
        for line in lines(panel, width=min(console.width("stdout"), WIDEST), height=HEIGHT):
            console.data(line)
        console.data("")


def summary(panels: Sequence["Chart"]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the least, the greatest and the last value of each series, behind `WORDS` columns of words."""
    from dlkit.probe.charts import tick

    columns = ["metric", "run", "part", "least", "at", "greatest", "at ", "last"]
    rows = []
    for panel in panels:
        for one in panel.series:
            least, greatest = min(one.y), max(one.y)
            where = [tick(one.x[one.y.index(value)]) for value in (least, greatest)]
            rows.append(
                [panel.title, one.run, one.part, tick(least), where[0], tick(greatest), where[1], tick(one.y[-1])]
            )
    return columns, rows


def _record(panel: "Chart") -> dict[str, Any]:
    series = [{"run": one.run, "part": one.part, "x": list(one.x), "y": list(one.y)} for one in panel.series]
    limit = {} if panel.limit is None else {"limit": panel.limit}
    return {"metric": panel.metric, "title": panel.title, "along": panel.along, **limit, "series": series}


def _write(
    kind: str, panels: Sequence["Chart"], title: str, run: runs.Run | None, file: Path | None, *, schedule: bool
) -> Path:
    from dlkit.probe import charts

    path = picture_path(run, "schedule" if schedule else "curves", file, suffix=f".{kind}")
    if kind == "png":
        from dlkit.probe import pictures

        pictures.save(charts.figure(panels, title=title), path)
        return path
    columns, rows = summary(panels)
    write_page(charts.page(panels, title=title, columns=columns, rows=rows, right=columns[WORDS:]), path)
    return path


def _planned(
    operands: Sequence[str], data: str | None, recipe: str | None, sets: list[str], along: str
) -> tuple[list["Chart"], str, runs.Run | None]:
    """The learning rate of each update of a training that has not begun, or of a run."""
    if len(operands) > 1:
        raise UsageError(f"--schedule is about one training, and here are {len(operands)}", "name one")
    if along == "minutes":
        raise UsageError("how long a training takes is not known before", "`--along step` or `--along epoch`")
    from dlkit import recipe as recipes
    from dlkit import runtime
    from dlkit.probe.curves import Chart, Series, title

    run = runs.open_run(operands[0]) if runs.is_run(operands[0]) else None
    if run is not None:
        if data or recipe or sets:
            raise UsageError(f"{operands[0]} is a run: its recipe is settled", "name a model to draw another")
        resolved = recipes.load(run.path / "recipe.toml")
    else:
        from dlkit.cli.training import resolve

        resolved = resolve(operands[0], data, recipe, sets, {})
    runtime.import_tensorflow()
    from dlkit.train.start import planned_rates

    rates, per_epoch = planned_rates(resolved, run)
    steps = range(1, len(rates) + 1)
    x = tuple(step if along == "step" else step / per_epoch for step in steps)
    name = run.name if run else resolved.name
    series = Series(name, "training", tuple(map(float, x)), tuple(rates))
    return [Chart("lr", title("lr"), "step" if along == "step" else "epoch", (series,))], f"{name}: schedule", run
