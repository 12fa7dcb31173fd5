"""`dlkit data`: what there is to learn from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.cli.grammar import App
from dlkit.cli.models import about
from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from dlkit.recipe import DataSection

ImageSet = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        autocompletion=opt.complete_data,
        help="A name of `dlkit data list`, or a folder of images.",
    ),
]

app = App("List, show, check and prepare data.")


def list_(data_dir: opt.DataDir = None) -> None:
    """List the datasets: ours, those that lie prepared, and those that `dlkit data prepare` fetches.

    Example: dlkit data list
    """
    from dlkit import data
    from dlkit.data import tfds_names

    rows = [(name, True, about(data.targets()[name])) for name in data.names()]
    for name, of, is_prepared in tfds_names.listed(tfds_names.data_dir(data_dir)):
        if name in data.targets():  # a name of ours means ours
            continue
        rows.append((name, is_prepared, f"{of} of TensorFlow Datasets" if of else "prepared by TensorFlow Datasets"))
    if console.settings.json:
        console.data_json([{"name": name, "ready": ready, "about": text} for name, ready, text in rows])
    else:
        console.table(
            ["dataset", "ready", "about"], [(name, "yes" if ready else "-", text) for name, ready, text in rows]
        )


def check(
    data: ImageSet,
    data_dir: opt.DataDir = None,
) -> None:
    """Find unreadable images, odd ones, and those in several splits or classes; exit with 3 when data are bad.

    Example: dlkit data check photos
    """
    from dlkit.data.check import check as look_through

    report = look_through(data, data_dir=data_dir)
    if console.settings.json:
        console.data_json(report.to_dict())
    else:
        _print_counts(report.counts, report.splits)
        if report.findings:
            console.data("")
            console.table(["finding", "where", "what"], report.findings)
    if report.is_bad:
        raise DataError(report.verdict, report.hint)
    console.note(report.verdict)


def prepare(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            autocompletion=opt.complete_data,
            help="A name of TensorFlow Datasets, such as cifar10 or imagenette/160px-v2.",
        ),
    ],
    data_dir: opt.DataDir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the download.")] = False,
) -> None:
    """Download a dataset of TensorFlow Datasets and prepare it; sizes and place are told first.

    Example: dlkit data prepare cifar10
    """
    from dlkit import data
    from dlkit.data import tfds_names, tfds_prepare

    data.builder(name, data_dir)  # answers a misspelt name at once
    if not tfds_names.is_known(name, data_dir):
        raise UsageError(
            f"{name} is not of TensorFlow Datasets: there is nothing to prepare", f"`--data {name}` takes it as it is"
        )
    prepared = tfds_prepare.prepare(name, tfds_names.data_dir(data_dir), agreed=yes)
    if console.settings.json:
        console.data_json({"name": name, "folder": str(prepared.folder), "splits": prepared.sizes})
    sizes = ", ".join(f"{size:,} {split}" for split, size in prepared.sizes.items())
    console.note(f"{name} is prepared in {tfds_names.shown(prepared.folder)}: {sizes}")


def show(
    name: ImageSet,
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Where the examples come from.")] = "train",
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment", metavar="NAMES", help="Beside each image what training sees of it, with crop_flip,mixup say."
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=400, metavar="N", help="How many examples.")] = 32,
    seed: opt.Seed = 0,
    epoch: Annotated[int, typer.Option("--epoch", min=0, metavar="N", help="Draw as in this epoch, from 0.")] = 0,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.KEY=VALUE", help="Change the data, such as data.size=64. Repeat for more."),
    ] = None,
    data_dir: opt.DataDir = None,
    on_bad: opt.OnBad = None,
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.png", help="Where to draw; by default DATA_SPLIT.png."),
    ] = None,
) -> None:
    """Draw examples with their classes, as they are and as training sees them, and count the classes.

    Example: dlkit data show synthetic:shapes --augment crop_flip,mixup
    """
    from dlkit import recipe

    path = file or Path(f"{recipe.short_name(name)}_{split}.png")
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path} has no name for a picture", "pictures are PNG files: let the name end in .png")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists", "name another file with -o, or remove this one")
    section = recipe.resolve_data(
        name,
        overrides=[(*recipe.parse_override(text), "set") for text in sets or []],
        flags={
            "data.dir": data_dir,
            "data.on_bad": on_bad,
            "data.augment": recipe.words(augment) if augment else None,
        },
    )
    from dlkit import data as datasets

    if datasets.makes(datasets.builder(name, data_dir)) == "VideoData":
        if augment:
            raise UsageError(f"--augment is about images, and {name} has videos", "leave it out")
        _show_clips(section, split, count, seed or 0, epoch, path)
        return
    from dlkit.probe import examples

    gallery = examples.Gallery.of(section, split, count=count, seed=seed or 0, epoch=epoch)
    gallery.save(path)
    if console.settings.json:
        console.data_json({**gallery.to_dict(), "picture": str(path)})
        return
    console.note(f"data    {gallery.about}")
    _print_counts(gallery.counts, list(gallery.data.splits))
    console.note(f"picture {path}")


def _show_clips(section: "DataSection", split: str, count: int, seed: int, epoch: int, path: Path) -> None:
    """Draws the first clips of an epoch, frame by frame, with the labels of clips or frames."""
    from dlkit import data as datasets
    from dlkit.data.batching import shuffled
    from dlkit.probe import clips, pictures

    data = datasets.load_kind(section.name, "videos", **section.options)
    if split not in data.splits:
        raise UsageError(f"no split {split} in {data.name}", f"known: {', '.join(data.splits)}")
    indices = shuffled(len(data.splits[split]), seed=seed, epoch=epoch)[:count]
    shown = data.splits[split].fetch(indices)
    labels = [[data.classes[label] for label in row] for row in shown.labels.reshape(len(indices), -1).tolist()]
    title = f"{data.name}, {split}: {len(indices):,} of {len(data.splits[split]):,} clips"
    pictures.save(clips.draw(shown.pixels, labels, title=title), path)
    if console.settings.json:
        records = [{"index": int(at), "labels": names} for at, names in zip(indices, labels, strict=True)]
        console.data_json({"data": data.name, "split": split, "examples": records, "picture": str(path)})
        return
    console.table(["clip", "labels"], [(f"{at}", ", ".join(names)) for at, names in zip(indices, labels, strict=True)])
    console.note(f"picture {path}")


def _print_counts(counts: Mapping[str, Mapping[str, int]], splits: list[str]) -> None:
    """How many images each class has in each split."""
    rows = [(label, *(f"{of[split]:,}" for split in splits)) for label, of in counts.items()]
    console.table(["class", *splits], rows, right=splits)


app.add(list_)
app.add(check)
app.add(prepare)
app.add(show)
