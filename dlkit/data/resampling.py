"""Which training examples a member of an ensemble sees: a bootstrap sample, or one of several parts. NumPy only.

What is drawn is a function of the number of examples and of what the recipe says, so a run resumes on the examples that
it began with, and the members of an ensemble can be trained one by one, in any order, on any machine.
"""

from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Kind = Literal["bootstrap", "head_bootstrap", "part"]


def bootstrap(count: int, *, seed: int, draw: int = 0) -> NDArray[np.int64]:
    """As many examples as there are, drawn with replacement (Breiman 1996, Bagging predictors, section 1).

    About 1 - 1/e = 63 % of the examples are among them, some of them several times. Augmentation is a function of seed,
    epoch and example, so within an epoch the copies of one are augmented alike.

    Args:
        count: number of examples.
        seed: of the draw.
        draw: number of the sample, where one seed needs several.

    Returns:
        (count,) numbers of examples, rising.
    """
    return np.sort(np.random.default_rng([seed, crc32(b"bootstrap"), draw]).integers(count, size=count))


def part_of(count: int, *, part: int, parts: int) -> NDArray[np.int64]:
    """One of several disjoint parts of the examples, which differ in size by one at most and together are all.

    The division does not depend on a seed, or the parts of runs with different seeds would overlap.

    Args:
        count: number of examples.
        part: which one, from 0.
        parts: how many there are.

    Returns:
        (count / parts,) numbers of examples, rising.

    Example:
        >>> sorted(np.concatenate([part_of(5, part=0, parts=2), part_of(5, part=1, parts=2)]).tolist())
        [0, 1, 2, 3, 4]
    """
    return np.sort(np.random.default_rng([crc32(b"parts"), parts]).permutation(count)[part::parts])


@dataclass(frozen=True)
class Resampling:
    """What `train.resample` asks for.

    Args:
        kind: `bootstrap`, a sample with replacement; `head_bootstrap`, one for each head of a net, so that the net sees
            all examples; `part`, one of several disjoint parts.
        seed: of the samples.
        part: which part, from 0.
        parts: how many there are.
    """

    kind: Kind
    seed: int = 0
    part: int = 0
    parts: int = 1

    def examples(self, count: int) -> NDArray[np.int64]:
        """The examples of an epoch, rising; one that was drawn twice stands twice."""
        match self.kind:
            case "bootstrap":
                return bootstrap(count, seed=self.seed)
            case "part":
                return part_of(count, part=self.part, parts=self.parts)
            case "head_bootstrap":
                return np.arange(count)

    def head_counts(self, count: int, heads: int) -> NDArray[np.float32]:
        """How often each example is in the sample of each head, (count, heads)."""
        samples = (bootstrap(count, seed=self.seed, draw=head) for head in range(heads))
        return np.stack([np.bincount(sample, minlength=count) for sample in samples], axis=1).astype(np.float32)

    def describe(self, count: int) -> str:
        """What becomes of so many examples, in one line for people."""
        match self.kind:
            case "bootstrap":
                different = len(np.unique(self.examples(count)))
                return f"bootstrap: {count:,} examples drawn with replacement, {different:,} different ones"
            case "part":
                return f"part {self.part} of {self.parts}: {len(self.examples(count)):,} of {count:,} examples"
            case "head_bootstrap":
                return f"bootstrap: each head weighs the {count:,} examples by a sample of its own"
