"""Values that people give: the types of options, what each accepts in words, and how TOML writes a value.

Recipes, builders, datasets and experiments say with these types what they take. Nothing here knows of a recipe, so that
models, of which recipes know, can check what they pass on to others.

This module imports pydantic, so what help and completion load imports it only where it is used.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dlkit import console
from dlkit.errors import UsageError, nearest


@dataclass(frozen=True)
class Words:
    """Says in words what an annotated type accepts, where its bounds do not."""

    text: str


Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

# -------------------------------------------------------------------------------------------------- checking of values


def check_call(
    function: Callable[..., Any], given: Mapping[str, Any], *, where: str, hidden: Iterable[str] = ()
) -> dict[str, Any]:
    """Checks keyword arguments against the signature of `function`, with the types of a recipe.

    Types are those of TOML: a list may stand for a tuple and an integer for a float, but neither text nor a truth value
    for a number. The text "none" stands for None where text is not accepted. Names that end in `dropout` are shares of
    at least 0 and below 1.

    Args:
        function: a builder or dataset function, a class or a functools.partial, with annotated parameters.
        given: the arguments by name.
        where: the section of the recipe that they come from, such as "model"; messages name `model.norm`.
        hidden: parameters that are not to be given here.

    Returns:
        What was given, converted to the annotated types; defaults are not filled in.

    Raises:
        dlkit.errors.UsageError: an unknown name, or a value that the annotation does not accept.

    Example:
        >>> check_call(lenet, {"dropout": 0.5}, where="model")
        {'dropout': 0.5}
    """
    parameters = {name: value for name, value in parameters_of(function).items() if name not in set(hidden)}
    checked = {}
    for name, value in given.items():
        if name not in parameters:
            raise unknown_key(where, name, parameters)
        checked[name] = check_value(parameters[name].annotation, value, f"{where}.{name}")
    return checked


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of `function` that have a default, by name."""
    parameters = parameters_of(function)
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What can be given to `function` by name, with its annotations resolved; unannotated ones take anything.

    Names that end in `dropout` are shares of at least 0 and below 1.
    """
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    if inspect.isclass(inner):  # a Keras model's __new__ takes anything: its __init__ says what it means
        bound = function if isinstance(function, partial) else partial(function)
        inner = inner.__init__
        signature = inspect.signature(partial(inner, None, *bound.args, **bound.keywords))
    else:
        signature = inspect.signature(function)
    hints = typing.get_type_hints(inner, include_extras=True)
    shares = {name: Annotated[hint, Ge(0), Lt(1)] for name, hint in hints.items() if name.endswith("dropout")}
    return {
        name: parameter.replace(annotation=(hints | shares).get(name, Any))
        for name, parameter in signature.parameters.items()
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    }


def unknown_key(where: str, name: str, known: Iterable[str]) -> UsageError:
    """What is to be said of a key that is none: the nearest of the known ones, else all of them."""
    known = list(known)
    match = nearest(name, known)
    if match:
        return UsageError(f"unknown key: {where}.{name}", f"did you mean `{where}.{match}`?")
    return UsageError(f"unknown key: {where}.{name}", f"[{where}] knows {', '.join(known) or 'no options here'}")


def check_value(annotation: Any, value: Any, key: str) -> Any:
    """Returns `value` converted to the type `annotation`; the text "none" is None where None is accepted.

    Raises:
        dlkit.errors.UsageError: the annotation does not accept it; the message names `key`, what is accepted and what
            came.
    """
    if value == "none" and type(None) in members(annotation) and value not in _choices(annotation):
        return None
    try:
        # By way of JSON, whose strict mode accepts just what TOML can mean: lists for tuples, text for paths.
        text = json.dumps(value, default=lambda v: v.item() if hasattr(v, "item") else str(v))
        return TypeAdapter(annotation, config={"allow_inf_nan": False}).validate_json(text, strict=True)
    except ValidationError:
        match = nearest(value, _choices(annotation)) if isinstance(value, str) else None
        hint = f"did you mean `{match}`?" if match else f"`{key}` comes from a flag, from `--set {key}=...` or a recipe"
        raise UsageError(f"{key} must be {accepted(annotation)}, not {toml_value(value)}", hint) from None


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def members(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone, without the bounds."""
    bare = _bare(annotation)
    union = typing.get_origin(bare) in {Union, types.UnionType}
    return [_bare(member) for member in typing.get_args(bare)] if union else [bare]


def _choices(annotation: Any) -> list[str]:
    """The words that an annotation with Literals names."""
    literals = [member for member in members(annotation) if typing.get_origin(member) is Literal]
    return [str(word) for literal in literals for word in typing.get_args(literal)]


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path", type(None): "none"}
_PLURALS = {int: "integers", float: "numbers", bool: "truth values", str: "texts", Path: "paths"}


def accepted(annotation: Any) -> str:
    """What a type accepts, in words.

    Example:
        >>> accepted(Annotated[int, Field(ge=1)] | None)
        'an integer of at least 1 or none'
    """
    if typing.get_origin(annotation) is Annotated:
        inner, *extras = typing.get_args(annotation)
        if len(members(inner)) > 1:  # the bounds are those of the numbers among them
            bounded = [m if m is type(None) else Annotated[m, *extras] for m in typing.get_args(inner)]
            return " or ".join(accepted(member) for member in bounded)
        described = [extra.text for extra in extras if isinstance(extra, Words)]
        return described[0] if described else accepted(inner) + _bounds(extras)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {Union, types.UnionType}:
        return " or ".join(accepted(member) for member in arguments)
    if origin is Literal:
        words = [str(word) for word in arguments]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if origin in {list, tuple}:
        items = [argument for argument in arguments if argument is not Ellipsis]
        alike = len(set(items)) == 1
        kind = _PLURALS.get(_bare(items[0]), "values") if alike else "values"
        bounds = _bounds(typing.get_args(items[0])[1:]) if alike and typing.get_origin(items[0]) is Annotated else ""
        count = f"{len(items)} " if origin is tuple and Ellipsis not in arguments else ""
        return f"a list of {count}{kind}{bounds}"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(extras: Iterable[Any]) -> str:
    """The bounds among the extras of an Annotated, in words: " of at least 0 and below 1"."""
    flat = [item for extra in extras for item in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
    words = {Ge: "of at least", Gt: "above", Le: "up to", Lt: "below"}
    limits = [f"{words[type(b)]} {getattr(b, type(b).__name__.lower())}" for b in flat if type(b) in words]
    return f" {' and '.join(dict.fromkeys(limits))}" if limits else ""


# ------------------------------------------------------------------------------------------------------------ TOML out


def toml_value(value: Any) -> str:
    """Returns `value` as TOML writes it; None, which TOML does not have, is "none".

    Invisible characters are written as escapes, so that a recipe looks like what it is.
    """
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(str(key))} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return '"' + "".join(_toml_character(character) for character in str(value)) + '"'


def _toml_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[character]
    if console.is_invisible(character):
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character


def toml_key(key: str) -> str:
    """Returns a key as TOML writes it: in quotes where it has to be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)
