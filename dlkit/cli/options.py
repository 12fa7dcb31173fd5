"""Operands and options that several commands share, and what the shell proposes for them. Loads no TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlkit import console, runs
from dlkit.cli.files import without_option
from dlkit.errors import UsageError

RUNS_DIR = runs.DEFAULT_FOLDER

# -------------------------------------------------------------------------------------------------------- completion


def complete_model(incomplete: str) -> list[str]:
    """Model names that begin so."""
    from dlkit import models

    return _beginning(incomplete, models.names())


def complete_data(incomplete: str) -> list[str]:
    """Dataset names that begin so: ours, the image sets of TensorFlow Datasets, and what lies prepared."""
    from dlkit import data
    from dlkit.data import tfds_names

    prepared = tfds_names.prepared(tfds_names.data_dir())
    return _beginning(incomplete, list(dict.fromkeys([*data.names(), *tfds_names.image_names(), *prepared])))


def complete_recipe(incomplete: str) -> list[str]:
    """Names of shipped recipes that begin so."""
    from dlkit import recipe

    return _beginning(incomplete, recipe.names())


def complete_run(incomplete: str) -> list[str]:
    """Run folders that begin so, and after an @ their checkpoints: runs/x, runs/x@best, runs/x@step-1200."""
    run, at, _ = incomplete.partition("@")
    if at:
        kept = (path.name for path in Path(run).glob("checkpoints/step-*"))
        steps = sorted(kept, key=lambda name: (len(name), name))
        average = ["average"] if (Path(run) / "checkpoints" / "average").is_dir() else []
        return _beginning(incomplete, [f"{run}@{which}" for which in ["best", "last", *average, *steps]])
    folder = Path(incomplete).parent if "/" in incomplete else RUNS_DIR
    found = [str(path.parent) for path in folder.glob("[!.]*/run.json")]
    found += [path.parent.name for path in runs.SHIPPED_FOLDER.glob("*/run.json")]
    return _beginning(incomplete, sorted(found))


def complete_model_or_run(incomplete: str) -> list[str]:
    """Model names, runs and checkpoints that begin so."""
    return complete_model(incomplete) + complete_run(incomplete)


def complete_override(incomplete: str) -> list[str]:
    """Keys of a recipe that begin so, each with its equals sign."""
    from dlkit import recipe

    return _beginning(incomplete, [f"{key}=" for key in recipe.all_keys()])


def _beginning(incomplete: str, words: list[str]) -> list[str]:
    """The words that begin so; a file name with control characters is never handed to a shell."""
    return [word for word in words if word.startswith(incomplete) and console.safe(word) == word]


def with_weights(text: str | None) -> str | None:
    """Lets runs and checkpoints pass; the bare name of a model has no weights."""
    from dlkit import models

    if text in models.names() and not runs.is_run(text):
        raise UsageError(f"{text} is a model without weights", f"train it, then name its run, such as runs/{text}_x-1")
    return text


def all_with_weights(texts: list[str] | None) -> list[str] | None:
    """`with_weights` of each."""
    for text in texts or []:
        with_weights(text)
    return texts


# ----------------------------------------------------------------------------------------------------------- operands

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", show_default=False, autocompletion=complete_model_or_run,
        help="A name of `dlkit models`, a run (runs/x) or a checkpoint (runs/x@best, @last, @step-1200).",
    ),
]  # fmt: skip
Run = Annotated[
    str, typer.Argument(metavar="RUN", show_default=False, autocompletion=complete_run, help="A run, such as runs/x.")
]
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, autocompletion=complete_run, callback=with_weights,
        help="A run (runs/x: its best weights) or a checkpoint (runs/x@last, runs/x@step-1200).",
    ),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------------ options

Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="NAME", autocompletion=complete_data,
        help="A name, a folder of images or of train.en, train.de, two files x.en,x.de, or a table pairs.tsv.",
    ),
]  # fmt: skip
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Where prepared data lies.")]
OnBad = Annotated[
    str | None,
    typer.Option("--on-bad", metavar="WHAT", help="At an image file that cannot be read: error (stop) or skip."),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe", metavar="RECIPE", autocompletion=complete_recipe, help="A name of `dlkit recipes list`, or a file."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", autocompletion=complete_override,
        help="Change a value of the recipe, such as model.norm=none. Repeat for more.",
    ),
]  # fmt: skip
NewestModels = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="RUN", autocompletion=complete_run, callback=all_with_weights,
        help="A run or a checkpoint; by default the newest run of the task. Repeat it for an ensemble.",
    ),
]  # fmt: skip
RunModels = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="RUN", autocompletion=complete_run, callback=all_with_weights,
        help="A run or a checkpoint; by default the one that ships with dlkit. Repeat it for an ensemble.",
    ),
]  # fmt: skip
RunsDir = Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="Where runs lie.")]
NewestIn = Annotated[
    Path | None, typer.Option("--runs-dir", metavar="DIR", help="Take the newest run of this folder, such as runs.")
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The run's name; by default the recipe's and a number.")
]
Devices = Annotated[
    str, typer.Option("--devices", metavar="WHICH", help="auto, cpu, gpu, gpu:N, or cpu:N for the CPU as N devices.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, metavar="N", help="Seed of all that is drawn; default: the recipe's, or 0."),
]

# What of a recipe a training changes; see `KEYS`.
Lr = Annotated[float | None, typer.Option("--lr", help="Highest learning rate.")]
Precision = Annotated[str | None, typer.Option("--precision", metavar="NAME", help="float32, bfloat16 or float64.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Use this many examples of each split.")]

# How translations are searched for; what is not given is what the run's recipe says.
Beam = Annotated[
    int | None,
    typer.Option(
        "--beam", min=1, metavar="N", help="Prefixes kept in the search, 1 for greedy; default: the recipe's."
    ),
]
LengthNorm = Annotated[
    Literal["avg", "gnmt", "none"] | None,
    typer.Option(
        "--length-norm",
        help="Outputs of length L are compared by log-probability / L (avg), / ((5 + L) / 6)^alpha (gnmt), or as they"
        " are (none); L counts the end token. Default: the recipe's.",
    ),
]
Alpha = Annotated[float | None, typer.Option("--alpha", min=0, help="Exponent of gnmt; default: the recipe's.")]
MaxLen = Annotated[
    int | None,
    typer.Option(
        "--max-len", min=1,
        help="Most tokens of an output; cut to 1,000, or to the model's positions. Default: the recipe's.",
    ),
]  # fmt: skip

# How tokens are drawn; what is not given draws from the model's own distribution.
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="Below 1, likely tokens get likelier.  [default: 1]")
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Draw from the k most probable tokens.")]
TopP = Annotated[
    float | None, typer.Option("--top-p", max=1, help="Draw from those that make up this probability, above 0.")
]
SampleSeed = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of what --sample draws.  [default: 0]")
]

# What answers are made from, and where they and pictures go.
ImagesAtATime = Annotated[
    int, typer.Option("--batch-size", min=1, help="Images at a time; 1 answers each line of standard input at once.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file, complete or not at all.")
]
Png = Annotated[bool, typer.Option("--png", help="Draw a picture as well.")]
Html = Annotated[bool, typer.Option("--html", help="Write a page that a browser shows without a network.")]

# ------------------------------------------------------------------------------------------------------------- inputs

# Options that are aliases of recipe keys: parameter of the command -> key.
KEYS = {
    "data_dir": "data.dir", "epochs": "train.epochs", "steps": "train.steps", "batch_size": "train.batch_size",
    "batch_tokens": "train.batch_tokens", "source": "data.source", "target": "data.target",
    "accumulate": "train.accumulate", "lr": "train.lr", "optimizer": "train.optimizer", "schedule": "train.schedule",
    "warmup": "train.warmup", "weight_decay": "train.weight_decay", "label_smoothing": "train.label_smoothing",
    "clip_norm": "train.clip_norm", "clip_value": "train.clip_value", "ema": "train.ema",
    "precision": "train.precision", "seed": "train.seed", "limit": "train.limit", "max_time": "train.max_time",
    "deterministic": "train.deterministic", "tensorboard": "train.tensorboard", "init_from": "train.init_from",
    "freeze": "train.freeze", "on_bad": "data.on_bad",
}  # fmt: skip


def recipe_flags(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The values that options give to keys of the recipe, by the keys.

    Args:
        arguments: parameter of the command -> its value; those that stand for no key are left out.

    Example:
        >>> recipe_flags({"lr": 0.1, "epochs": None, "model": "lenet"})
        {'train.lr': 0.1}
    """
    return {key: arguments[name] for name, key in KEYS.items() if arguments.get(name) not in (None, [])}


def given(flags: Mapping[str, Any]) -> str | None:
    """The first option with a value, if there is any."""
    return next((flag for flag, value in flags.items() if value is not None and value is not False), None)


def runs_and_file(texts: list[str], wanted: Mapping[str, bool], *, verb: str) -> tuple[list[str], Path | None]:
    """Divides operands into runs and the file, the last one, that is to be written.

    Args:
        texts: the operands.
        wanted: suffix of such a file, `.png` or `.html` -> whether the option of that name is given.
        verb: the command.

    Raises:
        dlkit.errors.UsageError: a file without its option, or without a run.
    """
    *others, last = texts
    suffix = Path(last).suffix.lower()
    if suffix not in wanted or (Path(last) / "run.json").exists():
        return texts, None
    if not wanted[suffix]:
        raise without_option(Path(last), f"--{suffix[1:]}")
    if not others:
        raise UsageError("RUN is missing", f"`dlkit {verb} --help` shows how")
    return others, Path(last)


def runs_or_newest(models: list[str] | None, task: str, runs_dir: Path | None) -> list[str]:
    """The runs that were named; else the newest run of a task in a folder, which is then told.

    Raises:
        dlkit.errors.UsageError: runs are named, and a folder besides.
        dlkit.errors.DataError: there is no run of the task in the folder.
    """
    if models and runs_dir:
        raise UsageError("--runs-dir takes the newest run, and --model names one", "give one of them")
    if models:
        return models
    run = runs.newest(task, runs_dir or RUNS_DIR)
    console.note(f"model   {run.path} (the newest run)")
    return [str(run.path)]


def runs_or_shipped(models: list[str] | None, task: str, runs_dir: Path | None) -> list[str]:
    """The runs that were named; else the newest of a folder, or without one the run that ships, which is then told.

    Raises:
        dlkit.errors.UsageError: runs are named, and a folder besides.
        dlkit.errors.DataError: there is no run of the task in the folder.
    """
    run = None if models or runs_dir else runs.shipped(task)
    if run is None:
        return runs_or_newest(models, task, runs_dir)
    console.note(f"model   {run.name}, which ships with dlkit")
    return [run.name]
