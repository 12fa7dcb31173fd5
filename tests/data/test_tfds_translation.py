"""Translation sets, made by the machinery of TensorFlow Datasets and read without it."""

from functools import cache

import pytest
from tiny_set import prepared

from dlkit import data
from dlkit.data import tfds_names
from dlkit.data.tfds_translation import is_translation, translation_set
from dlkit.errors import DataError, UsageError

NAME = "tiny_talk"
SPLITS = {
    "whole": ["train", "validation", "test"],
    "inner": ["train"],
    "renamed": ["training", "dev"],
    "none": ["test"],
}


@cache
def builder_class():
    import tensorflow_datasets as tfds

    class TinyTalk(tfds.core.GeneratorBasedBuilder):
        """French and English."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in SPLITS]  # noqa: RUF012

        def _info(self):
            pair = tfds.features.Translation(languages=("fr", "en"))
            whole = self.builder_config.name != "inner"
            several = {
                "number": tfds.features.Text(),
                "pair": pair,
                "labels": tfds.features.Sequence(tfds.features.Text()),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=pair if whole else tfds.features.FeaturesDict(several),
                supervised_keys=("fr", "en") if whole else None,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in SPLITS[self.builder_config.name]}

        def _generate_examples(self, split):
            for i in range(25):
                pair = {"fr": f"été {split} {i}", "en": f"summer {split} {i}"}
                inner = {"number": f"number {i}", "pair": pair, "labels": ["a", "b"]}
                yield i, inner if self.builder_config.name == "inner" else pair

    return TinyTalk


def build(root, config, **options):
    return prepared(builder_class, root, config=config, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for config in SPLITS:
        build(folder, config)
    return folder


def pairs(loaded, split="train"):
    return list(zip(loaded.texts[split].source, loaded.texts[split].target, strict=True))


def test_texts_are_those_that_tensorflow_datasets_reads_in_its_order(root):
    import tensorflow_datasets as tfds

    loaded = data.load(f"{NAME}/whole", dir=root)
    assert loaded.languages == ("fr", "en")
    assert list(loaded.texts) == ["train", "validation", "test"]
    theirs = builder_class()(data_dir=root, config="whole")
    for split in loaded.texts:
        expected = [(e["fr"].decode(), e["en"].decode()) for e in tfds.as_numpy(theirs.as_dataset(split))]
        assert pairs(loaded, split) == expected
        assert sorted(expected) == sorted((f"été {split} {i}", f"summer {split} {i}") for i in range(25))


def test_array_records_too(tmp_path):
    build(tmp_path, "whole", file_format="array_record")
    loaded = translation_set(f"{NAME}/whole", dir=tmp_path)
    assert sorted(pairs(loaded)) == sorted((f"été train {i}", f"summer train {i}") for i in range(25))


def test_the_other_direction(root):
    loaded = translation_set(f"{NAME}/whole", dir=root, source="en")
    assert loaded.languages == ("en", "fr")
    assert set(pairs(loaded)) == {(f"summer train {i}", f"été train {i}") for i in range(25)}
    with pytest.raises(DataError, match=f"{NAME}/whole has no texts in de"):
        translation_set(f"{NAME}/whole", dir=root, source="de")


def test_pairs_beside_other_features(root):
    with pytest.raises(UsageError, match="data.source and data.target are missing: tiny_talk/inner has en, fr"):
        translation_set(f"{NAME}/inner", dir=root)
    loaded = translation_set(f"{NAME}/inner", dir=root, target="en", split="random", validation=5, test=2)
    assert loaded.languages == ("fr", "en")
    assert {name: len(texts) for name, texts in loaded.texts.items()} == {"train": 18, "validation": 5, "test": 2}
    everything = {pair for split in loaded.texts for pair in pairs(loaded, split)}
    assert everything == {(f"été train {i}", f"summer train {i}") for i in range(25)}


def test_names_of_splits(root):
    assert list(translation_set(f"{NAME}/renamed", dir=root).texts) == ["train", "validation"]
    with pytest.raises(UsageError, match="nothing to train on: its splits are test"):
        translation_set(f"{NAME}/none", dir=root)


def test_what_kind_a_set_is_says_its_folder_and_else_its_category(root, tmp_path):
    assert is_translation(f"{NAME}/inner", root)
    assert not is_translation(f"{NAME}/inner", tmp_path)
    assert is_translation("ted_hrlr_translate/ru_to_en", tmp_path)
    assert not is_translation("mnist", tmp_path)
    assert {"ted_hrlr_translate", "wmt14_translate", "para_crawl"} <= set(tfds_names.translation_names())
    assert not set(tfds_names.translation_names()) & set(tfds_names.image_names())


def test_a_set_of_another_kind_says_what_it_has(tmp_path):
    import tiny_set

    tiny_set.build(tmp_path)
    with pytest.raises(UsageError, match=r"has no pairs of texts in two languages: it has kind \(classLabel\), photo"):
        translation_set(f"{tiny_set.NAME}/color", dir=tmp_path)


def test_a_set_that_is_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr("dlkit.data.tfds_prepare._can_be_reached", lambda urls: True)
    with pytest.raises(DataError, match="ted_hrlr_translate/ru_to_en is not prepared"):
        data.load("ted_hrlr_translate/ru_to_en", dir=tmp_path)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda content: content[:-20], "is only half prepared in .* is cut short or damaged"),
        (
            lambda content: content.replace("é".encode(), b"\xff\xff"),
            "is damaged in .*: a record of .* does not hold what it should",
        ),
    ],
)
def test_damaged_files(tmp_path, spoil, what):
    builder = build(tmp_path, "whole")
    (file,) = builder.data_path.glob("*train*")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(DataError, match=what):
        translation_set(f"{NAME}/whole", dir=tmp_path)
