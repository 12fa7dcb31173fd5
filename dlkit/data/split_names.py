"""What people call the splits of their data, and what they are called here."""

from collections.abc import Collection, Mapping, Set
from typing import Annotated, Literal

from pydantic import Field

from dlkit.errors import UsageError

# How much of a split is held out for another one: a number of examples, or below 1 a share of them.
NumberOrShare = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]

# Split -> names of it, in small letters; the usual one first.
ROLES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "devel"),
    "test": ("test", "testing"),
}


def split_of(name: str) -> str | None:
    """The split that a folder, a file without its ending, or a word in a table names; None for other names.

    Example:
        >>> split_of("Training_Set"), split_of("dev"), split_of("cat")
        ('train', 'validation', None)
    """
    plain = name.casefold().replace("-", "_").removesuffix("_set")
    return next((split for split, names in ROLES.items() if plain in names), None)


def check_split(split: str, splits: Collection[str], name: str) -> None:
    """Raises a UsageError unless the dataset `name`, which has these splits, has one of that name."""
    if split not in splits:
        instead = "; `--split validation` takes that one" if split == "test" and "validation" in splits else ""
        raise UsageError(f"no split {split} in {name}", f"known: {', '.join(splits)}{instead}")


def check_held_out(
    splits: Collection[str], *, validation: float | None = None, test: float | Literal["all"] | None = None
) -> None:
    """Raises a UsageError when something is to be held out for a split that is there, or `all` of data with splits.

    Args:
        splits: that are there.
        validation: what `data.validation` is.
        test: what `data.test` is; `all` leaves none to train on.
    """
    if test == "all" and set(splits) != {"train"}:
        raise UsageError(f"data.test=all is for data without splits, not {', '.join(splits)}", "leave it out")
    for role, size in (("validation", validation), ("test", test)):
        if size and size != "all" and role in splits:
            raise UsageError(f"data.{role} is for data without such a split, and these have one", "leave it out")


def uncovered(there: Mapping[str, Set[str]], classes: Set[str]) -> dict[str, Set[str]]:
    """Which classes a split has no example of, though it should: of training any, else one that is learned.

    Args:
        there: split -> the classes that it has examples of.
        classes: all that there are.

    Example:
        >>> uncovered({"train": {"cat", "dog"}, "test": {"dog", "owl"}}, {"cat", "dog", "owl"})
        {'train': {'owl'}, 'test': {'cat'}}
    """
    return {split: (classes if split == "train" else there.get("train", set())) - has for split, has in there.items()}


def own_names(splits: Collection[str]) -> dict[str, str]:
    """What the splits of a prepared set are called here -> what the set calls them.

    `eval` is what some sets report on. A name that stands for a split that is there as well stays what it is.

    Example:
        >>> own_names(["training", "eval", "extra"])
        {'train': 'training', 'test': 'eval', 'extra': 'extra'}
    """
    found = {}
    for name in splits:
        split = "test" if name == "eval" else split_of(name) or name
        found[name if split in splits else split] = name
    return found
