"""`dlkit search`: looks for good hyperparameters, with a training for each trial."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlkit import runtime
from dlkit.cli import options as opt
from dlkit.errors import UsageError

TRIALS = 20


def _complete_operand(incomplete: str) -> list[str]:
    return opt.complete_model(incomplete) + opt.complete_override(incomplete)


def search(
    context: typer.Context,
    operands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [KEY=SPACE...]",
            show_default=False,
            autocompletion=_complete_operand,
            help="A name of `dlkit models`, and the keys of the recipe to search, each with its space:"
            " train.lr=log:1e-4..1e-1, model.dropout=0..0.5, model.width=int:16..512 (int:log: for a logarithmic one),"
            " train.batch_size={64,128}; with /5 at its end a range is a grid of five points.",
        ),
    ] = None,
    data: opt.Data = None,
    recipe: opt.Recipe = None,
    sets: opt.Set = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with the search of this folder, or join it while another process works on it; shows the"
            " results of one that is done.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=1,
            metavar="N",
            help=f"Trials in all, over all rounds and processes; {TRIALS} by default, with a grid as many as it has.",
        ),
    ] = None,
    sampler: Annotated[
        Literal["random", "grid", "tpe"] | None,
        typer.Option(
            "--sampler",
            help="How values are chosen: at random (Bergstra and Bengio 2012), all of a grid, or where good ones were"
            " (tree-structured Parzen estimator). By default random, or grid where a range has points.",
        ),
    ] = None,
    refine: Annotated[
        int,
        typer.Option(
            "--refine",
            min=0,
            metavar="N",
            help="From coarse to fine: the trials are shared out among one round in the whole space and N finer ones."
            " From round to round every range gets half as wide, on its own scale, about the best trial so far (within"
            " the whole range), and the better half of the choices stays.",
        ),
    ] = 0,
    prune: Annotated[
        Literal["median", "halving", "none"],
        typer.Option(
            "--prune",
            help="Stop a trial after its first look when its best value is worse than the median of the complete trials"
            " at that time; or unless it is among the best third of those that got so far, then again after three"
            " times as long (successive halving); or never. A trial that is stopped is a run that can be resumed.",
        ),
    ] = "median",
    first_look: Annotated[
        int,
        typer.Option(
            "--first-look",
            min=1,
            metavar="N",
            help="Evaluations before a trial may be stopped; there is one an epoch, or each train.evaluate_every.",
        ),
    ] = 1,
    jobs: Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Trials at a time in this process.")] = 1,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", metavar="TIME", help="Save and stop after 90s, 10m or 2h; --resume goes on."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="PLACE",
            help="Where the trials are kept instead of in the search's folder: a file, or the URL of a database such as"
            " postgresql://user@host/name. Start the same command on several machines with one storage, and they share"
            " the trials.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The search's name; by default the recipe's, search and a number."),
    ] = None,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
    data_dir: opt.DataDir = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training data of a trial.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates of a trial, instead of epochs.")] = None,
    limit: opt.Limit = None,
    devices: opt.Devices = "auto",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the values that are drawn; that of trainings is train.seed.")
    ] = 0,
    png: Annotated[
        bool,
        typer.Option(
            "--png",
            help="Draw what matters how much, and each key against the score, into the folder, in place of the picture"
            " before.",
        ),
    ] = False,
) -> int:
    """Search for good hyperparameters: a training for each trial, in a process of its own.

    Trials are compared by the metric that the recipe monitors, at its best on the validation split; the test split
    chooses nothing. Each trial is a run in the search's folder, which `runs show`, `plot` and `evaluate` know.

    Example: dlkit search lenet --data digits train.lr=log:1e-4..1e-1 train.batch_size={32,128} --epochs 3
    """  # fmt: skip
    if len(runtime.process().addresses) > 1:
        raise UsageError(
            "TF_CONFIG names several processes, and each trial is trained by one",
            "unset it; with --storage, or --resume on a shared folder, several machines share the trials",
        )
    from dlkit.cli import searching

    options = searching.Options(
        jobs=jobs, devices=devices, png=png, seconds=None if time_limit is None else searching.seconds_of(time_limit)
    )
    if resume is not None:
        others = {
            "operands": "MODEL or KEY=SPACE", "data": "--data", "recipe": "--recipe", "sets": "--set",
            "sampler": "--sampler", "refine": "--refine", "prune": "--prune", "first_look": "--first-look",
            "name": "--name", "runs_dir": "--runs-dir", "data_dir": "--data-dir", "epochs": "--epochs",
            "steps": "--steps", "limit": "--limit", "seed": "--seed",
        }  # fmt: skip
        sources = {flag: context.get_parameter_source(key) for key, flag in others.items()}
        if given := [flag for flag, source in sources.items() if source is not None and source.name == "COMMANDLINE"]:
            raise UsageError(
                f"--resume takes all from the search: {', '.join(given)} cannot change now",
                "--trials, --jobs, --time-limit, --devices and --png may; begin another search for the rest",
            )
        return searching.resume(resume, options, trials=trials, storage=storage)
    question = searching.Question(
        operands=operands or [], data=data, recipe=recipe, sets=sets or [], data_dir=data_dir, epochs=epochs,
        steps=steps, limit=limit, trials=trials, sampler=sampler, refine=refine, prune=prune, first_look=first_look,
        seed=seed,
    )  # fmt: skip
    return searching.begin(question, options, runs_dir=runs_dir, name=name, storage=storage)
