"""Text classification sets, made by the machinery of TensorFlow Datasets and read without it."""

from functools import cache

import numpy as np
import pytest
from tiny_set import prepared

from dlkit import data
from dlkit.errors import DataError, UsageError

NAME = "tiny_reviews"
CLASSES = ["bad", "good"]
# Configuration -> its splits; labels are withheld in those that end in a star.
CONFIGS = {
    "plain": ["train", "test", "unsupervised*"],
    "glue": ["train", "validation", "test*"],
    "numbers": ["train", "test"],
    "tested": ["test"],
}


def text(split, number):
    return f"{split} review {number} é" if number else ""


def label(number):
    return number % 3 % 2


@cache
def builder_class():
    import tensorflow_datasets as tfds

    class TinyReviews(tfds.core.GeneratorBasedBuilder):
        """Reviews and whether they are good."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in CONFIGS]  # noqa: RUF012

        def _info(self):
            of_glue = self.builder_config.name == "glue"
            names = {"num_classes": 2} if self.builder_config.name == "numbers" else {"names": CLASSES}
            features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(**names)}
            if of_glue:
                features = {"idx": tfds.features.Tensor(shape=(), dtype=np.int32), **features}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=None if of_glue else ("text", "label"),
            )

        def _split_generators(self, dl_manager):
            splits = CONFIGS[self.builder_config.name]
            return {split.rstrip("*"): self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for i in range(20):
                number = {"idx": i} if self.builder_config.name == "glue" else {}
                of = -1 if split.endswith("*") else label(i)
                yield i, {"text": text(split, i), "label": of, **number}

    return TinyReviews


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for config in CONFIGS:
        prepared(builder_class, folder, config=config)
    return folder


def load(config, root, **options):
    return data.load_kind(f"{NAME}/{config}", "labelled_texts", dir=root, **options)


def rows(split):
    return sorted(zip(split.texts, split.labels.tolist(), strict=True))


def test_each_text_has_its_label(root):
    loaded = load("plain", root, validation=4)
    assert loaded.classes == CLASSES
    assert {name: len(split) for name, split in loaded.texts.items()} == {"train": 16, "validation": 4, "test": 20}
    expected = {split: sorted((text(split, i), label(i)) for i in range(20)) for split in ("train", "test")}
    assert rows(loaded.texts["test"]) == expected["test"]
    assert sorted(rows(loaded.texts["train"]) + rows(loaded.texts["validation"])) == expected["train"]
    assert "left out 20 unsupervised texts: their labels are withheld" in loaded.notes


def test_where_the_test_labels_are_withheld_results_are_those_of_the_validation_split(root):
    loaded = load("glue", root)
    assert rows(loaded.texts["test"]) == sorted((text("validation", i), label(i)) for i in range(20))
    assert {name: len(split) for name, split in loaded.texts.items()} == {"train": 18, "validation": 2, "test": 20}


def test_classes_without_names_are_numbers(root):
    assert load("numbers", root).classes == ["0", "1"]


def test_sets_that_are_no_labelled_texts(root):
    with pytest.raises(UsageError, match="has nothing to train on: its splits are test"):
        load("tested", root)
    with pytest.raises(UsageError, match=r"unknown dataset|no dataset"):
        load("nothing", root / "elsewhere")
    with pytest.raises(UsageError, match="tagged texts"):
        data.load_kind(f"{NAME}/plain", "tagged_texts", dir=root)


def test_a_damaged_file(root):
    file = next((root / NAME / "numbers" / "1.0.0").glob("*test.tfrecord*"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="cut short or damaged"):
        load("numbers", root)
