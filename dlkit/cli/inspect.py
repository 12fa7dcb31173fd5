"""`dlkit inspect`: what goes on inside a trained net, as a table, as JSON or as a picture."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.errors import UsageError
from dlkit.probe.views import DEFAULT_LIMIT, VIEWS, Subject, View, show
from dlkit.runs import Run


def _complete_view(incomplete: str) -> list[str]:
    return [name for name in VIEWS if name.startswith(incomplete)]


def inspect(
    model: opt.Checkpoint,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            show_default=False,
            autocompletion=_complete_view,
            help="; ".join(f"{name}: {info.title}" for name, info in VIEWS.items()) + ".",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.png", show_default=False, help="Where --png writes; by default into the run."),
    ] = None,
    *,
    png: Annotated[bool, typer.Option("--png", help="Draw a picture as well.")] = False,
    split: Annotated[
        str | None, typer.Option("--split", metavar="SPLIT", help="Where images come from; by default test.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help=f"activations: over so many images; by default {DEFAULT_LIMIT:,}."
        ),
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="features: of this image file.")] = None,
    index: Annotated[
        int | None,
        typer.Option("--index", min=0, metavar="N", help="features: of this image of the split; by default 0."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="PATTERN", help="Only layers such as `stage2_*`. Repeat for more."),
    ] = None,
) -> None:
    """Look inside a trained net.

    Example: dlkit inspect runs/lenet_digits-1 features --index 7 --png seven.png
    """
    if file is not None and not png:
        raise UsageError(f"what to do with {file}?", f"`--png {file}` draws a picture into it")
    check_picture_name(file)
    subject = Subject(model, split=split, limit=limit, image=image, index=index, layers=layers or ())
    path = picture_path(subject.run, what, file) if png else None
    view = show(what, subject)
    if path:
        _draw(view, path)
    if console.settings.json:
        picture = {"picture": str(path)} if path else {}
        console.data_json({"model": model, "view": what, **view.facts, **picture, "layers": list(view.records)})
        return
    for line in view.notes:
        console.note(line)
    console.table(view.columns, view.rows, right=view.right)
    if path:
        console.note(f"picture {path}")


def check_picture_name(file: Path | None) -> None:
    """Raises a UsageError when a file is named that is none of a picture."""
    if file is not None and file.suffix.lower() != ".png":
        raise UsageError(f"{file} has no name for a picture", "pictures are PNG files: let the name end in .png")


def picture_path(run: Run, what: str, file: Path | None, *, suffix: str = ".png") -> Path:
    """Into the run, or where we are when the run is only to be read. Only the run's own picture is made anew."""
    own = run.path / f"{what}{suffix}"
    is_ours = os.access(run.path, os.W_OK) and not run.is_shipped
    path = file or (own if is_ours else Path(f"{run.name}_{what}{suffix}"))
    if os.path.lexists(path) and path.resolve() != own.resolve():
        raise UsageError(f"{path} exists", f"name another file after --{suffix[1:]}, or remove this one")
    return path


def _draw(view: View, path: Path) -> None:
    from dlkit.probe import pictures

    pictures.save(view.draw(), path)
