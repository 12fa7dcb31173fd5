"""`dlkit experiment`: a claim of the lecture, tried out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.cli.files import check_picture_name, new_file, without_option
from dlkit.errors import UsageError, unknown
from dlkit.experiments import EXPERIMENTS, function_of, options_of

if TYPE_CHECKING:
    from dlkit.experiments.finding import Finding


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in EXPERIMENTS if name.startswith(incomplete)]


def experiment(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            autocompletion=_complete_name,
            help=", ".join(EXPERIMENTS) + "; without a name they are listed, with their options.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.png",
            show_default=False,
            help="Where --png draws, a new file; by default NAME.png here, or else NAME-2.png ...",
        ),
    ] = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="In a larger size, where there is one: much longer.")] = False,
    first_look: Annotated[bool, typer.Option("--first-look", help="In seconds, too small to tell much.")] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change an option of the experiment. Repeat for more."),
    ] = None,
    png: opt.Png = False,
    seed: opt.Seed = None,
) -> None:
    """Try out what the lecture claims, and say whether it holds here.

    Example: dlkit experiment initialization --png
    """  # fmt: skip
    if name is None:
        _list(
            {"--full": full, "--first-look": first_look, "--set": bool(sets), "--png": png, "--seed": seed is not None}
        )
        return
    if full and name in EXPERIMENTS and not EXPERIMENTS[name].full:
        raise UsageError(f"{name} has no larger size", "leave --full out")
    if full and first_look:
        raise UsageError("--full is the largest size, and --first-look the smallest", "choose one of them")
    if file is not None and not png:
        raise without_option(file)
    check_picture_name(file)
    path = new_file(file, name) if png else None
    finding, options, seconds = run(name, sets or [], full=full, first_look=first_look, seed=seed)
    if not console.settings.json:
        for line in finding.notes:
            console.note(line)
        console.table(finding.columns, finding.rows, right=finding.right)
        for verdict in finding.verdicts:
            console.data(str(verdict))
        console.note(f"time {seconds:.0f} s")
    if path is not None:
        _draw(name, finding, path)
        console.note(f"picture {path}")
    if console.settings.json:
        _print_json(name, finding, options, seconds, path)


def run(
    name: str, sets: Sequence[str], *, full: bool = False, first_look: bool = False, seed: int | None = None
) -> "tuple[Finding, dict[str, Any], float]":
    """Runs an experiment; gives what it found, the options it had, and the seconds it took.

    Raises:
        dlkit.errors.UsageError: an unknown name or option, or a value that does not fit.
    """
    from dlkit import recipe, runtime
    from dlkit.values import check_call, defaults_of, parameters_of

    given = dict(_divided(text) for text in sets)
    if name not in EXPERIMENTS:  # said before TensorFlow starts
        raise unknown("experiment", name, EXPERIMENTS)
    runtime.import_tensorflow()
    function = function_of(name)
    sizes = EXPERIMENTS[name].full if full else EXPERIMENTS[name].first_look if first_look else {}
    chosen = {**sizes, **{key: recipe.value_of(text) for key, text in given.items()}}
    if seed is not None:
        if "seed" not in parameters_of(function):
            raise UsageError(f"nothing is drawn in {name}", "leave --seed out")
        chosen["seed"] = seed
    options = defaults_of(function) | check_call(function, chosen, where=name)
    began = time.monotonic()
    return function(**options), options, time.monotonic() - began


def _divided(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text} has no value", f"write `--set {key.strip() or 'key'}=value`")
    return key.strip(), value.strip()


def _list(given: dict[str, bool]) -> None:
    for flag, is_given in given.items():
        if is_given:
            raise UsageError(f"{flag} is for an experiment, and none is named", "`dlkit experiment` lists them")
    if console.settings.json:
        console.data_json(
            [
                {
                    "name": name, "claim": each.claim, "parts": list(each.parts), "switch": dict(each.switch),
                    "options": options_of(name),
                }
                for name, each in EXPERIMENTS.items()
            ]
        )  # fmt: skip
        return
    rows = [
        (name, ", ".join(each.parts), each.claim, " ".join(f"{key}={value}" for key, value in each.switch.items()))
        for name, each in EXPERIMENTS.items()
    ]
    console.table(["experiment", "lecture", "claim", "switched off by --set"], rows)
    longer = "".join(f", {name} {each.takes}" for name, each in EXPERIMENTS.items() if each.takes)
    console.note(f"each takes seconds to minutes on two cores{longer}")
    console.note("`dlkit experiment --json` has all options of each, with their defaults")


def _draw(name: str, finding: "Finding", path: Path) -> None:
    from dlkit.probe import panels, pictures

    held = sum(verdict.holds for verdict in finding.verdicts)
    note = "\n".join([f"{name}: {held} of {len(finding.verdicts)} claims hold", *finding.notes])
    drawn = panels.figure(finding.charts, title=EXPERIMENTS[name].claim, note=note)
    pictures.save(drawn, path)


def _print_json(name: str, finding: "Finding", options: dict[str, Any], seconds: float, path: Path | None) -> None:
    verdicts = [{"claim": each.claim, "holds": each.holds, "numbers": each.numbers} for each in finding.verdicts]
    picture = {"picture": str(path)} if path else {}
    console.data_json(
        {
            "experiment": name, "options": options, "verdicts": verdicts, "notes": list(finding.notes),
            "seconds": round(seconds, 2), **picture, "records": list(finding.records),
        }
    )  # fmt: skip
