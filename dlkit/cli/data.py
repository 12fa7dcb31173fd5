"""`dlkit data`: what there is to learn from."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.cli.files import check_new, check_picture_name, new_file
from dlkit.cli.grammar import App
from dlkit.cli.models import about
from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlkit.data.captions import CaptionData
    from dlkit.data.check import Report
    from dlkit.recipe import DataSection

DataName = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        autocompletion=opt.complete_data,
        help="A name of `dlkit data list`, or a folder or file.",
    ),
]

Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="What it is, where that is not plain: images, captions, pairs, labelled_texts, tagged_texts or corpus.",
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
    data: DataName,
    kind: Kind = None,
    data_dir: opt.DataDir = None,
) -> None:
    """Find what would spoil a training: unreadable images, odd ones or texts, those in several splits or classes.

    Exits with 3 when data are bad. A file or folder without splits is divided as training does by default.

    Example: dlkit data check photos
    """
    from dlkit import data as datasets
    from dlkit import recipe
    from dlkit.data import kinds
    from dlkit.data.check import check as look_through
    from dlkit.data.check_texts import TextReport, check_texts

    kind = kinds.kind_of(data, data_dir, wanted=kind)
    recipe.check_data_dir(data, data_dir, kind=kind)
    if kind == "images":
        report: Report | TextReport = look_through(data, data_dir=data_dir)
    elif kind in _CHECKED:
        report = check_texts(datasets.load_kind(data, kind, **({} if data_dir is None else {"dir": data_dir})))
    else:
        known = f"{', '.join(sorted(_CHECKED))} or images"
        raise UsageError(f"{datasets.KINDS[kind].what} are not checked, as {data} has", f"`--kind`: {known}")
    if console.settings.json:
        console.data_json(report.to_dict())
    else:
        if report.counts:
            _print_counts(report.counts, report.splits)
        if report.findings:
            if report.counts:
                console.data("")
            console.table(["finding", "where", "what"], report.findings)
    if report.is_bad:
        raise DataError(report.verdict, report.hint)
    console.note(report.verdict)


_CHECKED = {"labelled_texts", "tagged_texts", "pairs", "corpus"}


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
            f"{name} is not of TensorFlow Datasets: there is nothing to prepare",
            f"`--data {shlex.quote(name)}` takes it as it is",
        )
    prepared = tfds_prepare.prepare(name, tfds_names.data_dir(data_dir), agreed=yes)
    if console.settings.json:
        console.data_json({"name": name, "folder": str(prepared.folder), "splits": prepared.sizes})
    sizes = ", ".join(f"{size:,} {split}" for split, size in prepared.sizes.items())
    console.note(f"{name} is prepared in {tfds_names.shown(prepared.folder)}: {sizes}")


def show(
    name: DataName,
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Where the examples come from.")] = "train",
    kind: Kind = None,
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
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.png",
            help="Where to draw, a new file; by default DATA_SPLIT.png, or else DATA_SPLIT-2.png ...",
        ),
    ] = None,
) -> None:
    """Show examples: images and clips in a picture, as they are and as training sees them; texts and numbers in words.

    Example: dlkit data show synthetic:shapes --augment crop_flip,mixup
    """
    from dlkit import data as datasets
    from dlkit import recipe
    from dlkit.data import kinds

    kind = kinds.kind_of(name, data_dir, wanted=kind)
    if file is not None and kind not in _DRAWN:
        raise UsageError(f"-o is for pictures, and {name} has {datasets.KINDS[kind].what}", "they are printed")
    if augment and kind != "images":
        raise UsageError(
            f"--augment is shown on labelled images; {name} has {datasets.KINDS[kind].what}", "leave it out"
        )
    overrides = [(*recipe.parse_override(text), "set") for text in sets or []]
    section = recipe.resolve_data(
        name,
        kind,
        overrides=overrides,
        flags={
            "data.dir": data_dir,
            "data.on_bad": on_bad,
            "data.augment": recipe.words(augment) if augment else None,
        },
    )
    check_picture_name(file)
    check_new(file, "-o")
    path = file or new_file(None, f"{recipe.short_name(name)}_{split}")
    keys = frozenset(key.removeprefix("data.") for key, *_ in overrides)
    asked = _Asked(section, keys, kind, split, count, seed or 0, epoch, path)
    if kind == "images":
        _show_images(asked)
        return
    if kind == "videos":
        _show_clips(asked)
    else:
        _show_excerpt(asked)


_DRAWN = {"images", "videos", "captions"}


@dataclass(frozen=True)
class _Asked:
    """What `dlkit data show` is to show, and where to draw it."""

    section: "DataSection"
    keys: frozenset[str]  # of the section, which the user wrote
    kind: str
    split: str
    count: int
    seed: int
    epoch: int
    path: Path

    def choose(self, there: int) -> "NDArray[np.int64]":
        """The first examples of an epoch, of so many."""
        from dlkit.data.batching import shuffled

        return shuffled(there, seed=self.seed, epoch=self.epoch)[: self.count]


def _show_images(asked: _Asked) -> None:
    """Draws images, as they are and as training sees them."""
    from dlkit.probe import examples

    section, split, count, seed, epoch = asked.section, asked.split, asked.count, asked.seed, asked.epoch
    gallery = examples.Gallery.of(section, split, count=count, seed=seed, epoch=epoch, asked=asked.keys)
    gallery.save(asked.path)
    if console.settings.json:
        console.data_json({**gallery.to_dict(), "picture": str(asked.path)})
        return
    console.note(f"data    {gallery.about}")
    _print_counts(gallery.counts, list(gallery.data.splits))
    console.note(f"picture {asked.path}")


def _show_excerpt(asked: _Asked) -> None:
    """Prints examples that are read; images with captions are drawn, too."""
    from dlkit import data as datasets
    from dlkit.data.excerpts import excerpt

    section = asked.section
    data = datasets.load_kind(
        section.name, asked.kind, **section.options, **({"dir": section.dir} if section.dir else {})
    )
    found = excerpt(data, asked.split, asked.choose)
    drawn = asked.kind == "captions"
    if drawn:
        _draw_captions(data, asked)
    if console.settings.json:
        picture = {"picture": str(asked.path)} if drawn else {}
        console.data_json({"data": section.name, "split": asked.split, **found.to_dict(), **picture})
        return
    console.note(f"data    {found.about(section.name)}")
    if found.counts:
        _print_counts(found.counts, list(found.sizes))
        console.data("")
    console.table(found.columns, found.rows, right=[name for name in found.columns[:2] if name in _NUMBERS])
    if drawn:
        console.note(f"picture {asked.path}")


_NUMBERS = {"row", "line", "image", "steps"}  # columns of them stand at the right


def _draw_captions(data: "CaptionData", asked: _Asked) -> None:
    from dlkit.probe import captions, pictures

    split = data.splits[asked.split]
    indices = asked.choose(len(split))
    title = f"{pictures.own_name(data.name)}, {asked.split}: {len(indices):,} of {len(split):,} images"
    texts = [(split.captions[at][0],) for at in indices]
    pictures.save(captions.page(split.images.fetch(indices), texts, title=title), asked.path)


def _show_clips(asked: _Asked) -> None:
    """Draws the first clips of an epoch, frame by frame, with the labels of clips or frames."""
    from dlkit import data as datasets
    from dlkit.data.split_names import check_split
    from dlkit.probe import clips, pictures

    data = datasets.load_kind(asked.section.name, "videos", **asked.section.options)
    check_split(asked.split, data.splits, data.name)
    indices = asked.choose(len(data.splits[asked.split]))
    shown = data.splits[asked.split].fetch(indices)
    labels = [[data.classes[label] for label in row] for row in shown.labels.reshape(len(indices), -1).tolist()]
    there = len(data.splits[asked.split])
    title = f"{pictures.own_name(data.name)}, {asked.split}: {len(indices):,} of {there:,} clips"
    pictures.save(clips.draw(shown.pixels, labels, title=title), asked.path)
    if console.settings.json:
        records = [{"index": int(at), "labels": names} for at, names in zip(indices, labels, strict=True)]
        console.data_json(
            {"data": data.name, "split": asked.split, "examples": records, "picture": str(asked.path)}
        )  # fmt: skip
        return
    console.table(["clip", "labels"], [(f"{at}", ", ".join(names)) for at, names in zip(indices, labels, strict=True)])
    console.note(f"picture {asked.path}")


def _print_counts(counts: Mapping[str, Mapping[str, int]], splits: list[str]) -> None:
    """How many examples each class has in each split."""
    rows = [(label, *(f"{of[split]:,}" for split in splits)) for label, of in counts.items()]
    console.table(["class", *splits], rows, right=splits)


app.add(list_)
app.add(check)
app.add(prepare)
app.add(show)
