"""Checks the spaces of a search against the recipe, before the first trial. Loads neither TensorFlow nor Optuna."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence

from dlkit import workers
from dlkit.errors import UsageError, unknown
from dlkit.recipe import FLAGS, Recipe, is_read
from dlkit.train.search.space import Space, Value

# Keys that make trials incomparable, and why.
NOT_SEARCHED = {
    "train.monitor": "it is what trials are compared by",
    "train.select": "a trial stands for its best checkpoint",
    "data.name": "trials on other data cannot be compared",
}


def check(spaces: Sequence[Space], resolve: Callable[[Mapping[str, str]], Recipe]) -> Recipe:
    """Checks that the recipe takes both ends of every range, and every choice.

    Args:
        spaces: of the search.
        resolve: gives the recipe with these values, "section.key" -> text, above all others.

    Returns:
        The recipe without any of them: what the trials have in common.

    Raises:
        dlkit.errors.DlkitError: an unknown key or a wrong value, as `train --set` says it.
    """
    base = resolve({})
    for space in spaces:
        if space.key in NOT_SEARCHED:
            raise UsageError(f"{space.key} cannot be searched: {NOT_SEARCHED[space.key]}", "leave it out")
        if base.sources.get(space.key) in {"set", "flag"}:
            raise UsageError(f"{space.key} is searched, and set besides", "leave one of them out")
        for value in space.choices or (space.rounded(space.low), space.rounded(space.high)):
            text = str(int(value)) if space.kind == "int" else str(value)
            try:
                resolve({space.key: text, **_companions(space.key, spaces)})
            except UsageError as failure:
                failure.hint = _hint(failure, space)
                raise
    _check_model(base.model.name, [space.key for space in spaces])
    return base


def _hint(failure: UsageError, space: Space) -> str:
    """The hint of a mistake in words of the search: it has other options than `train`."""
    if space.kind == "float" and failure.message.startswith(f"{space.key} must be an integer"):
        return f"`{space.key}=int:{space.low:g}..{space.high:g}` draws integers"
    if failure.message.startswith(f"{space.key} must be"):
        return f"every value of {space.key}={space} must be one that the recipe takes"
    hint = failure.hint
    for key, flag in FLAGS.items():
        hint = hint.replace(f"{flag} ", f"--set {key}=")
    return hint


def _companions(key: str, spaces: Sequence[Space]) -> dict[str, str]:
    """Searched choices of other keys beside which `key` has a meaning: those of the optimizer for the momentum."""
    return {
        other.key: next(choice for choice in other.choices if is_read(key, {other.key: choice}))
        for other in spaces
        if other.key != key and any(is_read(key, {other.key: choice}) for choice in other.choices)
        if not all(is_read(key, {other.key: choice}) for choice in other.choices)
    }


def _check_model(model: str, keys: Sequence[str]) -> None:
    """Checks that a model has options of these names.

    To know them takes TensorFlow, which another process loads, since this one may have to stay for days.
    """
    options = [key for key in keys if key.startswith("model.") and key != "model.name"]
    if not options or "model.name" in keys:
        return
    listing = workers.command(["recipes", "keys", "model.", "--model", model, "--json"])
    done = subprocess.run(listing, check=False, capture_output=True, stdin=subprocess.DEVNULL, text=True)
    if done.returncode != 0:  # the trials will say why
        return
    known = [entry["key"] for entry in json.loads(done.stdout)]
    for key in options:
        if key not in known:
            raise unknown("key", key, known, f"`dlkit recipes keys {model}` lists all")


def read(values: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the values of a trial that mean something beside the others."""
    return {key: value for key, value in values.items() if is_read(key, values)}
