import gzip
import re
from importlib import resources

import pytest

from dlkit import data
from dlkit.data.tatoeba import read, tatoeba
from dlkit.errors import UsageError


@pytest.fixture(scope="module")
def strict():
    return tatoeba()


def test_the_whole_file_ships_with_its_attribution():
    pairs = read()
    assert len(pairs) == 138_704
    assert (pairs.source[0], pairs.target[0]) == ("Go.", "Va !")
    assert all(pairs.source) and all(pairs.target)
    about = resources.files("dlkit.data").joinpath("files/README.md").read_text()
    assert all(word in about for word in ("tatoeba.tsv.gz", "CC BY 2.0 FR", "manythings.org", "138,704"))


def test_line_ends_of_unicode_are_none():
    content = resources.files("dlkit.data").joinpath("files/tatoeba.tsv.gz").read_bytes()
    assert gzip.decompress(content).count(b"\n") == 138_704


def test_french_to_english_by_default(strict):
    assert strict.languages == ("fr", "en")
    assert list(strict.texts) == ["train", "validation", "test"]
    assert len(strict.texts["validation"]) == 2000
    assert 2000 < len(strict.texts["test"]) < 3000
    english, french = (set(side) for side in (read().source, read().target))
    for texts in strict.texts.values():
        assert set(texts.source) <= french
        assert set(texts.target) <= english


def normalized(texts):
    return [" ".join(line.split()) for line in re.sub(r"[^\w\s]", "", "\n".join(texts).lower()).split("\n")]


def test_no_test_sentence_occurs_elsewhere(strict):
    """As somebody would check it who has not read the code; see test_holdout for the rest."""
    test = strict.texts["test"]
    rest = [strict.texts["train"], strict.texts["validation"]]
    for side in ("source", "target"):
        seen = {text for texts in rest for text in normalized(getattr(texts, side))}
        assert not seen & set(normalized(getattr(test, side)))
    train = set(normalized(strict.texts["train"].source[::10]))
    gaps = {(i, *words[:i], *words[i + 1 :]) for words in map(str.split, train) for i in range(len(words))}
    for words in map(str.split, normalized(test.source)):
        assert not any((i, *words[:i], *words[i + 1 :]) in gaps for i in range(len(words)))
        assert not any(" ".join([*words[:i], *words[i + 1 :]]) in train for i in range(len(words)))


def test_both_directions_have_the_same_splits(monkeypatch):
    some = read().take(range(60_000, 64_000))
    monkeypatch.setattr("dlkit.data.tatoeba.read", lambda: some)
    one, other = tatoeba(validation=100, test=200), tatoeba(target="fr", validation=100, test=200)
    assert (one.languages, other.languages) == (("fr", "en"), ("en", "fr"))
    for split, texts in one.texts.items():
        assert other.texts[split].source == texts.target
        assert other.texts[split].target == texts.source


def test_the_random_split_leaks():
    """52 % of the test pairs have their English side in training: measured before, on another draw."""
    texts = tatoeba(split="random").texts
    assert [len(part) for part in texts.values()] == [133_704, 2000, 3000]
    train = set(texts["train"].target)
    assert sum(text in train for text in texts["test"].target) / 3000 == pytest.approx(0.52, abs=0.03)


def test_languages_are_those_two():
    with pytest.raises(UsageError, match="both en"):
        tatoeba(source="en", target="en")
    with pytest.raises(UsageError, match=r"data.source must be one of en, fr or none, not \"de\""):
        data.load("tatoeba", source="de")
