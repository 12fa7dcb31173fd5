"""What TensorFlow Datasets has and where it keeps it, read off files: importing it would start TensorFlow.

The installed package names its sets in the folders `datasets` and `url_checksums` and in the `__init__.py` of each
category. Prepared sets lie in one folder, as `set/3.0.2` or `set/configuration/3.0.2`.
"""

import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dlkit import file_system

_NAME = re.compile(
    r"(?P<set>[a-z][a-z0-9_]*)(/(?P<config>\w[\w.+-]*))?(:(?P<version>\*|\d+\.(\d+|\*)\.(\d+|\*)))?", re.ASCII
)
_IMPORT = re.compile(r"^from tensorflow_datasets\.(\w+)\.[\w.]+ import (\w+)$", re.MULTILINE)
VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)


class Name(NamedTuple):
    """The parts of a name such as `imagenette/160px-v2:1.0.0`.

    Args:
        set: `imagenette`.
        config: `160px-v2`; empty for the default one.
        version: `1.0.0`, with `*` for any number; empty for the newest.
    """

    set: str
    config: str
    version: str


def parse(text: str) -> Name | None:
    """The parts of a dataset name, or None when TensorFlow Datasets has no names of that form.

    Example:
        >>> parse("imagenette/160px-v2")
        Name(set='imagenette', config='160px-v2', version='')
    """
    match = _NAME.fullmatch(text)
    return Name(match["set"], match["config"] or "", match["version"] or "") if match else None


def is_known(text: str, dir: Path | None = None) -> bool:  # noqa: A002 - the recipe's key is data.dir
    """Whether a name is that of a set of the installed package, or of one that lies prepared in the data folder.

    Only the set is looked at; whether it has the configuration and the version shows when it is loaded.
    """
    name = parse(text)
    return name is not None and (name.set in names() or _has_versions(data_dir(dir) / name.set))


def _has_versions(folder: Path) -> bool:
    return any(VERSION.fullmatch(path.name) for depth in ("*", "*/*") for path in folder.glob(depth))


def data_dir(dir: Path | None = None) -> Path:  # noqa: A002 - the recipe's key is data.dir
    """Where prepared sets lie: the given folder, else TFDS_DATA_DIR, else `~/tensorflow_datasets`."""
    return file_system.expanded(dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _package() -> Path | None:
    found = importlib.util.find_spec("tensorflow_datasets")
    places = found.submodule_search_locations if found else None
    return Path(places[0]) if places else None


@cache
def names() -> list[str]:
    """All sets of the installed package, of any task, without their configurations and versions."""
    package = _package()
    if package is None:
        return []
    found = {path.stem for path in package.glob("url_checksums/*.txt")}
    found |= {path.name for path in package.glob("datasets/[!_]*") if path.is_dir()}
    for init in package.glob("[!_]*/__init__.py"):
        found |= set(_imported_by(init))
    return sorted(found)


@cache
def image_names() -> list[str]:
    """The sets of the package's category of image classification, without their configurations and versions."""
    return _of_category("image_classification")


@cache
def translation_names() -> list[str]:
    """The sets of the package's category of translation, without their configurations and versions."""
    return _of_category("translate")


def _of_category(category: str) -> list[str]:
    package = _package()
    return sorted(_imported_by(package / category / "__init__.py")) if package else []


def _imported_by(init: Path) -> list[str]:
    """The sets that the `__init__.py` of a category imports by the names of their classes: Cifar10, SvhnCropped."""
    if not init.is_file() or init.parent.name == "core":
        return []
    imported = _IMPORT.findall(init.read_text(encoding="utf-8"))
    return [
        _snake_case(cls) for category, cls in imported if category == init.parent.name and not cls.endswith("Config")
    ]


def _snake_case(cls: str) -> str:
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", cls)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words).lower()


def prepared(root: Path) -> list[str]:
    """The names of the sets that lie in a folder of prepared data, each with its configuration if it has one."""
    folders = {path.parent for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/dataset_info.json")}
    found = {folder.parent.relative_to(root).as_posix() for folder in folders if VERSION.fullmatch(folder.name)}
    return sorted(name for name in found if parse(name))


class Listed(NamedTuple):
    """A set that is shown in lists.

    Args:
        name: with its configuration when it lies prepared in one.
        about: what it is of, in words; empty for a set that is in no category of the package.
        is_prepared: whether it can be used at once.
    """

    name: str
    about: str
    is_prepared: bool


def listed(root: Path) -> list[Listed]:
    """The sets of images and of translations: first those that lie prepared in a folder, then those of the package."""
    about = dict.fromkeys(image_names(), "labelled images") | dict.fromkeys(translation_names(), "translations")
    there = prepared(root)
    return [Listed(name, about.get(name.partition("/")[0], ""), True) for name in there] + [
        Listed(name, about[name], False) for name in sorted(about) if name not in there
    ]


def downloads(dataset: str) -> dict[str, int]:
    """The addresses that the set comes from, over all configurations, each with the size of its file in bytes."""
    package = _package()
    lists = (f"url_checksums/{dataset}.txt", f"datasets/{dataset}/checksums.tsv", f"*/{dataset}/checksums.tsv")
    files = [path for pattern in lists for path in sorted(package.glob(pattern))] if package else []
    if not files:
        return {}
    lines = (re.split(r"[\t ]+", line.strip()) for line in files[0].read_text(encoding="utf-8").splitlines())
    # An old list parts address, size and checksum by spaces, a new one by tabs.
    return {parts[0]: int(parts[1]) for parts in lines if len(parts) >= 3 and parts[1].isdecimal()}


def shown(path: Path) -> str:
    """A path as people write it: `~/tensorflow_datasets`."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path != home and path.is_relative_to(home) else str(path)


def prepare_command(name: str, root: Path) -> str:
    """The command line that prepares a set in a folder."""
    return f"dlkit data prepare {name}" + ("" if root == data_dir() else f" --data-dir {shown(root)}")
