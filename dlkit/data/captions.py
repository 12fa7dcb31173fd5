"""Images with captions: splits, tokenizer, and the pairs of an image and one of its captions to train on.

Images are those of `dlkit.data.images`; captions become ids as texts do in `dlkit.data.pairs`. One example of training
is one pair, and one of evaluation an image with all its captions.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data.images import ImageData, Split, fingerprint
from dlkit.data.pairs import Ragged, unknown_share, unknown_shares
from dlkit.data.tokenizer import UNKNOWN, Tokenizer
from dlkit.data.tokenizer_options import TokenizerOptions
from dlkit.errors import DataError, nothing_to_train_on

_SIDES = {"left": "right", "right": "left"}
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def sides_swapped(caption: str) -> str:
    """What an English caption becomes when its image is mirrored: left and right change places.

    Example:
        >>> sides_swapped("Left of the tree a boy raises his right arm .")
        'Right of the tree a boy raises his left arm .'
    """

    def swapped(match: re.Match[str]) -> str:
        other = _SIDES[match[0].lower()]
        return other.capitalize() if match[0][0].isupper() else other

    return _SIDE.sub(swapped, caption)


@dataclass(frozen=True, kw_only=True)
class CaptionPreparation(TokenizerOptions):
    """How captions become ids. All sets of captions that people wrote have these options.

    Args:
        lower: turn captions into lower case. What is written is then lower-case, too, and is compared with lower-cased
            references.
        max_length: drop captions of more tokens from training; None for no limit.
    """

    lower: bool = True
    max_length: Annotated[int, Field(ge=1)] | None = 60


@dataclass(frozen=True)
class CaptionSplit:
    """One split: `captions[i]`, one at least, describe image i. The labels of the images say nothing.

    Raises:
        dlkit.errors.DataError: there are not as many lists of captions as images, or one is empty.
    """

    images: Split
    captions: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise DataError(f"{len(self.images)} images but captions for {len(self.captions)}")
        if not all(self.captions):
            raise DataError("an image has no caption")

    def __len__(self) -> int:
        return len(self.captions)


class Pairs(NamedTuple):
    """The pairs of a split, in the order of its images.

    Args:
        image: (pairs,) which image each caption is of.
        ids: the captions, without start and end.
        texts: the same as texts.
    """

    image: NDArray[np.int64]
    ids: Ragged
    texts: list[str]


@dataclass(frozen=True)
class CaptionData:
    """A dataset of images with captions; tokenizer and ids are made when they are first asked for.

    Args:
        name: the name it is loaded by.
        splits: split name -> images and captions; without `train` they are for tests only.
        options: how the captions become ids.
        own: the tokenizer; None to train one on the training captions.
        mirror: makes of a caption that of the mirrored image.
        notes: lines for people.

    Raises:
        dlkit.errors.DataError: nothing is left to train on.
        dlkit.errors.UsageError: the vocabulary is too small for the text, or there is none to learn it from.
    """

    name: str
    splits: Mapping[str, CaptionSplit]
    options: CaptionPreparation = field(default_factory=CaptionPreparation)
    own: Tokenizer | None = None
    mirror: Callable[[str], str] = sides_swapped
    notes: tuple[str, ...] = ()

    def with_tokenizer(self, own: Tokenizer) -> "CaptionData":
        """The same data with the tokenizer of a run, so that none is trained."""
        return replace(self, own=own)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return next(iter(self.splits.values())).images.shape

    @property
    def images(self) -> ImageData:
        """The images alone."""
        return ImageData(self.name, [], {name: split.images for name, split in self.splits.items()})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Makes the ids of the captions."""
        if self.own is not None:
            return self.own
        if "train" not in self.splits:
            raise nothing_to_train_on(self.name, self.splits)
        return self.options.train(list(chain.from_iterable(self.splits["train"].captions)))

    @cached_property
    def _paired(self) -> tuple[dict[str, Pairs], dict[str, int]]:
        """The pairs of each split, and how many training captions are dropped for which reason."""
        found = {}
        for name, split in self.splits.items():
            counts = [len(captions) for captions in split.captions]
            texts = list(chain.from_iterable(split.captions))
            ids = Ragged.of(self.tokenizer.encode_all(texts))
            found[name] = Pairs(np.repeat(np.arange(len(split)), counts), ids, texts)
        if "train" not in found:
            return found, {}
        found["train"], dropped = _without_unfit(found["train"], self.options)
        if not len(found["train"].image):
            raise DataError(f"{self.name} has no caption to train on", "see data.max_length")
        return found, dropped

    def pairs(self, split: str) -> Pairs:
        """The pairs of a split; those of `train` without the dropped ones, the others as they came."""
        return self._paired[0][split]

    @cached_property
    def mirrored(self) -> Ragged:
        """The ids of the training captions as they are when the images are mirrored."""
        return Ragged.of(self.tokenizer.encode_all([self.mirror(text) for text in self.pairs("train").texts]))

    def remarks(self) -> list[str]:
        """What became of the captions, a line each for people."""
        lines, (found, dropped) = list(self.notes), self._paired
        if total := sum(dropped.values()):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
            read = sum(map(len, self.splits["train"].captions))
            lines.append(f"dropped {total:,} of {read:,} training captions: {reasons}")
        shares = {name: unknown_share(pairs.ids) for name, pairs in found.items()}
        return [*lines, *unknown_shares(shares, examples=self._unknown())]

    def _unknown(self) -> list[str]:
        """What is unknown of the training captions, the most frequent first."""
        pairs = self.pairs("train") if "train" in self.splits else None
        if pairs is None:
            return []
        of = np.repeat(np.arange(len(pairs.texts)), pairs.ids.lengths)
        rows = np.unique(of[pairs.ids.flat == UNKNOWN])
        counts = Counter(piece for row in rows.tolist() for piece in self.tokenizer.unknown(pairs.texts[row]))
        return sorted(counts, key=lambda piece: (-counts[piece], piece))

    def fingerprint(self) -> str:
        """sha256 of the training split's images, or of the files that they come from, and of its captions' ids."""
        pairs = self.pairs("train")
        digest = hashlib.sha256(fingerprint(self.splits["train"].images).encode())
        for array in (pairs.image, pairs.ids.lengths, pairs.ids.flat):
            digest.update(array.tobytes())
        return digest.hexdigest()


def _without_unfit(pairs: Pairs, options: CaptionPreparation) -> tuple[Pairs, dict[str, int]]:
    lengths = pairs.ids.lengths
    reasons = {"without a token": lengths == 0}
    if options.max_length is not None:
        reasons[f"longer than {options.max_length:,} tokens"] = lengths > options.max_length
    dropped = {reason: int(unfit.sum()) for reason, unfit in reasons.items()}
    rows = np.flatnonzero(~np.logical_or.reduce(list(reasons.values())))
    if len(rows) == len(lengths):
        return pairs, dropped
    return Pairs(pairs.image[rows], pairs.ids.take(rows), [pairs.texts[row] for row in rows]), dropped
