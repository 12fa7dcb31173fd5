"""The options that a tokenizer is made by.

Not in `tokenizer`, which the command line reads before it knows that it needs pydantic.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dlkit.data import tokenizer as tokenizers
from dlkit.data.tokenizer import Kind, Normalization, Tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """How a tokenizer is made from training text. What becomes ids by one has these options, and others of its own.

    Args:
        tokenizer: `word` takes what is apart by white space, `unigram` and `bpe` learn pieces of words, `char` takes
            single characters.
        vocabulary: most ids of a tokenizer, the four special ones included.
        min_count: words that occur less often in training are `<unk>`; for `word`.
        coverage: share of the training text that the known characters make up; not for `word`.
        normalization: `nmt_nfkc` takes compatible characters and all white space as the same, `identity` leaves text
            alone; for `unigram` and `bpe`.
        lower: turn texts into lower case.
    """

    tokenizer: Kind = "word"
    vocabulary: Annotated[int, Field(ge=8)] = 8000
    min_count: Annotated[int, Field(ge=1)] = 2
    coverage: Annotated[float, Field(gt=0.9, le=1)] = 1.0
    normalization: Normalization = "nmt_nfkc"
    lower: bool = False

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer made from training text; see `tokenizer.train` for errors."""
        return tokenizers.train(
            self.tokenizer, texts, size=self.vocabulary, min_count=self.min_count, coverage=self.coverage,
            normalization=self.normalization, lower=self.lower,
        )  # fmt: skip
