"""The names of all datasets, and `load`. This module is light: a dataset's file is imported when it is loaded."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import file_system
from dlkit.data import tfds_names
from dlkit.errors import UsageError, unknown

if TYPE_CHECKING:
    from dlkit.data.images import ImageData
    from dlkit.data.pairs import PairData

# name -> "module:function".
DATASETS: dict[str, str] = {
    "digits": "dlkit.data.digits:digits",
    "synthetic:shapes": "dlkit.data.shapes:shapes",
    "tatoeba": "dlkit.data.tatoeba:tatoeba",
    "synthetic:reverse": "dlkit.data.synthetic:reverse",
    "synthetic:copy": "dlkit.data.synthetic:copy",
    "synthetic:order": "dlkit.data.synthetic_texts:order",
    "synthetic:next_marker": "dlkit.data.synthetic_texts:next_marker",
    "shakespeare": "dlkit.data.corpus:shakespeare",
    "three_sentences": "dlkit.data.corpus:three_sentences",
    "synthetic:adding": "dlkit.data.sequences:adding",
    "synthetic:copy_delay": "dlkit.data.sequences:copy_delay",
    "synthetic:moving_digits": "dlkit.data.videos:moving_digits",
}


@dataclass(frozen=True)
class Kind:
    """One kind of data: what a dataset of a task has to be, and who reads it where the name is none of the table.

    Args:
        target: "module:class" of what is loaded.
        what: in words, as in "x has no labelled images".
        path: "module:function" that reads a path, its first argument; None where none can be read.
        undivided: "module:function" that says of a path whether what it holds is in no splits, given where `path` is.
        tfds: "module:function" that reads a set of TensorFlow Datasets, its first argument the name; None for none.
        named: names of the table that are of this kind, too, when a task of it asks for them -> "module:function".
    """

    target: str
    what: str
    path: str | None = None
    undivided: str | None = None
    tfds: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)


KINDS: dict[str, Kind] = {
    "images": Kind(
        "dlkit.data.images:ImageData", "labelled images",
        path="dlkit.data.folders:folder", undivided="dlkit.data.folders:is_undivided", tfds="dlkit.data.tfds:tfds_set",
    ),
    "pairs": Kind(
        "dlkit.data.pairs:PairData", "pairs of sequences",
        path="dlkit.data.parallel:parallel", undivided="dlkit.data.parallel:is_undivided",
        tfds="dlkit.data.tfds_translation:translation_set",
    ),
    "labelled_texts": Kind(
        "dlkit.data.labelled_texts:LabelledTexts", "labelled texts",
        path="dlkit.data.labelled_texts:labelled_texts", undivided="dlkit.data.labelled_texts:is_undivided",
        tfds="dlkit.data.tfds_labelled_texts:labelled_text_set",
    ),
    "tagged_texts": Kind(
        "dlkit.data.tagged_texts:TaggedTexts", "tagged texts",
        path="dlkit.data.tagged_texts:tagged_texts", undivided="dlkit.data.tagged_texts:is_undivided",
    ),
    "corpus": Kind(
        "dlkit.data.corpus:CorpusData", "running text",
        path="dlkit.data.corpus:text", undivided="dlkit.data.corpus:is_undivided", tfds="dlkit.data.corpus:tfds_text",
    ),
    "sequences": Kind("dlkit.data.sequences:SequenceData", "sequences of numbers"),
    "videos": Kind("dlkit.data.videos:VideoData", "labelled videos"),
    "captions": Kind(
        "dlkit.data.captions:CaptionData", "images with captions",
        path="dlkit.data.caption_files:folder", undivided="dlkit.data.caption_files:is_undivided",
        tfds="dlkit.data.tfds_captions:caption_set",
        named={"synthetic:shapes": "dlkit.data.scenes:scenes"},
    ),
}  # fmt: skip


def _target(text: str) -> Any:
    module, _, name = text.partition(":")
    return getattr(importlib.import_module(module), name)


def is_path(name: str) -> bool:
    """Whether a data name is a path and no name: it says so (`./x`, `/x`, `~/x`, `x/`), or there is such a folder."""
    says_so = name.startswith((".", "/", "~")) or name.endswith("/")
    return says_so or (name not in {"", *targets()} and file_system.is_folder(name))


def paths(name: str) -> list[Path]:
    """The folder or the files that a data name means, as they are written; none where it is a name.

    Example:
        >>> paths("train.en,train.de"), paths("digits")
        ([PosixPath('train.en'), PosixPath('train.de')], [])
    """
    if name in {"", *targets()}:
        return []
    from dlkit.data.parallel import is_parallel, two_files

    if is_parallel(name) or is_path(name):
        return [Path(part) for part in two_files(name) or [name]]
    return [Path(name)] if _is_file(name) else []


def _is_file(name: str, folder: Path | None = None) -> bool:
    """Whether a name is that of a file, and of no prepared set: `cifar10` stays what it is beside such a file."""
    return file_system.is_file(name) and not tfds_names.is_known(name, folder)


def absolute(path: Path) -> Path:
    """A path that means the same wherever one is; `~/x` does so as it stands."""
    return path if str(path).startswith("~") else path.absolute()


def anchored(name: str) -> str:
    """A data name with its paths made absolute; what is a name stays."""
    found = [str(absolute(path)) for path in paths(name)]
    whole = ",".join(found)
    return whole if found and len(paths(whole)) == len(found) else name  # a folder may have a comma in its name


@cache
def targets() -> dict[str, str]:
    """All datasets as name -> "module:function", a user's own packages included.

    A package adds datasets through the entry point group `dlkit.datasets`: `mydata = "package.module:function"`. Names
    of our own cannot be replaced.
    """
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group="dlkit.datasets")} | DATASETS


def names() -> list[str]:
    """All dataset names, in the order of the table."""
    return list(DATASETS) + sorted(set(targets()) - set(DATASETS))


def builder(
    name: str,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    *,
    kind: str | None = None,
) -> Callable[..., Any]:
    """Returns the function that builds the dataset `name`, which imports no TensorFlow yet.

    A name is, in this order, one of our table, a path, or a name of TensorFlow Datasets.

    Args:
        name: such as `digits`, `pairs.tsv`, `train.en,train.de`, `~/pictures`, `cifar10:3.0.2`.
        dir: the folder of prepared data; a set of the user's own is known when it lies there.
        kind: of `KINDS`, how a path or a prepared set is to be read. None goes by what is there: parallel texts are
            pairs, so are translation sets, and all else are images.

    Raises:
        dlkit.errors.UsageError: there is no such dataset, or the name has a namespace: after a colon only a version may
            stand, and `synthetic:` is ours. Elsewhere a namespace can name code that is fetched from the network.
    """
    if not name.strip():
        raise UsageError("the name of the dataset is empty", "`dlkit data list` lists all")
    if name in targets():
        return _target(KINDS[kind].named.get(name, targets()[name]) if kind else targets()[name])
    of_path = is_path(name) or _is_file(name, dir)
    if kind in {"labelled_texts", "tagged_texts"}:  # of a name that ends as a table does the file may be missing
        of_path = of_path or name.removesuffix(".gz").casefold().endswith((".tsv", ".txt", ".conll"))
    if kind in {None, "images", "pairs"}:
        from dlkit.data.parallel import is_parallel

        missing = is_path(name) and not file_system.exists(file_system.expanded(name))
        if is_parallel(name) or (kind == "pairs" and missing):
            return partial(_target(str(KINDS["pairs"].path)), name)
        if of_path and not is_path(name):
            raise UsageError(
                f"{name} is one file, and no table of pairs",
                "two files of texts are `x.en,x.de`, a table ends in .tsv, images lie in a folder",
            )
        if of_path:
            return partial(_target(str(KINDS["images"].path)), name)
    elif of_path or (kind == "corpus" and name.removesuffix(".gz").endswith(".txt")):
        if reader := KINDS[kind].path:
            return partial(_target(reader), name)
        raise UsageError(f"{name} is a path, and {KINDS[kind].what} are read from none", "`dlkit data list` lists all")
    if tfds_names.is_known(name, dir):
        return partial(_target(_tfds_reader(name, dir, kind)), name)
    namespace, colon, _ = name.partition(":")
    if colon and namespace != "synthetic" and not tfds_names.parse(name):
        raise UsageError(
            f"a dataset name has no namespace: {name}",
            "after a colon only a version may stand, such as `:3.0.2`; `dlkit data list` lists all names",
        )
    others = [each.name for each in tfds_names.listed(tfds_names.data_dir(dir))]
    raise unknown("dataset", name, names() + others, "`dlkit data list` lists all")


def _tfds_reader(name: str, folder: Path | None, kind: str | None) -> str:
    if kind in {None, "images", "pairs"}:
        from dlkit.data.tfds_translation import is_translation

        kind = "pairs" if is_translation(name, folder) else "images"
    reader = KINDS[str(kind)].tfds
    if reader is None:
        raise UsageError(f"{name} has no {KINDS[str(kind)].what}", "`dlkit data list` says what each one is")
    return reader


def is_undivided(
    name: str,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    *,
    kind: str,
) -> bool:
    """Whether a data name means a path of data that are in no splits, so that `data.test = "all"` tests on all of them.

    A table of pairs and two files of them are tested on as a whole by `data.test_file` instead.

    Args:
        name: as for `builder`.
        dir: the same.
        kind: of `KINDS`, how a path is read.

    Raises:
        dlkit.errors.UsageError: as `builder`.
        dlkit.errors.DataError: what the path holds cannot be read.
    """
    about, function = KINDS[kind], builder(name, dir, kind=kind)
    is_of_path = about.path is not None and getattr(function, "func", None) is _target(about.path)
    return is_of_path and bool(_target(str(about.undivided))(name))


def makes(function: Callable[..., Any]) -> str:
    """The name of the type of dataset that a builder returns, where it says so."""
    annotation = inspect.signature(function).return_annotation
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")


def kind_made(function: Callable[..., Any]) -> str:
    """The kind of data that a builder returns, a key of `KINDS`; images where it does not say so."""
    made = makes(function)
    return next((kind for kind, each in KINDS.items() if each.target.endswith(f":{made}")), "images")


def load(name: str, **options: Any) -> Any:
    """Builds the dataset `name`; the options are those of its builder, checked by name and type.

    Raises:
        dlkit.errors.UsageError: an unknown dataset or option, or a value of the wrong type.
        dlkit.errors.DataError: the data is missing or damaged.

    Example:
        >>> load("digits").shape
        (32, 32, 1)
    """
    return _load(builder(name, options.get("dir")), options)


def _load(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    from dlkit.values import check_call

    return function(**check_call(function, options, where="data"))


def load_kind(name: str, kind: str, **options: Any) -> Any:
    """`load`, for what needs one kind of data.

    Raises:
        dlkit.errors.UsageError: as `load`, or the dataset is of another kind.
        dlkit.errors.DataError: as `load`.
    """
    loaded = _load(builder(name, options.get("dir"), kind=kind), options)
    if not isinstance(loaded, _target(KINDS[kind].target)):
        raise UsageError(f"{name} has no {KINDS[kind].what}", "`dlkit data list` says what each one is")
    return loaded


def load_pairs(name: str, **options: Any) -> "PairData":
    """`load_kind` of pairs of texts: a path that does not exist would hold some."""
    return load_kind(name, "pairs", **options)


def load_images(name: str, **options: Any) -> "ImageData":
    """`load_kind` of labelled images."""
    return load_kind(name, "images", **options)
