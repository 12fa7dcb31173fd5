"""What kind of data a name means where no model asks for one: `dlkit data show` and `dlkit data check`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlkit import data as datasets
from dlkit import file_system
from dlkit.data import tfds_files, tfds_names
from dlkit.data.caption_files import table_of
from dlkit.data.labelled_texts import is_labelled
from dlkit.data.parallel import is_parallel
from dlkit.data.tagged_texts import is_tagged
from dlkit.errors import DlkitError, UsageError, unknown


def kind_of(name: str, folder: Path | None = None, *, wanted: str | None = None) -> str:
    """The kind of data that a name means.

    What could be of several kinds is of the likeliest: pictures beside a `captions.txt` have captions, a table of two
    columns holds pairs, and what says nothing of itself is a folder of images.

    Args:
        name: of a dataset, as for `dlkit.data.builder`.
        folder: of prepared data.
        wanted: what the user says it is.

    Returns:
        A key of `dlkit.data.KINDS`.

    Raises:
        dlkit.errors.UsageError: `wanted` is no kind.
    """
    if wanted is not None:
        if wanted not in datasets.KINDS:
            raise unknown("kind of data", wanted, datasets.KINDS)
        return wanted
    if name in datasets.targets():
        return datasets.kind_made(datasets.builder(name, folder))
    if datasets.paths(name):
        return _of_path(name)
    return _of_prepared(name, folder) if tfds_names.is_known(name, folder) else "images"


def _of_path(name: str) -> str:
    path = file_system.expanded(name)
    if file_system.is_file(path):
        plain = path.name.removesuffix(".gz").casefold()
        if is_tagged(path):
            return "tagged_texts"
        return "corpus" if plain.endswith(".txt") else "pairs" if is_parallel(name) else "images"
    if is_parallel(name):
        return "pairs"
    if not file_system.is_folder(path):
        return "images"
    if table_of(path) is not None:
        return "captions"
    return "labelled_texts" if is_labelled(path) else "images"


def _of_prepared(name: str, folder: Path | None) -> str:
    """By what a record of a prepared set is made of; of one that is not prepared only translations show."""
    from dlkit.data.corpus import feature_of
    from dlkit.data.tfds import image_and_label
    from dlkit.data.tfds_captions import image_and_captions
    from dlkit.data.tfds_labelled_texts import text_and_label
    from dlkit.data.tfds_translation import is_translation

    if is_translation(name, folder):
        return "pairs"
    readers: dict[str, Callable[..., Any]] = {
        "images": image_and_label, "captions": image_and_captions, "labelled_texts": text_and_label,
        "corpus": feature_of,
    }  # fmt: skip
    try:
        found = tfds_files.find(name, tfds_names.data_dir(folder))
    except DlkitError:
        return "images"
    for kind, reader in readers.items():
        try:
            reader(name, found.features, found.supervised)
        except UsageError:
            continue
        return kind
    return "images"
