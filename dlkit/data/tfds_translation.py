"""Translation sets of TensorFlow Datasets, by name: those whose records are, or have, a `features.Translation`."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dlkit.data import tfds_files, tfds_names
from dlkit.data.holdout import HeldOut, How
from dlkit.data.pairs import PairData, Texts, prepared
from dlkit.data.parallel import chosen_languages, with_parts
from dlkit.data.split_names import own_names
from dlkit.errors import DlkitError, UsageError


def is_translation(name: str, dir: Path | None = None) -> bool:  # noqa: A002 - the recipe's key is data.dir
    """Whether a set is one of translations: as its prepared files say, else by the category of its name."""
    try:
        found = tfds_files.find(name, tfds_names.data_dir(dir))
    except DlkitError:
        parsed = tfds_names.parse(name)
        return parsed is not None and parsed.set in tfds_names.translation_names()
    return any(feature["kind"] == "translation" for feature in found.features.values())


@prepared
def translation_set(
    name: str,
    *,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    source: str | None = None,
    target: str | None = None,
    validation: HeldOut = None,
    test: HeldOut = None,
    split: How = "strict",
    seed: Annotated[int, Field(ge=0)] = 0,
) -> PairData:
    """The translation set `name` of TensorFlow Datasets, prepared before with `dlkit data prepare`.

    Args:
        name: `ted_hrlr_translate/ru_to_en`, `wmt14_translate/de-en:1.0.0`.
        dir: the folder of prepared data; by default TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        source: language of the sources; by default as the set says.
        target: language of the targets.
        validation: size of the validation part where there is none, below 1 as a share; by default 5 %, at most 2,000.
        test: the same for the test part where there is none; by default none is held out of a set that has another
            split.
        split: how these parts are chosen, see `dlkit.data.holdout`.
        seed: chooses them.

    Raises:
        dlkit.errors.DataError: the set is not prepared, or only half; it has no such language.
        dlkit.errors.UsageError: it is no translation set, or has nothing to train on.

    Example:
        >>> translation_set("ted_hrlr_translate/ru_to_en").languages
        ('ru', 'en')
    """
    from dlkit.data.tfds_prepare import obtain

    found = obtain(name, tfds_names.data_dir(dir), wanted=languages_of)
    feature, languages = languages_of(name, found.features, found.supervised)
    if source is None and target is None:
        source, target = found.supervised or (None, None)
    pair = chosen_languages(name, sorted(languages), source, target)
    keys = [f"{feature}/{language}" if feature else language for language in pair]
    roles = own_names(found.splits)
    if "train" not in roles:
        raise UsageError(f"{name} has nothing to train on: its splits are {', '.join(found.splits)}")
    splits = {role: Texts(*tfds_files.texts(found, its_split, keys)) for role, its_split in roles.items()}
    splits, notes = with_parts(splits, validation=validation, test=test, how=split, seed=seed)
    return PairData(name, splits, languages=pair, notes=notes)


def languages_of(name: str, features: dict[str, Any], supervised: tuple[str, str] | None) -> tuple[str, list[str]]:
    """The feature that holds the pairs, without a name where a record is nothing else, and its languages.

    Args:
        name: of the set.
        features: as in `tfds_files.Prepared`.
        supervised: not looked at.

    Raises:
        dlkit.errors.UsageError: there are none, or several; it says what the set has.
    """
    found = {key: value.get("languages", []) for key, value in features.items() if value["kind"] == "translation"}
    if len(found) != 1:
        has = ", ".join(f"{key} ({value['kind']})" if key else value["kind"] for key, value in features.items())
        raise UsageError(
            f"{name} has no pairs of texts in two languages: it has {has}",
            "sets that do: ted_hrlr_translate/ru_to_en, wmt14_translate/de-en",
        )
    return next(iter(found.items()))
