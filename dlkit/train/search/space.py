"""Spaces of hyperparameters: what `train.lr=log:1e-4..1e-1` means, its grids, and coarse to fine.

- `0..0.5` is a number, drawn evenly, `log:1e-4..1e-1` one that is drawn evenly on a logarithmic scale;
- `int:1..4` is an integer, `int:log:16..512` one on a logarithmic scale;
- `{64,128,256}` is one of these;
- `log:1e-4..1e-1/5` is a range with five points for a grid.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from dlkit.errors import UsageError

Kind = Literal["float", "int", "choice"]
Value = float | int | str

EXAMPLES = "such as log:1e-4..1e-1, 0..0.5, int:1..4 or {64,128}; a grid of five points is log:1e-4..1e-1/5"
DIGITS = 4  # of a number that is drawn, where its range is wide
SHRINK = 0.5  # of every range, from one round of `--refine` to the next


@dataclass(frozen=True)
class Space:
    """The values that a recipe's key may take in a search.

    Args:
        key: "section.key" of the recipe.
        kind: a number, an integer, or one of some texts.
        low: the least value of a range.
        high: its greatest.
        log: whether values are drawn evenly on a logarithmic scale.
        choices: texts as `--set` takes them, of kind "choice".
        points: how many values of the range a grid has; None when it is no grid.
    """

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()
    points: int | None = None

    def __str__(self) -> str:
        """The space as it is written."""
        if self.kind == "choice":
            return "{" + ",".join(self.choices) + "}"
        prefix = ("int:" if self.kind == "int" else "") + ("log:" if self.log else "")
        return f"{prefix}{self.low:.9g}..{self.high:.9g}" + (f"/{self.points}" if self.points else "")

    def text(self, value: Value) -> str:
        """A value as `--set` takes it: numbers with four digits, and more where the range is narrow for its ends."""
        return f"{value:.{self._digits}g}" if self.kind == "float" else str(value)

    @property
    def _digits(self) -> int:
        """Significant digits: as many again as the ends of 0.9999..0.99999 have in common."""
        widths = max(abs(self.low), abs(self.high)) / (self.high - self.low)
        return min(17, DIGITS + max(0, math.floor(math.log10(widths))))

    def rounded(self, value: Value) -> Value:
        """The value that `text` says, within the range: what is stored is what is trained with."""
        if self.kind != "float":
            return value
        return min(max(float(self.text(value)), self.low), self.high)

    def to_unit(self, value: float) -> float:
        """Where in the range a number lies, from 0 to 1, on the scale that it is drawn on."""
        to = math.log if self.log else float
        return (to(value) - to(self.low)) / (to(self.high) - to(self.low))

    def from_unit(self, share: float) -> float:
        """The inverse of `to_unit`; of an integer the nearest one."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(self._typed(value), self.low), self.high)

    def _typed(self, value: float) -> float | int:
        return round(value) if self.kind == "int" else float(value)

    def grid(self) -> list[Value]:
        """The values of a grid: the points, even on the scale and with both ends, or the choices.

        Example:
            >>> parse(["train.lr=log:1e-4..1e-2/3"])[0].grid()
            [0.0001, 0.001, 0.01]
        """
        if self.kind == "choice":
            return list(self.choices)
        assert self.points is not None
        shares = (index / (self.points - 1) for index in range(self.points))
        return list(dict.fromkeys(self.rounded(self.from_unit(share)) for share in shares))

    def narrowed(self, best: Value, ranking: Sequence[str], rounds: int) -> "Space":
        """The part of the space that a later, finer round looks at.

        A range gets half as wide with every round, on its own scale, with the best value so far in the middle; at an
        end of the whole range it is moved inwards and not cut. A range of integers keeps the neighbours of the best.
        Of choices the better half stays, rounded up.

        Args:
            best: the value of the best trial so far.
            ranking: the choices, the best first, by the best score that each has had.
            rounds: rounds so far, at least 1.

        Example:
            >>> str(parse(["train.lr=log:1e-4..1"])[0].narrowed(0.01, (), 1))
            'log:0.001..0.1'
        """
        width = SHRINK**rounds
        if self.kind == "choice":
            kept = {best, *list(ranking)[: math.ceil(len(self.choices) * width)]}
            return replace(self, choices=tuple(choice for choice in self.choices if choice in kept))
        start = min(max(self.to_unit(float(best)) - width / 2, 0.0), 1.0 - width)
        low, high = self.from_unit(start), self.from_unit(start + width)
        if self.kind == "int":
            low, high = min(low, max(self.low, float(best) - 1)), max(high, min(self.high, float(best) + 1))
        return replace(self, low=low, high=high)


def grid_points(
    spaces: Sequence[Space], read: Callable[[Mapping[str, Value]], dict[str, Value]] = dict
) -> list[dict[str, Value]]:
    """All combinations of the values of grids, each once; the last key changes fastest.

    Args:
        spaces: ranges with points, or choices.
        read: leaves values out that nothing reads beside the others, so that several combinations may be one.
    """
    keys = [space.key for space in spaces]
    points = (read(dict(zip(keys, values, strict=True))) for values in product(*(space.grid() for space in spaces)))
    return list({tuple(point.items()): point for point in points}.values())


def narrowed(spaces: Sequence[Space], scored: Sequence[tuple[Mapping[str, Value], float]], rounds: int) -> list[Space]:
    """The spaces of a finer round, by what was found so far.

    Args:
        spaces: the whole spaces.
        scored: the values and the loss of each trial, lower losses being better. A key that the trials do not have
            keeps its whole space.
        rounds: rounds so far.
    """
    ordered = [values for values, _ in sorted(scored, key=lambda trial: trial[1])]
    found = []
    for space in spaces:
        values = [trial[space.key] for trial in ordered if space.key in trial]
        ranking = list(dict.fromkeys(str(value) for value in values))
        found.append(space.narrowed(values[0], ranking, rounds) if values and rounds else space)
    return found


# ------------------------------------------------------------------------------------------------------------- reading


def parse(operands: Iterable[str]) -> list[Space]:
    """Reads `key=space` operands.

    A shell may have made `train.batch_size=64 train.batch_size=128` of `train.batch_size={64,128}`: a key that comes
    several times with plain values has these for choices.

    Raises:
        dlkit.errors.UsageError: one of them is no space, or a key comes twice.

    Example:
        >>> [str(space) for space in parse(["train.lr=log:1e-3..1e-1", "model.norm=none", "model.norm=batch"])]
        ['log:0.001..0.1', '{none,batch}']
    """
    texts: dict[str, list[str]] = {}
    for operand in operands:
        key, equals, text = operand.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not text:
            raise UsageError(f"{operand} has no space to search", f"write `{key or 'section.key'}=SPACE`, {EXAMPLES}")
        texts.setdefault(key, []).append(text)
    return [_of_key(key, values) for key, values in texts.items()]


def _of_key(key: str, texts: list[str]) -> Space:
    spaces = [text for text in texts if ".." in text or text.startswith("{") or ":" in text]
    if len(texts) == 1 and spaces:
        return _choices(key, texts[0]) if texts[0].startswith("{") else _range(key, texts[0])
    if spaces:
        raise UsageError(f"{key} has two spaces: {texts[0]} and {texts[1]}", "give one")
    if len(texts) == 1:
        raise UsageError(
            f"{key}={texts[0]} is one value and no space", f"`--set {key}={texts[0]}` sets it; a space is {EXAMPLES}"
        )
    return _of_choices(key, texts, "{" + ",".join(texts) + "}")


def _choices(key: str, text: str) -> Space:
    if not text.endswith("}"):
        raise UsageError(f"{key}={text} has no end", "choices are written {64,128}, in quotes where a shell needs them")
    return _of_choices(key, _divided(text[1:-1]), text)


def _of_choices(key: str, words: list[str], text: str) -> Space:
    if any(not word for word in words) or len(set(words)) < 2 or len(set(words)) < len(words):
        raise UsageError(f"{key}={text} needs at least two choices, none empty and none twice", EXAMPLES)
    if any(".." in word for word in words):
        raise UsageError(f"{key}={text} has a range among its choices", "a range stands without braces: 1e-4..1e-1")
    return Space(key, "choice", choices=tuple(words))


def _divided(text: str) -> list[str]:
    """The words between commas, but for commas within brackets: `[0.5,0.75],[0.5]` is two."""
    words, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return [word.strip() for word in words]


def _range(key: str, text: str) -> Space:
    rest, prefixes = text, set()
    while (prefix := rest.partition(":")[0]) in {"log", "int"} and ":" in rest and prefix not in prefixes:
        prefixes.add(prefix)
        rest = rest.partition(":")[2]
    ends, slash, count = rest.partition("/")
    first, dots, last = ends.partition("..")
    kind: Kind = "int" if "int" in prefixes else "float"
    try:
        if not dots:
            raise ValueError
        low, high = (float(int(end)) if kind == "int" else float(end) for end in (first, last))
        points = int(count) if slash else None
    except ValueError:
        raise UsageError(f"{key}={text} is no space", EXAMPLES) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{key}={text}: a range goes from a lower number to a higher one", EXAMPLES)
    if "log" in prefixes and low <= 0:
        raise UsageError(f"{key}={text}: a logarithmic range begins above 0", "leave `log:` out, or begin higher")
    if points is not None and points < 2:
        raise UsageError(f"{key}={text}: a grid has at least two points", f"such as {ends}/5")
    return Space(key, kind, low, high, "log" in prefixes, points=points)
