"""Parallel texts in files: a folder of `train.en`, `train.de`, ..., two such files, or one table with tabs.

Line i of one file is the translation of line i of the other, so nothing is ever skipped while reading: a line ends with
a line feed and with nothing else (Unicode knows ten more line ends, and text from the web has them), and what is wrong
with a file is told with the number of the line.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dlkit import file_system
from dlkit.data.holdout import HeldOut, How, hold_out
from dlkit.data.pairs import PairData, Texts, prepared
from dlkit.data.split_names import ROLES, check_held_out, split_of
from dlkit.data.text_files import read_lines
from dlkit.errors import DataError, UsageError, nearest, not_there

TABLES = (".tsv", ".txt")
# A file of a folder without .gz: name and language.
_FILE = re.compile(r"(?P<stem>.+)\.(?P<language>[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*)", re.ASCII)
# A language, or the number of a table's column.
Side = str | Annotated[int, Field(ge=1)] | None
_NO_LANGUAGES = {"txt", "tsv", "csv", "md", "py", "sh", "gz", "zip", "tar", "npz", "npy", "png", "jpg", "gif", "bmp"}


def is_parallel(name: str) -> bool:
    """Whether a data name means parallel texts: a table, two files with a comma between, or a folder with `train.xx`.

    A name that ends in `.tsv` or `.txt`, perhaps with `.gz`, means a table whether or not there is such a file.

    Example:
        >>> is_parallel("pairs.tsv.gz"), is_parallel("digits")
        (True, False)
    """
    if _is_table(name) or two_files(name):
        return True
    return "train" in _roles(name)


def is_undivided(name: str) -> bool:
    """Whether a data name means a folder with `train.xx` and no texts to validate or to test on."""
    return _roles(name) - {""} == {"train"}


def _roles(name: str) -> set[str]:
    root = file_system.expanded(name)
    return set(map(_role, _files(root))) if file_system.is_folder(root) else set()


@prepared
def parallel(
    name: str,
    *,
    source: Side = None,
    target: Side = None,
    validation_file: str | None = None,
    test_file: str | None = None,
    validation: HeldOut = None,
    test: HeldOut | Literal["all"] = None,
    split: How = "strict",
    seed: int = 0,
) -> PairData:
    """Parallel texts from files in UTF-8, each plain or `.gz`.

    `name` is one of: a folder with `train.en`, `train.de` and perhaps `val.en`, `test.en`, ... (`valid`, `dev` and
    `validation` mean the same as `val`; a file with another name that has `test` in it is the test split when it is the
    only one, else a split of its own name); two files as `train.en,train.de`, the source first; a table with a tab
    between its columns, `.tsv` or `.txt`.

    Args:
        name: see above.
        source: language of a folder, or number of a table's column, from 1; where there are two, one of the two
            options is enough for a folder, and none is needed for a table.
        target: as `source`.
        validation_file: two files or a table to validate on, for data that are no folder.
        test_file: the same for testing.
        validation: size of the validation part where there is none, below 1 as a share; by default 5 %, at most 2,000.
        test: the same for the test part where there is none; by default none is held out of data that have another
            split. `all` leaves none to train on, where there are no splits at all.
        split: how these parts are chosen, see `dlkit.data.holdout`.
        seed: chooses them.

    Raises:
        dlkit.errors.DataError: a file is missing, unreadable, no UTF-8 or not as long as its partner; an unknown
            language.
        dlkit.errors.UsageError: options that do not fit the data.

    Example:
        >>> parallel("multi30k", source="en", target="de").splits["train"].source_texts[0]
        'Two young, White males are outside near many bushes.'
    """
    source, target = (side if side is None else str(side) for side in (source, target))
    given = {"validation": validation_file, "test": test_file}
    if not _is_table(name) and not two_files(name):
        if any(given.values()):
            raise UsageError("data.validation_file and data.test_file are not for folders", "a folder has its own")
        splits, languages, notes = _from_folder(file_system.expanded(name), source, target)
    else:
        files = {"train": name} | {role: file for role, file in given.items() if file is not None}
        splits = {role: _from_files(file, source, target) for role, file in files.items()}
        languages, notes = _languages_of(name), ()
    splits, of_parts = with_parts(splits, validation=validation, test=test, how=split, seed=seed)
    return PairData(name, splits, languages=languages, notes=(*notes, *of_parts))


def with_parts(
    splits: dict[str, Texts], *, validation: HeldOut, test: HeldOut | Literal["all"], how: How, seed: int
) -> tuple[dict[str, Texts], tuple[str, ...]]:
    """Holds validation and test pairs out of `train` where there are none.

    Unless their number is given, test pairs are held out only of data that have no other split.

    Raises:
        dlkit.errors.UsageError: as `dlkit.data.holdout.hold_out`, or something is given for parts that are there.
    """
    check_held_out(splits, validation=validation, test=test)
    undivided = set(splits) == {"train"}
    if test == "all":
        return {"test": splits["train"]}, ()
    sizes: dict[str, HeldOut] = {} if "validation" in splits else {"validation": validation}
    if "test" not in splits and (undivided or test is not None):
        sizes["test"] = test
    for option, changed in (("split", how != "strict"), ("seed", seed != 0)):
        if changed and not sizes:
            there = ", ".join(splits)
            raise UsageError(f"data.{option} changes nothing: the data have the splits {there}", "leave it out")
    if all(size == 0 for size in sizes.values()):
        return splits, ()
    held = {role: sizes.get(role, 0) for role in ("validation", "test")}
    parts, notes = hold_out(splits["train"], validation=held["validation"], test=held["test"], how=how, seed=seed)
    found = splits | parts
    return {name: found[name] for name in (*ROLES, *found) if name in found}, notes


# ------------------------------------------------------------------------------------------------------------- folders


def _files(root: Path) -> list[Path]:
    """The files of a folder that are named as texts in a language are."""
    texts = [path for path in file_system.entries(root) if _parts(path)[1] not in {"", *_NO_LANGUAGES}]
    return list(filter(file_system.is_file, texts))


def _parts(path: Path) -> tuple[str, str]:
    """Stem and language of `train.en.gz`; two empty texts for other files."""
    match = _FILE.fullmatch(path.name.removesuffix(".gz"))
    return (match["stem"], match["language"]) if match else ("", "")


def _role(path: Path) -> str:
    stem = _parts(path)[0].casefold()
    return split_of(stem) or ("test" if "test" in stem else "")


def _from_folder(
    root: Path, source: str | None, target: str | None
) -> tuple[dict[str, Texts], tuple[str, str], tuple[str, ...]]:
    if not file_system.is_folder(root):
        raise not_there("folder", root)
    files: dict[str, dict[str, Path]] = {}  # stem -> language -> file
    for path in _files(root):
        stem, language = _parts(path)
        if language in files.setdefault(stem, {}):
            raise DataError(f"{root} has {path.name} twice, plain and compressed", "remove one of them")
        files[stem][language] = path
    stems = _stems_of_splits(root, list(files))
    if "train" not in stems:
        raise DataError(f"{root} has no texts to train on", "such as train.en and train.de")
    languages = chosen_languages(str(root), sorted(files[stems["train"]]), source, target)
    splits = {}
    for role, stem in stems.items():
        there = [language for language in languages if language in files[stem]]
        if len(there) == 1:
            missing = languages[0] if there[0] == languages[1] else languages[1]
            raise DataError(f"{root} has {files[stem][there[0]].name} but no {stem}.{missing}", "each text needs both")
        if there:
            splits[role] = read_both(*(files[stem][language] for language in languages))
    others = sorted(path.name for stem in files if stem not in stems.values() for path in files[stem].values())
    more = f" and {len(others) - 3} more files" if len(others) > 3 else ""
    notes = (f"left out {', '.join(others[:3])}{more}: no split is called so",) if others else ()
    return splits, languages, notes


def _stems_of_splits(root: Path, stems: Sequence[str]) -> dict[str, str]:
    """Split -> stem of its files. Of several tests each is a split of its own name."""
    found: dict[str, str] = {}
    by_role: dict[str, list[str]] = {}
    for stem in stems:
        by_role.setdefault(_role(Path(f"{stem}.en")), []).append(stem)
    for role in ROLES:
        same = by_role.get(role, [])
        named = [stem for stem in same if split_of(stem) == role]
        if len(named) > 1:
            raise DataError(f"{root}: {named[0]} and {named[1]} are the same split", "keep one of them")
        if named or len(same) == 1:
            found[role] = (named or same)[0]
        found |= {stem: stem for stem in same if stem not in found.values()}
    return found


def chosen_languages(name: str, there: list[str], source: str | None, target: str | None) -> tuple[str, str]:
    """Source and target language out of those that are there; of two, one needs not be said.

    Raises:
        dlkit.errors.DataError: there are no texts in one of the languages.
        dlkit.errors.UsageError: it is not said which languages are meant.
    """
    if source is not None and source == target:
        raise UsageError(f"source and target are both {source}", "name two languages or columns")
    known = f"{name} has {', '.join(there)}"
    for language in (source, target):
        if language is not None and language not in there:
            match = nearest(language, there)
            raise DataError(f"{name} has no texts in {language}", f"did you mean {match}? {known}" if match else known)
    others = [language for language in there if language not in {source, target}]
    if source is None and target is None:
        raise UsageError(f"data.source and data.target are missing: {known}", "such as `--source en --target de`")
    if source is None or target is None:
        if len(others) != 1:
            what = "source" if source is None else "target"
            raise UsageError(f"data.{what} is missing: {known}", f"such as `--{what} {others[0]}`" if others else "")
        return source or others[0], target or others[0]
    return source, target


# --------------------------------------------------------------------------------------------------------------- files


def _is_table(name: str) -> bool:
    return not two_files(name) and name.removesuffix(".gz").casefold().endswith(TABLES)


def two_files(name: str) -> list[str]:
    """The two files of `train.en,train.de`; none where a folder or a file has that name."""
    files = [part.strip() for part in name.split(",")]
    return files if len(files) == 2 and all(files) and not file_system.exists(file_system.expanded(name)) else []


def _languages_of(name: str) -> tuple[str, str]:
    codes = [_parts(Path(file))[1] for file in two_files(name)]
    return (codes[0], codes[1]) if len(codes) == 2 and not _NO_LANGUAGES & set(codes) else ("", "")


def _from_files(name: str, source: str | None, target: str | None) -> Texts:
    if files := two_files(name):
        if source is not None or target is not None:
            raise UsageError(
                "data.source and data.target are for folders and tables", f"`{files[1]},{files[0]}` is the other way"
            )
        return read_both(*map(file_system.expanded, files))
    return _columns(file_system.expanded(name), _column("source", source), _column("target", target))


def _column(option: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", value):
        raise UsageError(
            f"data.{option} of a table is the number of a column, not {value}", "1 is the first column, 2 the second"
        )
    return int(value)


def read_both(source: Path, target: Path) -> Texts:
    """Two files of which line i of one is the translation of line i of the other.

    Raises:
        dlkit.errors.DataError: as `read_lines`, or one file has more lines.
    """
    sides = read_lines(source), read_lines(target)
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{source} has {len(sides[0]):,} lines but {target} has {len(sides[1]):,}",
            "line i of one has to be the translation of line i of the other",
        )
    return Texts(*sides)


def _columns(path: Path, source: int | None, target: int | None) -> Texts:
    """The columns of a table; an empty line is an empty pair."""
    if source is not None and source == target:
        raise UsageError(f"source and target are both column {source}", "name two columns")
    by_default = source is None and target is None
    if source is None or target is None:
        source, target = source or (2 if target == 1 else 1), target or (1 if source == 2 else 2)
    sides: tuple[list[str], list[str]] = ([], [])
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split("\t") if line else [""] * max(source, target)
        if len(cells) < max(source, target) or (by_default and len(cells) != 2):
            columns = f"{len(cells)} column{'s' * (len(cells) != 1)}"
            wanted = "not 2" if by_default else f"and column {max(source, target)} is asked for"
            hint = "`--source 1 --target 2` takes two of more" if len(cells) > 2 else "a tab parts source and target"
            raise DataError(f"{path} line {number:,} has {columns}, {wanted}", hint)
        sides[0].append(cells[source - 1])
        sides[1].append(cells[target - 1])
    return Texts(*sides)
