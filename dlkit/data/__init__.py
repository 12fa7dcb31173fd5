"""The names of all datasets, and `load`. This module is light: a dataset's file is imported when it is loaded."""

import importlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
}


def is_path(name: str) -> bool:
    """Whether a data name is a path and no name: it says so (`./x`, `/x`, `~/x`, `x/`), or there is such a folder."""
    says_so = name.startswith((".", "/", "~")) or name.endswith("/")
    return says_so or (name not in {"", *targets()} and Path(name).is_dir())


def paths(name: str) -> list[Path]:
    """The folder or the files that a data name means, as they are written; none where it is a name.

    Example:
        >>> paths("train.en,train.de"), paths("digits")
        ([PosixPath('train.en'), PosixPath('train.de')], [])
    """
    if name in {"", *targets()}:
        return []
    from dlkit.data.parallel import is_parallel, two_files

    return [Path(part) for part in two_files(name) or [name]] if is_parallel(name) or is_path(name) else []


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
    texts: bool = False,
) -> Callable[..., Any]:
    """Returns the function that builds the dataset `name`, which imports no TensorFlow yet.

    A name is, in this order, one of our table, the path of parallel texts, that of a folder of images, or a name of
    TensorFlow Datasets.

    Args:
        name: such as `digits`, `pairs.tsv`, `train.en,train.de`, `~/pictures`, `cifar10:3.0.2`.
        dir: the folder of prepared data; a set of the user's own is known when it lies there.
        texts: what a folder that does not exist would hold, texts or images.

    Raises:
        dlkit.errors.UsageError: there is no such dataset, or the name has a namespace: after a colon only a version may
            stand, and `synthetic:` is ours. Elsewhere a namespace can name code that is fetched from the network.
    """
    if not name.strip():
        raise UsageError("the name of the dataset is empty", "`dlkit data list` lists all")
    if name in targets():
        module, _, function = targets()[name].partition(":")
        return getattr(importlib.import_module(module), function)
    from dlkit.data.parallel import is_parallel, parallel

    missing = is_path(name) and not Path(name).expanduser().exists()
    if is_parallel(name) or (texts and missing):
        return partial(parallel, name)
    if is_path(name):
        from dlkit.data.folders import folder

        return partial(folder, name)
    if tfds_names.is_known(name, dir):
        from dlkit.data.tfds_translation import is_translation, translation_set

        if is_translation(name, dir):
            return partial(translation_set, name)
        from dlkit.data.tfds import tfds_set

        return partial(tfds_set, name)
    if len(name.encode()) < 256 and Path(name).is_file():
        raise UsageError(
            f"{name} is one file, and no table of pairs",
            "two files of texts are `x.en,x.de`, a table ends in .tsv, images lie in a folder",
        )
    namespace, colon, _ = name.partition(":")
    if colon and namespace != "synthetic" and not tfds_names.parse(name):
        raise UsageError(
            f"a dataset name has no namespace: {name}",
            "after a colon only a version may stand, such as `:3.0.2`; `dlkit data list` lists all names",
        )
    others = [each.name for each in tfds_names.listed(tfds_names.data_dir(dir))]
    raise unknown("dataset", name, names() + others, "`dlkit data list` lists all")


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
    from dlkit.recipe import check_call

    return function(**check_call(function, options, where="data"))


def load_pairs(name: str, **options: Any) -> "PairData":
    """`load`, for what needs pairs of texts: a path that does not exist would hold some.

    Raises:
        dlkit.errors.UsageError: as `load`, or the dataset has no pairs.
        dlkit.errors.DataError: as `load`.
    """
    from dlkit.data.pairs import PairData

    loaded = _load(builder(name, options.get("dir"), texts=True), options)
    if not isinstance(loaded, PairData):
        raise UsageError(f"{name} has no pairs of sequences", "`dlkit data list` says what each one is")
    return loaded


def load_images(name: str, **options: Any) -> "ImageData":
    """`load`, for what needs labelled images.

    Raises:
        dlkit.errors.UsageError: as `load`, or the dataset has no labelled images.
        dlkit.errors.DataError: as `load`.
    """
    from dlkit.data.images import ImageData

    loaded = load(name, **options)
    if not isinstance(loaded, ImageData):
        raise UsageError(f"{name} has no labelled images", "`dlkit data list` says what each one is")
    return loaded
