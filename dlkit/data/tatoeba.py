"""English-French sentence pairs of Tatoeba, which come with dlkit: 138,704 of them, in files/tatoeba.tsv.gz."""

import gzip
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field

from dlkit.data.holdout import HeldOut, How, hold_out
from dlkit.data.pairs import PairData, Texts, prepared
from dlkit.errors import UsageError

Language = Literal["en", "fr"]


@prepared
def tatoeba(
    *,
    source: Language | None = None,
    target: Language | None = None,
    split: How = "strict",
    validation: HeldOut = 2000,
    test: HeldOut = 3000,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> PairData:
    """Short everyday sentences, French to English; both directions have the same splits.

    The strict split (see `dlkit.data.holdout`) compares French sentences word by word in both directions. Of 3,000 test
    pairs it leaves about two thirds. The random one is for comparison with results elsewhere: half of its test pairs
    have their English side in training.

    Args:
        source: language of the sources, `fr` unless the target is.
        target: language of the targets.
        split: how validation and test pairs are chosen.
        validation: how many pairs to validate on, below 1 as a share.
        test: how many pairs to test on, before near ones are left out.
        seed: chooses them.

    Raises:
        dlkit.errors.UsageError: source and target are the same.

    Example:
        >>> tatoeba().languages
        ('fr', 'en')
    """
    if source is None:
        source = "en" if target == "fr" else "fr"
    if source == target:
        raise UsageError(f"source and target are both {source}", "tatoeba has en and fr")
    pairs = read() if source == "en" else _swapped(read())
    read_side: Literal["source", "target"] = "source" if source == "fr" else "target"
    splits, notes = hold_out(pairs, validation=validation, test=test, how=split, seed=seed, read_side=read_side)
    return PairData("tatoeba", splits, languages=(source, "fr" if source == "en" else "en"), notes=notes)


def read() -> Texts:
    """All pairs in the order of the file, English to French."""
    with resources.files("dlkit.data").joinpath("files/tatoeba.tsv.gz").open("rb") as file:
        lines = gzip.decompress(file.read()).decode().removesuffix("\n").split("\n")
    english, french = zip(*(line.split("\t") for line in lines), strict=True)
    return Texts(english, french)


def _swapped(texts: Texts) -> Texts:
    return Texts(texts.target, texts.source)
