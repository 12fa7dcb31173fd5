"""Labelled texts of TensorFlow Datasets, by name: sets whose records have one text and one class."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from dlkit.data import tfds_files, tfds_names
from dlkit.data.holdout import HeldOut
from dlkit.data.labelled_texts import Labelled, LabelledTexts, TextPreparation, duplicates, with_parts
from dlkit.data.pairs import prepared
from dlkit.data.split_names import own_names
from dlkit.errors import UsageError


@partial(prepared, how=TextPreparation)
def labelled_text_set(
    name: str,
    *,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    validation: HeldOut = None,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> LabelledTexts:
    """The text classification set `name` of TensorFlow Datasets, prepared before with `dlkit data prepare`.

    Splits whose labels are withheld are left out. What has no test split then publishes results on its validation split
    (`glue/sst2`): that one becomes `test`, and validation texts are held out of the training texts, as they are for
    sets with no validation split.

    Args:
        name: `imdb_reviews`, `glue/sst2:2.0.0`.
        dir: the folder of prepared data; by default TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        validation: size of the validation part where there is none, below 1 as a share; by default a tenth, at most
            2,000.
        seed: chooses it.

    Raises:
        dlkit.errors.DataError: the set is not prepared, or only half.
        dlkit.errors.UsageError: its records are no texts with a class each, or it has nothing to train on.

    Example:
        >>> labelled_text_set("imdb_reviews").classes
        ['neg', 'pos']
    """
    from dlkit.data.tfds_prepare import obtain

    found = obtain(name, tfds_names.data_dir(dir), wanted=text_and_label)
    text, label = text_and_label(name, found.features, found.supervised)
    read = {split: tfds_files.labelled_texts(found, split, text, label) for split in found.splits}
    largest = max((max(labels, default=-1) for _, labels in read.values()), default=-1)
    classes = found.classes(label, largest)
    texts: dict[str, Labelled] = {}
    notes: list[str] = []
    for role, split in own_names(found.splits).items():
        its_texts, labels = read[split]
        known = [row for row, number in enumerate(labels) if number >= 0]
        if known:
            texts[role] = Labelled(
                [its_texts[row] for row in known], np.array([labels[row] for row in known], np.int32)
            )
        if len(known) < len(labels):
            notes.append(f"left out {len(labels) - len(known):,} {split} texts: their labels are withheld")
    if "test" not in texts and "validation" in texts:
        texts["test"] = texts.pop("validation")
    if "train" not in texts:
        raise UsageError(f"{name} has nothing to train on: its splits are {', '.join(found.splits)}")
    texts = with_parts(texts, validation=validation, test=None, folds=None, fold=0, seed=seed)
    return LabelledTexts(name, classes, texts, notes=(*notes, *duplicates(texts)))


def text_and_label(name: str, features: dict[str, Any], supervised: tuple[str, str] | None) -> tuple[str, str]:
    """The names of the features that hold the text and its class.

    Args:
        name: of the set.
        features: as in `tfds_files.Prepared`.
        supervised: the features that the set says to learn with.

    Raises:
        dlkit.errors.UsageError: there are none, or several and the set does not say which; it says what the set has.
    """
    candidates = {key: features[key]["kind"] for key in supervised or features if key in features}
    texts = [key for key, kind in candidates.items() if kind == "text"]
    labels = [key for key, kind in candidates.items() if kind == "classLabel"]
    if len(texts) == len(labels) == 1:
        return texts[0], labels[0]
    words = {"classLabel": "class", "featuresDict": "several features"}
    has = ", ".join(f"{key} ({words.get(value['kind'], value['kind'])})" for key, value in features.items())
    raise UsageError(
        f"{name} has no texts with a class each: it has {has}", "sets that do: imdb_reviews, glue/sst2, ag_news_subset"
    )
