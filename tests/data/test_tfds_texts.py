"""Sets with one text a record, made by the machinery of TensorFlow Datasets and read without it."""

from functools import cache

import pytest
from tiny_set import prepared

from dlkit import data
from dlkit.data import text_files
from dlkit.errors import DataError, UsageError

NAME = "tiny_texts"
# Configuration -> split -> number of texts.
CONFIGS = {
    "one": {"train": 1},
    "many": {"train": 20, "dev": 3, "test": 2},
    "undivided": {"training": 20},
    "several": {"train": 2},
    "beside": {"train": 2},
    "tested": {"test": 2},
}
NAMES = {"several": ["body", "title"], "beside": ["text", "version_id"]}  # of the texts of a record
DIGITS = "0123456789"


def text(split, number):
    return f"{split} {number} é\nits second line"


@cache
def builder_class():
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():  # no set of the package

        class TinyTexts(tfds.core.GeneratorBasedBuilder):
            """Texts, and in one configuration titles."""

            VERSION = tfds.core.Version("1.0.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in CONFIGS]  # noqa: RUF012

            def _info(self):
                names = NAMES.get(self.builder_config.name, ["body"])
                features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in names})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                counts = CONFIGS[self.builder_config.name]
                return {split: self._generate_examples(split, count) for split, count in counts.items()}

            def _generate_examples(self, split, count):
                config = self.builder_config.name
                first, *others = NAMES.get(config, ["body"])
                for number in range(count):
                    body = DIGITS * 4 if config == "one" else text(split, number)
                    yield number, {first: body} | dict.fromkeys(others, "none")

    return TinyTexts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for config in CONFIGS:
        prepared(builder_class, folder, config=config)
    return folder


def load(config, root, **options):
    return data.load_kind(f"{NAME}/{config}", "corpus", dir=root, **options)


def test_of_one_long_text_the_end_is_held_out(root):
    texts = load("one", root, validation=0.25).texts
    assert {name: list(of) for name, of in texts.items()} == {"train": [DIGITS * 3], "validation": [DIGITS]}
    assert list(load("one", root).texts["validation"]) == ["6789"], "a tenth of it by default"


def test_one_long_text_is_not_divided_within_a_word(root):
    texts = load("one", root, validation=0.25, tokenizer="word").texts
    assert {name: list(of) for name, of in texts.items()} == {"train": [DIGITS * 4], "validation": [""]}


def test_the_text_beside_others_is_the_one_called_so(root):
    texts = load("beside", root, validation=0).texts
    assert sorted(texts["train"]) == [text("train", 0), text("train", 1)]


def test_a_set_that_is_larger_than_the_memory(root, monkeypatch):
    size = len(DIGITS * 4)
    for there, fits in ((size, True), (size - 1, False)):
        monkeypatch.setattr(text_files, "memory", lambda there=there: text_files.BYTES_EACH * there)
        if fits:
            load("one", root)
        else:
            with pytest.raises(DataError, match="tiny_texts/one is too large for the memory"):
                load("one", root)


def test_of_many_texts_some_are_held_out(root):
    texts = load("undivided", root, validation=0.2).texts
    assert {name: len(of) for name, of in texts.items()} == {"train": 16, "validation": 4}
    assert sorted([*texts["train"], *texts["validation"]]) == sorted(text("training", n) for n in range(20))


def test_splits_have_the_names_that_are_used_here(root):
    texts = load("many", root).texts
    expected = {"train": ("train", 20), "validation": ("dev", 3), "test": ("test", 2)}
    assert {name: sorted(of) for name, of in texts.items()} == {
        name: sorted(text(split, number) for number in range(count)) for name, (split, count) in expected.items()
    }
    with pytest.raises(UsageError, match="data.validation is for data without such a split"):
        load("many", root, validation=0.1)


def test_texts_become_one_stream_with_an_end_between_them(root):
    found = load("many", root, tokenizer="char")
    stream = found.splits["test"]
    first, second = found.texts["test"]
    ids = [*found.tokenizer.encode(first), found.first, *found.tokenizer.encode(second)]
    assert stream.ids.tolist() == ids


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("several", "has not one text a record: it has body (text), title (text)"),
        ("tested", "has nothing to train on: its splits are test"),
    ],
)
def test_sets_that_are_no_running_text(root, config, message):
    with pytest.raises(UsageError) as raised:
        load(config, root)
    assert message in raised.value.message
