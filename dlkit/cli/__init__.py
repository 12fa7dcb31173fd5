"""The command line: one short module per verb. Help, listings and completion load no TensorFlow."""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Annotated, NoReturn

import typer

from dlkit import __version__, console, signals, workers
from dlkit.cli import (
    average,
    caption,
    data,
    doctor,
    ensemble,
    evaluate,
    experiment,
    export,
    generate,
    inspect,
    models,
    plot,
    predict,
    recipes,
    runs,
    score,
    search,
    summarize,
    train,
    translate,
)
from dlkit.cli.grammar import App, in_our_words, taking_common_options
from dlkit.errors import DataError, DlkitError, interrupted

app = App(
    """Learn, teach and use deep learning.

    \b
    dlkit train lenet                       train on the handwritten digits
    dlkit evaluate runs/lenet_digits-1      test the best weights
    dlkit summarize alexnet                 parameters, shapes, cost
    dlkit train resnet20 --set model.norm=none --epochs 5
    """,
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.data(f"dlkit {__version__}")
        raise typer.Exit


@app.callback()
@taking_common_options
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The common options may also stand before the verb."""


for _verb in (
    train.train, evaluate.evaluate, predict.predict, translate.translate, score.score,
    summarize.summarize, inspect.inspect, plot.plot, generate.generate,
    ensemble.ensemble, search.search, experiment.experiment, average.average, export.export,
    models.models, caption.caption,
):  # fmt: skip
    app.add(_verb)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")
app.add(doctor.doctor)


def run() -> None:
    """The console script: runs the command line of the process and exits with its code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        else:
            stream.reconfigure(errors="backslashreplace")  # a character that the terminal cannot show is no failure
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # once more, while the first one is being explained
        code = 130
    if code > 128:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """Ends the process at once: threads that download or decode, which Python waits for, may need minutes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit code; whatever happens, nothing is raised.

    Args:
        arguments: without the program's name.
    """
    with console.guarded_streams():
        console.reset()
        # The process that started a worker tells it when to stop, and how it ends tells whether it could save.
        stoppable = nullcontext() if workers.launcher() else signals.raised()
        try:
            with stoppable:
                code = _run(list(arguments))
            sys.stdout.flush()
        except BaseException as failure:
            return _explain(failure, debug="--debug" in arguments)
        return code


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    if "_DLKIT_COMPLETE" in os.environ:
        command.main(arguments, prog_name="dlkit", standalone_mode=False)
        return 0
    # Not command.main(): it would print Typer's own messages.
    with command.make_context("dlkit", arguments, obj=tuple(arguments)) as context:
        result = command.invoke(context)
    return result if isinstance(result, int) else 0


def _explain(failure: BaseException, *, debug: bool) -> int:
    """Prints a failure as one line and a hint, and returns the exit code that the README documents."""
    error: DlkitError
    match failure:
        case typer.Exit():
            return failure.exit_code
        case SystemExit():
            return failure.code if isinstance(failure.code, int) else int(failure.code is not None)
        case console.ReaderGone():
            return 0
        case KeyboardInterrupt():
            error = interrupted(failure)
            code = error.code
        case typer.Abort():  # of a question, whatever signal came while it stood there
            by = failure.__context__
            error = interrupted(by if isinstance(by, KeyboardInterrupt) else KeyboardInterrupt())
            code = error.code
        case DlkitError():
            error, code = failure, failure.code
        case typer.TyperException():
            if type(failure).__name__ == "NoArgsIsHelpError":  # its message is the help text
                typer.echo(failure.message, err=True)
                return 2
            error = in_our_words(failure)
            code = error.code
        case OSError() if failure.strerror:
            error = _of_system(failure)
            code = error.code
        case _:
            what = f"{type(failure).__name__}: {failure}".replace("\n", " ")
            error, code = DlkitError(f"{what} (internal)", "run it again with --debug to see where"), 1
    if debug:
        console.trace(failure)
    console.error(error)
    return code


def _of_system(failure: OSError) -> DlkitError:
    place = f" {failure.filename}" if failure.filename else ""
    reason = str(failure.strerror).lower()
    match failure.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return DataError(f"cannot open{place}: {reason}")
        case errno.ENOSPC | errno.EDQUOT:
            return DlkitError(f"cannot write{place}: {reason}", "free some space, or write elsewhere")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return DlkitError(f"cannot use{place}: {reason}", "choose a place that you may write to")
        case _:
            return DlkitError(f"{reason}:{place}" if place else reason)
