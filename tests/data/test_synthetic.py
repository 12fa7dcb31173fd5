from collections import Counter

import pytest

from dlkit.data.synthetic import copy, reverse
from dlkit.errors import UsageError


def sources(data, split):
    return [tuple(source) for source in data.splits[split].source]


def test_targets_are_the_sources_from_back_to_front():
    data = reverse(train=200, validation=20, test=30)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 200, "validation": 20, "test": 30}
    for split in data.splits.values():
        for source, target in zip(split.source, split.target, strict=True):
            text, reversed_text = data.source_tokenizer.decode(source), data.target_tokenizer.decode(target)
            assert reversed_text.split() == text.split()[::-1]
            assert 1 <= len(text.split()) <= 10
            assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_copies_are_the_sources_of_reverse_as_they_are():
    data, reversed_data = copy(train=50, validation=5, test=5), reverse(train=50, validation=5, test=5)
    for split, pairs in data.splits.items():
        assert list(pairs.source_texts) == list(pairs.target_texts) == list(reversed_data.splits[split].source_texts)
        assert [row.tolist() for row in pairs.target] == [row.tolist() for row in pairs.source]
    with pytest.raises(UsageError, match="synthetic:copy has 2 different sequences"):
        copy(length=1, symbols=2)


def test_texts_stand_beside_the_ids():
    split = reverse(train=20, validation=1, test=1).splits["train"]
    for source, target, text, answer in zip(
        split.source, split.target, split.source_texts, split.target_texts, strict=True
    ):
        assert answer == text[::-1]
        assert [ord(letter) - ord("a") + 4 for letter in text.split()] == source.tolist() == target[::-1].tolist()


def test_no_sequence_occurs_twice_over_all_splits():
    data = reverse(length=3, symbols=4, train=30, validation=5, test=5)
    assert max(Counter(s for split in data.splits for s in sources(data, split)).values()) == 1


def test_every_sequence_can_be_asked_for():
    data = reverse(length=3, symbols=2, train=10, validation=2, test=2)  # 2 + 4 + 8 exist
    assert len({s for split in data.splits for s in sources(data, split)}) == 14
    with pytest.raises(UsageError, match="14 different sequences of up to 3 out of 2 letters, and 15 are asked for"):
        reverse(length=3, symbols=2, train=11, validation=2, test=2)


def test_lengths_are_equally_likely_and_letters_too():
    data = reverse(length=10, symbols=5, train=6000)
    lengths = Counter(map(len, sources(data, "train")))
    # Of the long sequences next to none is drawn twice: some 900 remain of each length, give or take 30.
    assert max(lengths[n] for n in (7, 8, 9, 10)) < 1.2 * min(lengths[n] for n in (7, 8, 9, 10))
    letters = Counter(letter for source in sources(data, "train") for letter in source)
    assert sorted(letters) == [4, 5, 6, 7, 8]
    assert max(letters.values()) < 1.1 * min(letters.values())


def test_splits_have_the_same_share_of_each_length():
    data = reverse(length=4, symbols=4, train=100, validation=100, test=100)  # 4 + 16 + 64 + 256 exist
    for split in data.splits:
        short = sum(len(source) <= 2 for source in sources(data, split))
        # 20 of the 300 are this short; of 100 drawn from them 6.7, with a standard deviation of 2.
        assert 1 <= short <= 13, split


def test_the_seed_chooses_the_sequences():
    one, again, other = (sources(reverse(train=50, validation=1, test=1, seed=seed), "train") for seed in (3, 3, 4))
    assert one == again
    assert one != other
