"""The names of all datasets, and `load`. This module is light: a dataset's file is imported when it is loaded."""

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from dlkit.errors import UsageError, unknown

# name -> "module:function".
DATASETS: dict[str, str] = {
    "digits": "dlkit.data.digits:digits",
    "synthetic:reverse": "dlkit.data.synthetic:reverse",
}

_VERSION = re.compile(r"\*|\d+\.(\d+|\*)\.(\d+|\*)")


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


def builder(name: str) -> Callable[..., Any]:
    """Imports and returns the function that builds the dataset `name`.

    Raises:
        dlkit.errors.UsageError: there is no such dataset, or the name has a namespace: after a colon only a version may
            stand, and `synthetic:` is ours. Elsewhere a namespace can name code that is fetched from the network.
    """
    namespace, colon, rest = name.partition(":")
    if colon and namespace != "synthetic" and not _VERSION.fullmatch(rest):
        raise UsageError(
            f"a dataset name has no namespace: {name}",
            "after a colon only a version may stand, such as `:3.0.2`; `dlkit data list` lists all names",
        )
    if name not in targets():
        raise unknown("dataset", name, names(), "`dlkit data list` lists all")
    module, _, function = targets()[name].partition(":")
    return getattr(importlib.import_module(module), function)


def load(name: str, **options: Any) -> Any:
    """Builds the dataset `name`; the options are those of its builder, checked by name and type.

    Raises:
        dlkit.errors.UsageError: an unknown dataset or option, or a value of the wrong type.
        dlkit.errors.DataError: the data is missing or damaged.

    Example:
        >>> load("digits").shape
        (32, 32, 1)
    """
    from dlkit.recipe import check_call

    function = builder(name)
    return function(**check_call(function, options, where="data"))
