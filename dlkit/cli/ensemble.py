"""`dlkit ensemble`: trains several members, each a run of its own, and evaluates them together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.cli.files import check_picture_name, new_file, without_option
from dlkit.cli.live import count, duration
from dlkit.errors import Interrupted, UsageError, interrupted
from dlkit.tasks import TASKS
from dlkit.train.setting import Setting

if TYPE_CHECKING:
    from dlkit.recipe import Recipe

By = Literal["seeds", "bootstrap", "split", "heads"]

# Keys that `--by` settles.
SETTLED = ("train.resample", "train.part", "train.parts")


def ensemble(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", show_default=False, help="A name of `dlkit models`.", autocompletion=opt.complete_model
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.png",
            show_default=False,
            help="Where --png writes, a new file; by default ensemble.png, or else ensemble-2.png ...",
        ),
    ] = None,
    *,
    members: Annotated[int, typer.Option("--members", min=2, max=100, metavar="N", help="How many there are.")] = 5,
    by: Annotated[
        By,
        typer.Option(
            "--by",
            help="What makes members differ. seeds: first weights, order and augmentation; bootstrap: besides, each"
            " sees as many examples drawn with replacement; split: besides, each sees its own part of the examples,"
            " disjoint from the others'; heads: one net, whose last layers are there several times.",
        ),
    ] = "seeds",
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch",
            metavar="LAYER",
            help="With --by heads: the first layer that every head has for itself; by default the last with weights.",
        ),
    ] = None,
    data: opt.Data = None,
    recipe: opt.Recipe = None,
    sets: opt.Set = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Runs are called NAME-1, NAME-2, ...; by default RECIPE_BY-1, ..."),
    ] = None,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
    data_dir: opt.DataDir = None,
    on_bad: opt.OnBad = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes of each member over its data.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates of each member, instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples per update.")] = None,
    lr: opt.Lr = None,
    precision: opt.Precision = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, metavar="N", help="Seed of the first member; the others count on from it."),
    ] = None,
    limit: opt.Limit = None,
    devices: opt.Devices = "auto",
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option("--split", metavar="SPLIT", help="Evaluate on train, validation or test; by default test."),
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="Draw the members, what they make together, and how they differ.")
    ] = False,
) -> None:
    """Train an ensemble, and compare its members with their averaged probabilities and their majority vote.

    Members are runs like any others, trained one after another. The same command again trains only what is missing: a
    finished member stays as it is, one that was interrupted goes on. Any key of the recipe can be set with --set.

    Example: dlkit ensemble lenet --members 5 --by bootstrap
    """  # fmt: skip
    arguments = locals().copy()
    if file is not None and not png:
        raise without_option(file)
    check_picture_name(file)
    picture = new_file(file, "ensemble") if png else None
    if branch is not None and by != "heads":
        raise UsageError(f"--branch is for --by heads, and this is --by {by}", "leave it out")
    if len(runtime.process().addresses) > 1:
        raise UsageError(
            "TF_CONFIG names several processes, and members are trained one by one",
            "`dlkit train` trains a member with them, `dlkit evaluate --ensemble` evaluates several",
        )
    flags = opt.recipe_flags(arguments)
    recipes = member_recipes(model, data, recipe, sets or [], flags, members=members, by=by, branch=branch)
    stem = name or f"{runs.stem(recipes[0].name)}_{by}"
    trained = _train(recipes, runs_dir, stem, devices)
    if trained is None:
        return
    runtime.import_tensorflow()
    from dlkit.train.ensembles import evaluate_ensemble

    tested = trained[0].info["result"]["split"]
    setting = Setting(split=split or tested or "train", data_dir=data_dir, limit=recipes[0].train.limit)
    found = evaluate_ensemble([str(run.path) for run in trained], setting, devices=devices)
    tell(found | {"by": by}, picture=picture)


def member_recipes(
    model: str,
    data: str | None,
    recipe_path: str | None,
    sets: list[str],
    flags: Mapping[str, Any],
    *,
    members: int,
    by: By,
    branch: str | None = None,
) -> list["Recipe"]:
    """The recipe of each run: that of `dlkit train` with the same options, and what makes the members differ.

    Raises:
        dlkit.errors.UsageError: the model's task is none whose answers could be averaged, a value is wrong, or the
            recipe settles what `by` is to settle.
    """
    from dlkit.cli.training import resolve

    first = resolve(model, data, recipe_path, sets, flags)
    task = TASKS[first.task]
    if task.instead_of_ensemble:
        raise UsageError(
            f"ensembles of {task.title} are not evaluated", "`dlkit train --seed N` trains members one by one"
        )
    if by == "heads":
        return [_with_heads(first, members, branch)]
    asked = next((key for key in SETTLED if first.sources.get(key) in {"set", "flag"}), None)
    if asked and by != "seeds":
        raise UsageError(f"{asked} is what --by {by} settles", "leave it out, or take --by seeds")
    found = []
    for number in range(members):
        own: dict[str, Any] = {"train.seed": first.train.seed + number}
        if by == "bootstrap":
            own["train.resample"] = "bootstrap"
        if by == "split":
            own |= {"train.resample": "part", "train.part": number, "train.parts": members}
        found.append(resolve(model, data, recipe_path, sets, {**flags, **own}))
    return found


def _with_heads(recipe: "Recipe", heads: int, branch: str | None) -> "Recipe":
    """The recipe of a net whose last layers are there several times."""
    from dlkit.recipe import ModelSection

    if recipe.task != "image_classification" or recipe.model.name == "heads":
        what = "a net with heads already" if recipe.model.name == "heads" else f"for {TASKS[recipe.task].title}"
        raise UsageError(
            f"--by heads divides a net that classifies images, and {recipe.model.name} is {what}",
            "`--by seeds` trains several nets",
        )
    trunk = {"trunk": recipe.model.name, "heads": heads, "branch": branch, "trunk_options": recipe.model.options}
    sources = {key: source for key, source in recipe.sources.items() if not key.startswith("model.")}
    sources |= {"model.name": "flag", **{f"model.{key}": "flag" for key in trunk}}
    return replace(recipe, model=ModelSection(name="heads", options=trunk), sources=sources)


# ------------------------------------------------------------------------------------------------------------ training


def _train(recipes: Sequence["Recipe"], runs_dir: Path, stem: str, devices: str) -> list[runs.Run] | None:
    """Trains what is not trained yet, and returns the runs; None when the time was up."""
    paths = [runs_dir / f"{stem}-{number}" for number in range(1, len(recipes) + 1)]
    there = {
        path: _existing(runs_dir, f"{stem}-{number}", recipe)
        for number, (path, recipe) in enumerate(zip(paths, recipes, strict=True), 1)
    }
    from dlkit.cli.training import go_on, train_new

    for number, (path, recipe) in enumerate(zip(paths, recipes, strict=True), 1):
        run, which = there[path], f"member {number} of {len(paths)}" if len(paths) > 1 else "the net with its heads"
        if run is not None and "result" in run.info:
            console.note(f"{which}: {path} is trained")
            continue
        console.note(f"{which}: {path}")
        try:
            if run is None:
                reason = train_new(recipe, devices=devices, runs_dir=runs_dir, name=path.name, alone=False)
            else:
                reason = go_on(run, _own(run, recipe), devices=devices, alone=False)
        except Interrupted as failure:
            failure.hint = "the same command goes on"
            raise
        except KeyboardInterrupt as failure:  # before there was a run to be saved
            raise interrupted(failure, "the same command goes on") from None
        if reason == "time is up":
            console.note("the same command goes on with it")
            if console.settings.json:
                console.data_json({"members": [str(path) for path in paths], "reason": reason, "member": number})
            return None
    return [runs.open_run(path) for path in paths]


def _own(run: runs.Run, wanted: "Recipe") -> "Recipe":
    """The recipe of a run, with what may have changed since (`dlkit.cli.training.CHANGEABLE`) as it is wanted now."""
    from dlkit.recipe import load

    own, folder = load(run.path / "recipe.toml"), wanted.data.dir
    return replace(
        own,
        data=own.data.model_copy(update={"dir": folder or own.data.dir}),
        train=own.train.model_copy(update={"max_time": wanted.train.max_time}),
    )


def _existing(folder: Path, name: str, recipe: "Recipe") -> runs.Run | None:
    """The run of a member that was begun before; None when there is none.

    Raises:
        dlkit.errors.UsageError: what is there was made by another recipe, or is no run.
    """
    path = folder / name
    if not (path / "run.json").exists():
        runs.check_name(folder, name)
        return None
    runtime.import_tensorflow()
    from dlkit.cli.training import CHANGEABLE
    from dlkit.train.start import complete

    run = runs.open_run(path)
    differ = f"{path} exists and is of another training"
    hint = f"choose another --name, or remove it: `dlkit runs rm {run.shown}`"
    if run.task != recipe.task or run.recipe["model"]["name"] != recipe.model.name:
        raise UsageError(f"{differ}: it is of {run.recipe['model']['name']}", hint)
    wanted = runs.anchored(complete(recipe, run.info["model_arguments"])).to_dict()
    for section, values in wanted.items():
        own = run.recipe[section]
        for key in {**values, **own}:
            if f"{section}.{key}" not in CHANGEABLE and values.get(key) != own.get(key):
                there, here = (_told(each.get(key)) for each in (own, values))
                raise UsageError(f"{differ}: {section}.{key} is {there} there, and {here} here", hint)
    return run


def _told(value: Any) -> str:
    from dlkit.values import toml_value

    return toml_value(value).strip('"')


# --------------------------------------------------------------------------------------------------------- the result


def tell(found: Mapping[str, Any], *, picture: Path | None) -> None:
    """Prints what `evaluate_ensemble` has found, and draws it.

    Args:
        found: the result.
        picture: the file to draw into; None for no picture.
    """
    if picture:
        from dlkit.probe import ensembles, pictures

        pictures.save(ensembles.picture(found), picture)
    if console.settings.json:
        console.data_json({**found, **({"picture": str(picture)} if picture else {})})
        return
    measure = found["measure"]
    console.note(f"{found['examples']:,} examples of {found['data']}, {found['split']}")
    columns = [
        "",
        TITLES.get(measure, measure),
        "95 % interval",
        "loss",
        "parameters",
        "multiply-adds",
        "training",
        "an answer",
    ]
    rows = [[each["name"], *_figures(each, measure), *_costs(each)] for each in found["members"]]
    together, cost = _costs(found["cost"]), ["-"] * 4
    rows.append(["mean of the members", *_figures(found["mean"], measure), *cost])
    rows.append([f"best, {found['best']['name']}", *_figures(found["best"], measure), *cost])
    what = "averaged numbers" if measure == "mse" else "averaged probabilities"
    rows.append([what, *_figures(found["averaged"], measure), *together])
    if "vote" in found:
        rows.append(["majority vote", *_figures(found["vote"], measure), *together])
    console.table(columns, rows, right=columns[1:])
    for line in _remarks(found):
        console.note(line)
    if picture:
        console.note(f"picture {picture}")


TITLES = {"bleu": "BLEU"}
FORMS = {"mse": ".4f", "bleu": ".2f"}


def _figures(record: Mapping[str, Any], measure: str) -> list[str]:
    def told(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{100 * value:.2f} %" if measure in {"accuracy", "exact"} else f"{value:{FORMS[measure]}}"

    interval = record.get("interval")
    between = f"{told(interval[0]).removesuffix(' %')} to {told(interval[1])}" if interval else "-"
    loss = record.get("loss")
    return [told(record[measure]), between, "-" if loss is None else f"{loss:.4f}"]


def _costs(record: Mapping[str, Any]) -> list[str]:
    if "parameters" not in record:  # one of several heads has no cost of its own
        return ["-"] * 4
    seconds = record["training_seconds"]
    return [
        f"{record['parameters']:,}", f"{record['multiply_adds'] / 1e6:,.2f} M",
        "-" if seconds is None else duration(seconds), f"{1e3 * record['answer_seconds']:.3f} ms",
    ]  # fmt: skip


def _remarks(found: Mapping[str, Any]) -> list[str]:
    """What the figures mean, in a few sentences."""
    times = f"An answer was timed in batches of up to {found['batch_size']}."
    if "spread" in found:
        return [
            f"The members are apart by {found['spread']:.4f} (mean squared distance from their mean), which is what"
            " averaging gains: mse of the mean = mean mse - spread. A vote is for classes.",
            times,
        ]
    lines = [f"Two members differ in {100 * found['disagreement']:.2f} % of their answers on average."]
    if "vote" in found:
        lines.append(
            f"The vote was tied {count(found['vote']['ties'], 'time')}; then the class with the higher averaged"
            " probability of those tied is taken."
        )
    paired = found["against_best"]
    if "interval" in paired:
        low, high = (100 * limit for limit in paired["interval"])
        gain, test = f"{100 * paired['difference']:+.2f} % ({low:+.2f} to {high:+.2f} %)", "McNemar, exact"
    else:
        gain, test = f"{paired['difference']:+.2f} BLEU", "paired bootstrap"
    chosen = "the best was chosen on these very examples"
    whole = "" if found["averaged"]["interval"] else ", whole examples right"
    return [*lines, f"Averaged less best{whole}: {gain}, p = {paired['p_value']:.2g} ({test}); {chosen}.", times]
