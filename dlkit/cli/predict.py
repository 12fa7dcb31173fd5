"""`dlkit predict`: the classes of image files, or of texts."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.cli.predict_texts import predict_texts
from dlkit.errors import DataError, UsageError
from dlkit.tasks import TASKS

if TYPE_CHECKING:
    from dlkit.tasks.classifier import Guesses

STDIN = "-"


def predict(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            show_default=False,
            help="Image files, and folders to look for images in. `-`, or none in a pipe, is standard input, which"
            " names one file a line or is an image itself. With a run that reads texts: files of lines, `-`, or texts.",
        ),
    ] = None,
    models: opt.NewestModels = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to name for each image.")] = 1,
    batch_size: opt.ImagesAtATime = 64,
    runs_dir: opt.NewestIn = None,
) -> None:
    """Say what is in images, one line each; with a run that reads texts, of what class a text is, or tag its words.

    With several runs their probabilities are averaged.

    Example: dlkit predict photo.png holiday/ --model runs/lenet_digits-1 --top 3
    """  # fmt: skip
    named = opt.runs_or_newest(models, "image_classification", runs_dir)
    opened = [runs.open_run(run) for run in named]  # before TensorFlow takes its time
    if TASKS[opened[0].task].data_kind in {"labelled_texts", "tagged_texts"}:
        predict_texts(named, opened[0], images or [], top=top, batch_size=batch_size)
        return
    with inputs(images or []) as (names, paths):
        runtime.import_tensorflow()
        from dlkit.tasks.classifier import Classifier

        size = 1 if images == [STDIN] and sys.stdin.isatty() else batch_size
        unread = _answer(names, Classifier(named).each(paths, top=top, batch_size=size))
    if unread:
        raise typer.Exit(unread.code)


def _answer(names: Iterable[str], answers: "Iterable[Guesses | DataError]") -> DataError | None:
    """Prints a line for each image; of one that cannot be read the reason, which is returned at the end."""
    from dlkit.data.image_files import UnreadableImage

    unread = None
    for name, answer in zip(names, answers, strict=False):
        if isinstance(answer, DataError):  # the other images are still worth an answer
            unread = answer
            if name == STDIN and isinstance(answer, UnreadableImage):
                unread = UnreadableImage("standard input", answer.reason, answer.hint)
            console.error(unread)
            if console.settings.json:
                console.data_json({"file": name, "error": unread.message})
        elif console.settings.json:
            console.data_json({"file": name, "classes": answer})
        else:
            shares = "  ".join(f"{guess['class']} {100 * guess['probability']:.1f} %" for guess in answer)
            console.data_row([name, shares])
    return unread


# -------------------------------------------------------------------------------------------------------------- inputs


@contextmanager
def inputs(operands: list[str]) -> Iterator[tuple[Iterable[str], Iterable[str]]]:
    """What to call each image, and the file that it lies in while the block lasts.

    Raises:
        dlkit.errors.UsageError: none is named and nobody writes to standard input, or it is named beside others.
    """
    if STDIN in operands and operands != [STDIN]:
        raise UsageError("`-`, standard input, is named beside other images", "`-` stands alone; ./- is a file")
    if operands and operands != [STDIN]:
        files = list(_expanded(operands))
        yield files, files
        return
    if sys.stdin is None or (not operands and sys.stdin.isatty()):
        raise UsageError("IMAGE is missing", "name image files or a folder, or `-` for standard input")
    stream = cast(BufferedReader, sys.stdin.buffer)
    if sys.stdin.isatty():
        console.note("type the name of a file and press Enter; Ctrl-D ends")
    elif not stream.peek():
        console.note("standard input is empty")
    elif b"\0" in stream.peek():  # every image begins with some, and no name of a file has one
        with tempfile.TemporaryDirectory(prefix="dlkit-") as folder:
            with (Path(folder) / "image").open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            yield [STDIN], [copy.name]
        return
    names, paths = tee(name for line in stream if (name := os.fsdecode(line.rstrip(b"\r\n"))))
    yield names, paths


def _expanded(operands: Iterable[str]) -> Iterator[str]:
    """The operands, in place of each folder the images in it."""
    for operand in operands:
        if os.path.isdir(operand):  # noqa: PTH112 - Path.is_dir() raises for a name that is too long
            yield from _images_below(operand)
        else:
            yield operand


def _images_below(folder: str) -> list[str]:
    """The images in a folder and its sub-folders, in the order of their paths.

    Hidden ones are passed over, and so are links to folders, which may lead in a circle.
    """
    from dlkit.data.folders import SUFFIXES, Listing, images_below, natural

    root = Path(folder)
    found = sorted(images_below(Listing(root, ""), ""), key=lambda path: [natural(part) for part in path.split("/")])
    if not found:
        raise DataError(f"no images in {folder}", f"an image has one of the suffixes {', '.join(SUFFIXES)}")
    return [str(root / path) for path in found]
