"""`dlkit runs`: list, show, compare and remove what was trained."""

import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.cli.grammar import App

if TYPE_CHECKING:
    from dlkit.runs import Run

app = App("List, show, compare and remove runs.")


def list_(runs_dir: opt.RunsDir = opt.RUNS_DIR) -> None:
    """List the runs, the newest first.

    Example: dlkit runs list --runs-dir runs
    """
    from dlkit import runs

    found = [_line(run) for run in runs.list_runs(runs_dir)]
    if console.settings.json:
        console.data_json(found)
        return
    if not found:
        console.note(f"no runs in {runs_dir}: `dlkit train lenet` makes one")
        return
    columns = ["run", "model", "data", "step", "monitored", "best", "parameters", "begun"]
    rows = [[line[column] if column != "best" else _figure(line["best"]) for column in columns] for line in found]
    console.table(columns, rows, right=["step", "best", "parameters"])


def _line(run: "Run") -> dict[str, Any]:
    """What the list says of a run."""
    from dlkit.train import checkpoints

    values, (monitor, direction) = run.monitored(), run.monitor
    checkpoint = run.pointer("best")
    choose = min if direction == "lower" else max
    best = values.get(checkpoints.step_of(checkpoint)) if checkpoint else choose(values.values(), default=None)
    begun = (run.path / "recipe.toml").stat().st_mtime
    return {
        "run": str(run.path),
        "task": run.task,
        "model": run.recipe["model"]["name"],
        "data": run.recipe["data"]["name"],
        "step": max((line["step"] for line in run.metrics()), default=0),
        "monitored": monitor,
        "best": best,
        "parameters": run.info.get("parameters"),
        "checkpoints": run.checkpoints(),
        "begun": datetime.datetime.fromtimestamp(begun).isoformat(sep=" ", timespec="minutes"),
    }


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"


def show(run: opt.Run) -> None:
    """Show a run: how it was made, its recipe and where each value came from, its evaluations.

    Example: dlkit runs show runs/lenet_digits-1
    """
    from dlkit import runs

    opened = runs.open_run(run, whole=True)
    if console.settings.json:
        content = {"recipe": opened.recipe, "info": opened.info, "metrics": opened.metrics()}
        console.data_json({**_line(opened), **content})
        return
    facts = {**_line(opened), **opened.info}
    facts["checkpoints"] = opened.checkpoints_and_average()
    for name in ("run", "task", "begun", "command", "devices", "parameters", "checkpoints", "versions"):
        console.data(f"{name:<12} {_words(facts.get(name))}")
    console.data("")
    for line in (opened.path / "recipe.toml").read_text(encoding="utf-8").splitlines():
        console.data(line)
    evaluations = [line for line in opened.metrics() if line.get("kind") == "evaluation"]
    if evaluations:
        console.data("")
        columns = list(dict.fromkeys(key for line in evaluations for key in line if key not in _NOT_SHOWN))
        rows = [[_words(line.get(column)) for column in columns] for line in evaluations]
        console.table(columns, rows, right=[column for column in columns if column not in {"split", "weights"}])


_NOT_SHOWN = {"schema", "kind", "attempt"}


def _words(value: Any) -> str:
    match value:
        case None:
            return ""
        case dict():
            return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
        case list():
            return " ".join(_words(item) for item in value)
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def diff(first: opt.Run, second: opt.Run) -> None:
    """Show the values in which the recipes of two runs differ.

    Example: dlkit runs diff runs/lenet_digits-1 runs/lenet_digits-2
    """
    from dlkit import recipe, runs
    from dlkit.values import toml_value

    paths = [runs.open_run(text, whole=True).path for text in (first, second)]
    ours, theirs = (recipe.load(path / "recipe.toml") for path in paths)
    found = ours.diff(theirs)
    if console.settings.json:
        sides = ours.to_dict(), theirs.to_dict()
        console.data_json({key: [_plain(side, key) for side in sides] for key in found})
        return
    if not found:
        console.note("the recipes are the same")
        return
    rows = [(key, *(None if value is None else toml_value(value) for value in found[key])) for key in found]
    console.table(["key", str(paths[0]), str(paths[1])], rows)


def _plain(content: dict[str, dict[str, Any]], key: str) -> Any:
    section, name = key.split(".", 1)
    return content[section].get(name)


def rm(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", show_default=False, autocompletion=opt.complete_run, help="Runs to delete."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete runs with all their checkpoints.

    Example: dlkit runs rm runs/lenet_digits-1
    """
    from dlkit import runs
    from dlkit.errors import UsageError

    opened = [runs.open_run(text, whole=True) for text in run]
    found = list({each.path.absolute(): each for each in opened}.values())
    names = ", ".join(str(each.path) for each in found)
    if not yes:
        if not console.is_terminal("stdin"):
            raise UsageError(f"nobody to ask whether to delete {names}", "add --yes")
        if not typer.confirm(f"delete {console.safe(names)}?", err=True):
            return
    for each in found:  # all or none: a run that is being trained keeps the others too
        runs.lock(each)
    for each in found:
        runs.remove(each)
        console.note(f"deleted {each.path}")
    if console.settings.json:
        console.data_json({"deleted": [str(each.path) for each in found]})


app.add(list_)
app.add(show)
app.add(diff)
app.add(rm)
