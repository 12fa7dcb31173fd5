import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.data.holdout import _one_word_away, hold_out
from dlkit.data.pairs import Texts
from dlkit.errors import UsageError

words = st.lists(st.sampled_from("abc"), max_size=5)


def edit_distance(one, two):
    """Wagner and Fischer 1974, over words."""
    row = list(range(len(two) + 1))
    for i, word in enumerate(one, 1):
        before, row = row, [i]
        for j, other in enumerate(two, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]


@settings(deadline=None, max_examples=300)
@given(st.lists(words, max_size=6), st.lists(words, max_size=6))
def test_one_word_away_is_an_edit_distance_of_at_most_1(candidates, others):
    near = _one_word_away([" ".join(c) for c in candidates], [" ".join(o) for o in others])
    assert near.tolist() == [any(edit_distance(c, o) <= 1 for o in others) for c in candidates]


@pytest.mark.parametrize(
    ("candidate", "other", "near"),
    [
        ("Je dors.", "je DORS !", True),
        ("Je dors.", "Tu dors.", True),
        ("Je dors bien.", "Je dors.", True),
        ("Je dors.", "Je ne dors pas.", False),
        ("Bien, je dors.", "Je dors bien.", False),  # a word that has moved is two edits
        ("L'eau est là.", "De l'eau est là.", True),
        ("L'eau est froide.", "Leau est là.", True),
        ("Va-t-il dormir ?", "Va t il dormir bien ?", True),  # hyphens may be spaces
        ("Où\u00a0?", "Où ça\u202f?", True),
    ],
)
def test_case_and_punctuation_do_not_count(candidate, other, near):
    assert _one_word_away([candidate], [other]).tolist() == [near]


def normalized(text):
    return re.sub(r"[^\w\s]", "", text.lower()).split()


def corpus(n, seed=0):
    """Sentences of 3 to 6 words out of 30, in two languages, many of which occur in several pairs."""
    random = np.random.default_rng(seed)
    source = [" ".join(f"s{w}" for w in random.integers(0, 30, random.integers(3, 7))) for _ in range(n)]
    target = [" ".join(f"t{w}" for w in random.integers(0, 30, random.integers(3, 7))) for _ in range(n)]
    rows = random.integers(0, n, (n, 2))
    return Texts([source[i] + random.choice(["", "!", "."]) for i in rows[:, 0] // 2 * 2],
                 [target[j].capitalize() for j in rows[:, 1]])  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_the_strict_split_leaks_nothing(seed):
    texts = corpus(800, seed)
    splits, notes = hold_out(texts, validation=30, test=40, seed=seed)
    assert list(splits) == ["train", "validation", "test"]
    assert len(splits["validation"]) <= 30
    assert 0 < len(splits["test"]) <= 40
    for one, two in itertools.combinations(splits, 2):
        for side in ("source", "target"):
            a, b = ({tuple(normalized(text)) for text in getattr(splits[name], side)} for name in (one, two))
            assert not a & b
    train = [normalized(text) for text in splits["train"].source]
    for text in splits["test"].source:
        assert min(edit_distance(normalized(text), other) for other in train) > 1
    left_out = len(texts) - sum(map(len, splits.values()))
    assert left_out == 0 or notes == (
        f"left {left_out} of {len(splits['test']) + left_out} test pairs out: one word away from a training sentence",
    )


def test_pairs_are_joined_by_others():
    """1-2-3 by a source, then by a target: whoever goes to a part takes the others along."""
    texts = Texts(["a b c d", "A b, c d!", "e f g h", "i j k l"], ["q r s t", "u v w x", "u v w x?", "y z y z"])
    for seed in range(10):
        splits, _ = hold_out(texts, validation=0, test=1, seed=seed)
        assert list(splits["test"].source) == ["i j k l"]
    twice = Texts([*texts.source[:3], "m n", "M, n", "o"], [*texts.target[:3], "a b", "c d", "a b."])
    parts = {tuple(hold_out(twice, validation=3, test=0, seed=seed)[0]["validation"].source) for seed in range(10)}
    assert parts == {tuple(twice.source[:3]), tuple(twice.source[3:])}


def test_the_side_that_is_read_is_compared_word_by_word():
    texts = Texts(["a b c", "a b d", "e f g h i"], ["k l m n o", "p q r s t", "u v w x y"])
    seeds = range(20)
    kept = {len(hold_out(texts, validation=0, test=1, seed=seed)[0].get("test", ())) for seed in seeds}
    assert kept == {0, 1}  # the first two are left out
    for seed in seeds:
        assert len(hold_out(texts, validation=0, test=1, seed=seed, read_side="target")[0]["test"]) == 1


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
def test_the_random_split_has_the_sizes_that_are_asked_for(total, validation, test, seed):
    texts = Texts([str(i) for i in range(total)], [f"-{i}" for i in range(total)])
    if validation + test >= total:
        with pytest.raises(UsageError, match="leave nothing"):
            hold_out(texts, validation=validation, test=test, how="random", seed=seed)
        return
    splits, notes = hold_out(texts, validation=validation, test=test, how="random", seed=seed)
    sizes = {"train": total - validation - test, "validation": validation, "test": test}
    assert {name: len(split) for name, split in splits.items()} == {
        name: size for name, size in sizes.items() if size or name == "train"
    }
    rows = [int(text) for split in splits.values() for text in split.source]
    assert sorted(rows) == list(range(total))
    assert all(t == f"-{s}" for split in splits.values() for s, t in zip(split.source, split.target, strict=True))
    assert notes == ()


@pytest.mark.parametrize(("part", "size"), [(0.1, 10), (7, 7), (None, 5), (0, 0)])
def test_sizes_are_numbers_or_shares(part, size):
    texts = Texts([str(i) for i in range(100)], [str(i) for i in range(100)])
    splits, _ = hold_out(texts, validation=part, test=0, how="random")
    assert len(splits.get("validation", ())) == size


def test_the_seed_chooses():
    texts = corpus(300)
    one, again, other = (hold_out(texts, validation=10, test=10, seed=seed)[0] for seed in (1, 1, 2))
    assert one == again
    assert one["validation"] != other["validation"]


def test_when_all_sentences_hang_together_it_says_so():
    texts = Texts(["same"] * 100, [str(i) for i in range(100)])
    with pytest.raises(
        UsageError, match="only 0 pairs for test share no sentence with the rest: 5 are wanted"
    ) as caught:
        hold_out(texts)
    assert "data.split=random" in caught.value.hint
    assert len(hold_out(texts, how="random")[0]["test"]) == 5
