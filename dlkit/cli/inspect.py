"""`dlkit inspect`: what goes on inside a net, as a table, as JSON, as a picture or as a page."""

from pathlib import Path
from typing import Annotated

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.cli.files import check_picture_name, picture_path, without_option, write_page
from dlkit.errors import UsageError
from dlkit.probe.views import DEFAULT_LIMIT, VIEWS, Subject, View, show


def _complete_view(incomplete: str) -> list[str]:
    return [name for name in VIEWS if name.startswith(incomplete)]


def inspect(
    model: opt.Model,
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
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="Where --png or --html writes, a new file; by default into the run, replacing the last one.",
        ),
    ] = None,
    *,
    png: opt.Png = False,
    html: opt.Html = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="SPLIT", help="Where examples come from; by default test, the batch of gradients train."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help=f"Over so many examples; activations: by default {DEFAULT_LIMIT:,}."
        ),
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Over the whole split.")] = False,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="Look at this image file.")] = None,
    index: Annotated[
        int | None,
        typer.Option("--index", min=0, metavar="N", help="Look at this example of the split; by default 0."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="PATTERN", help="Only layers such as `stage2_*`. Repeat for more."),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="Read this text.")] = None,
    label: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="What speaks for this class; by default the model's answer."),
    ] = None,
    words: Annotated[
        list[str] | None, typer.Option("--word", metavar="WORD", help="embeddings: of this word. Repeat for more.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="MODEL",
            autocompletion=opt.complete_model_or_run,
            help="Draw this model beside the first one. Repeat for more.",
        ),
    ] = None,
    data: opt.Data = None,
    data_dir: opt.DataDir = None,
    sets: opt.Set = None,
    seed: opt.Seed = None,
) -> None:
    """Look inside a net: a trained one or, by the name of a model, one with fresh weights.

    --data, --set and --seed are for names of models.

    Example: dlkit inspect runs/lenet_digits-1 features --index 7 --png seven.png
    """  # fmt: skip
    _check_file(file, png=png, html=html)
    subject = Subject(
        model, split=split, limit=limit, whole=whole, image=image, index=index, layers=layers or (), text=text,
        label=label, words=words or (), against=against or (), data=data, sets=sets or (), seed=seed, data_dir=data_dir,
    )  # fmt: skip
    wanted = [suffix for suffix, given in ((".png", png), (".html", html)) if given]
    stem = model if subject.run is None else None
    paths = {suffix: picture_path(subject.run or stem, what, file, suffix=suffix) for suffix in wanted}
    view = show(what, subject)
    for suffix, path in paths.items():
        if suffix == ".png":
            _draw(view, path)
        else:
            _write_page(view, path, title=f"{model}: {what}")
    if console.settings.json:
        written = {"picture" if suffix == ".png" else "page": str(path) for suffix, path in paths.items()}
        console.data_json({"model": model, "view": what, **view.facts, **written, view.key: list(view.records)})
        return
    for line in view.notes:
        console.note(line)
    console.table(view.columns, view.rows, right=view.right)
    for suffix, path in paths.items():
        console.note(f"{'picture' if suffix == '.png' else 'page   '} {path}")


def _check_file(file: Path | None, *, png: bool, html: bool) -> None:
    """Raises a UsageError when a file is named that is not what is to be written."""
    if file is None:
        return
    if png and html:
        raise UsageError("one name for two files", "leave the name out, or write one at a time")
    if not (png or html):
        raise without_option(file, "--html" if file.suffix.lower() == ".html" else "--png")
    if html and file.suffix.lower() != ".html":
        raise UsageError(f"{file} has no name for a page", "let the name end in .html")
    if png:
        check_picture_name(file)


def _draw(view: View, path: Path) -> None:
    from dlkit.probe import pictures

    pictures.save(view.draw(), path)


def _write_page(view: View, path: Path, *, title: str) -> None:
    from dlkit.probe import page

    write_page(page.of_view(view, title=title), path)
