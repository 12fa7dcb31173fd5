"""Batches of about so many tokens: pairs of similar length together, in few shapes. Light: NumPy only.

Sentences differ in length, so batches of so many sentences are half padding. Here pairs are sorted into buckets by the
longer of their sides; a bucket has one padded shape, and as many rows as fit into the number of tokens.
"""

from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dlkit.data.batching import shuffled

Lengths = NDArray[np.int64]
# Most tokens that are worked on at once when nothing is learned, padding included, unless a single text has more: of
# texts that are classified or tagged; and of those that are written or scored, where each token has logits for the
# whole vocabulary: those of 8,192 tokens among 32,000 take 1 GiB.
TOKENS_READ, TOKENS_WRITTEN = 32_768, 8192
# At most so many: each has a shape of its own.
BUCKETS = 16
# Buckets end at lengths that occur; of more different ones evenly chosen ones are looked at.
_MOST_LENGTHS = 512


class Shape(NamedTuple):
    """What a batch is padded to.

    Args:
        rows: pairs of a full batch.
        source: time steps of the sources.
        target: time steps of the targets.
    """

    rows: int
    source: int
    target: int


class TokenBatches:
    """Divides pairs into batches in which rows x padded source and rows x padded target are at most `batch_tokens`.

    Which bucket a pair is in does not depend on the epoch. What is left over when a bucket is cut into full batches is
    moved to the next longer bucket, unless that is more than twice as long. So all batches but the last of the longest
    bucket (and of one before such a gap) are full, few shapes occur, and all epochs have as many batches.

    Args:
        source_lengths: (n,) tokens of each source, the end token included, as `PairSplit.lengths` gives them.
        target_lengths: (n,) the same for the targets.
        batch_tokens: most tokens of a side of a batch, padding included. A longer pair is a batch of its own.

    Example:
        >>> batches = TokenBatches(*split.lengths, batch_tokens=4096)
        >>> first = batches.epoch(0, seed=0)[0]
        >>> made = batch(split, first, lengths=batches.lengths(first))
    """

    def __init__(self, source_lengths: Lengths, target_lengths: Lengths, *, batch_tokens: int) -> None:
        source, target = np.asarray(source_lengths), np.asarray(target_lengths)
        longer = np.maximum(source, target)
        ends = _ends(longer, BUCKETS)
        rows = np.maximum(batch_tokens // ends, 1)
        bucket = np.searchsorted(ends, longer)
        # From the shortest to the longest by the first key, so that the longest ones are moved up.
        self._by_length = np.lexsort((np.arange(len(longer)), np.minimum(source, target), longer))
        counts = np.bincount(bucket, minlength=len(ends))
        for at in range(len(ends) - 1):
            over = counts[at] % rows[at] if ends[at + 1] <= 2 * ends[at] else 0
            counts[at] -= over
            counts[at + 1] += over
        self._bucket = np.empty_like(bucket)
        self._bucket[self._by_length] = np.repeat(np.arange(len(ends)), counts)
        self.shapes = [
            Shape(
                int(r), int(source[self._bucket == at].max(initial=0)), int(target[self._bucket == at].max(initial=0))
            )
            for at, r in enumerate(rows)
        ]
        # Where the pairs, in the order of their buckets, are cut.
        firsts = np.cumsum(counts) - counts
        starts = [np.arange(first, first + count, r) for first, count, r in zip(firsts, counts, rows, strict=True)]
        self._cuts = np.concatenate(starts)[1:] if len(longer) else np.zeros(0, np.int64)
        padded = np.array([shape.source + shape.target for shape in self.shapes]) @ counts if len(longer) else 0
        self.padding_share = 1 - float((source.sum() + target.sum()) / padded) if padded else 0.0

    def __len__(self) -> int:
        """Number of batches of any epoch."""
        return len(self._cuts) + 1 if len(self._bucket) else 0

    def epoch(self, epoch: int | None, *, seed: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch as arrays of rows; each pair is in one of them.

        Args:
            epoch: pairs and batches are shuffled as (seed, epoch) say; None for the order of their lengths.
            seed: the run's seed.
        """
        if not len(self):
            return []
        if epoch is None:
            return np.split(self._by_length, self._cuts)
        order = shuffled(len(self._bucket), seed=seed, epoch=epoch)
        batches = np.split(order[np.argsort(self._bucket[order], kind="stable")], self._cuts)
        mixed = np.random.default_rng([seed, crc32(b"batches"), epoch]).permutation(len(batches))
        return [batches[at] for at in mixed]

    def lengths(self, batch: NDArray[np.int64]) -> tuple[int, int]:
        """Time steps that the sources and the targets of a batch are padded to, the same for all of its bucket."""
        shape = self.shapes[self._bucket[batch[0]]]
        return shape.source, shape.target


# Texts are sorted by length within so many batches at a time, so that what meets in a batch still differs by epoch.
_SORTED_BATCHES = 32


def of_like_length(lengths: Lengths, batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Batches of so many texts each, the last one perhaps smaller, as arrays of rows: those of like length together.

    Args:
        lengths: (n,) tokens of each text.
        batch_size: texts of a batch.
        seed: the run's seed.
        epoch: texts and batches are shuffled as (seed, epoch) say.
    """
    order, size = shuffled(len(lengths), seed=seed, epoch=epoch), _SORTED_BATCHES * batch_size
    pools = (order[start : start + size] for start in range(0, len(order), size))
    ordered = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    batches = [pool[start : start + batch_size] for pool in ordered for start in range(0, len(pool), batch_size)]
    mixed = np.random.default_rng([seed, crc32(b"batches"), epoch]).permutation(len(batches))
    return [batches[at] for at in mixed]


def _ends(lengths: Lengths, most: int) -> Lengths:
    """The lengths at which up to `most` buckets end, so that the sum of what is added to each is the least possible.

    Dynamic programming over the lengths that occur, l_1 < ... < l_m with c_i of them up to l_i: the cost of j buckets
    that end in l_i is best_j(i) = min over h < i of best_{j-1}(h) + (c_i - c_h) l_i.
    """
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) > _MOST_LENGTHS:
        chosen = np.linspace(0, len(values) - 1, _MOST_LENGTHS).round().astype(int)
        counts = np.diff(np.cumsum(counts)[chosen], prepend=0)
        values = values[chosen]
    if len(values) <= most:
        return values
    up_to = np.cumsum(counts)
    step = (up_to[np.newaxis, :] - up_to[:, np.newaxis]) * values.astype(float)  # (h, i), from h to i in one bucket
    step[np.tril_indices(len(values))] = np.inf
    best, previous = up_to * values.astype(float), []
    for _ in range(most - 1):
        total = best[:, np.newaxis] + step
        previous.append(total.argmin(axis=0))
        best = total.min(axis=0)
    ends = [len(values) - 1]
    for before in reversed(previous):
        ends.append(int(before[ends[-1]]))
    return values[ends[::-1]]


def longest_first(lengths: Lengths, batch_size: int, *, most_tokens: int) -> list[NDArray[np.int64]]:
    """Batches of like length to evaluate on, the longest first: what does not fit into memory is seen at once.

    Args:
        lengths: (n,) of each sequence, padded to the longest of its batch.
        batch_size: most rows of a batch.
        most_tokens: most tokens of a batch, padding included, unless a single row has more.

    Returns:
        The rows of each batch.
    """
    order = np.argsort(lengths, kind="stable")
    batches = []
    while len(order):
        rows = min(batch_size, max(1, most_tokens // max(1, int(lengths[order[-1]]))))
        batches.append(order[-rows:])
        order = order[:-rows]
    return batches
