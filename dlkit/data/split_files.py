"""Folders that hold a file for each split, named after it."""

from collections.abc import Sequence
from pathlib import Path

from dlkit import file_system
from dlkit.data.split_names import ROLES, split_of
from dlkit.errors import DataError


def files_by_role(root: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Split -> its file in a folder: `train.txt` or `Dev.txt.gz`; other files are passed over.

    Args:
        root: the folder.
        endings: of the names, in small letters, such as `.txt`.

    Raises:
        dlkit.errors.DataError: the folder cannot be read, or two files are the same split.
    """
    found: dict[str, Path] = {}
    for path in filter(file_system.is_file, file_system.entries(root)):
        name = path.name.casefold().removesuffix(".gz")
        ending = next((ending for ending in endings if name.endswith(ending)), "")
        role = split_of(name.removesuffix(ending)) if ending else None
        if role is None:
            continue
        if role in found:
            raise DataError(f"{root}: {found[role].name} and {path.name} are the same split", "keep one of them")
        found[role] = path
    return {role: found[role] for role in ROLES if role in found}
