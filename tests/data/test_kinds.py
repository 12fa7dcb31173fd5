"""What a data name means where no model asks for one kind of data."""

import pytest

from dlkit import data
from dlkit.data.kinds import kind_of
from dlkit.errors import UsageError

NAMED = {
    "digits": "images", "synthetic:shapes": "images", "tatoeba": "pairs", "synthetic:copy": "pairs",
    "synthetic:order": "labelled_texts", "synthetic:next_marker": "tagged_texts", "shakespeare": "corpus",
    "three_sentences": "corpus", "synthetic:adding": "sequences", "synthetic:moving_digits": "videos",
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), NAMED.items())
def test_our_own(name, kind):
    assert kind_of(name) == kind


def test_every_set_of_the_table_has_a_kind_that_loads_it():
    for name in data.DATASETS:
        made = data.makes(data.builder(name))
        assert data.KINDS[kind_of(name)].target.endswith(f":{made}"), name


FILES = {
    "a.txt": ({"a.txt": "to be"}, "corpus"),
    "a.tsv": ({"a.tsv": "ein\ta"}, "pairs"),
    "a.conll.gz": ({"a.conll.gz": ""}, "tagged_texts"),
    "talks/": ({"talks/train.en": "a", "talks/train.de": "b"}, "pairs"),
    "reviews/": ({"reviews/neg.txt": "bad", "reviews/pos.txt": "good"}, "labelled_texts"),
    "polarity/": ({"polarity/rt.neg": "bad", "polarity/rt.pos": "good", "polarity/README": ""}, "labelled_texts"),
    "table/": ({"table/train.tsv": "neg\tbad"}, "labelled_texts"),
    "photos/": ({"photos/cat/1.png": "", "photos/dog/1.png": ""}, "images"),
    "pictures/": ({"pictures/captions.txt": "1.png\tx", "pictures/1.png": ""}, "captions"),
    "flickr/": ({"flickr/text/Flickr8k.token.txt": "", "flickr/a.tar": ""}, "captions"),
    "mixed/": ({"mixed/a.png": "", "mixed/a.jpg": ""}, "images"),  # which differ in their endings, as classes do
    "missing/": ({}, "images"),
}


@pytest.mark.parametrize("name", FILES)
def test_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, kind = FILES[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert kind_of(name) == kind


def test_the_user_knows_better():
    assert kind_of("synthetic:shapes", wanted="captions") == "captions"
    with pytest.raises(UsageError, match="kind of data") as failure:
        kind_of("digits", wanted="image")
    assert "images" in str(failure.value.hint)
