"""How good translations are: a run's outputs for a split, scored against references that nobody has touched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit import console, file_system, metrics
from dlkit import data as datasets
from dlkit.errors import UsageError
from dlkit.recipe import DecodeSection
from dlkit.runs import Run
from dlkit.tasks.translation import Translation
from dlkit.tasks.translator import Search, Translator


@dataclass(frozen=True)
class Translations:
    """What a run makes of the sources of a split, in the order of the split.

    Args:
        outputs: n texts.
        references: n texts, as they were read.
        is_text: whether BLEU and chrF say something of them.
    """

    outputs: Sequence[str]
    references: Sequence[str]
    is_text: bool

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether an output is the reference, word for word, (n,)."""
        return metrics.exact_matches(self.outputs, self.references)


def translate(
    task: Translation,
    model: keras.Model,
    split: str,
    decode: DecodeSection,
    *,
    batch_size: int,
    write: Callable[[str], None] | None = None,
    translator: Translator | None = None,
) -> Translations:
    """Translates the sources of a split.

    Args:
        task: where the sources come from.
        model: of the task.
        split: the split's name.
        decode: how to search.
        batch_size: hypotheses at a time: so many sentences, less when each has several beams.
        write: is called with each output as soon as it is there, in their order.
        translator: another one than that of the model, such as one of several models.
    """
    outputs = []
    size = max(1, batch_size // decode.beams)
    for output in task.outputs(model, split, search_of(decode), batch_size=size, translator=translator):
        outputs.append(output)
        if write:
            write(output)
    return Translations(outputs, task.texts(split).target, task.is_text)


def search_of(decode: DecodeSection) -> Search:
    """How a run's section [decode] says to search."""
    return Search(
        method="beam" if decode.beams > 1 else "greedy", beams=decode.beams, length_norm=decode.length_norm,
        alpha=decode.alpha, max_len=decode.max_len,
    )  # fmt: skip


def quality(translations: Translations, *, lowercase: bool) -> dict[str, Any]:
    """BLEU and chrF of texts.

    Returns:
        JSON values: "by_length" (a record for each range of lengths of the references, in words), "bleu", "chrf", their
        95 % bootstrap "intervals" and "signatures". Of what is no text only the records, and no intervals.
    """
    outputs, references, is_text = translations.outputs, translations.references, translations.is_text
    parts = metrics.text_scores_by_length(outputs, references, lowercase=lowercase, is_text=is_text)
    by_length = [part._asdict() for part in parts]
    if not is_text:
        return {"intervals": {}, "by_length": by_length}
    scores = metrics.text_scores(outputs, references, lowercase=lowercase, intervals=True)
    return {
        "bleu": scores.bleu, "chrf": scores.chrf,
        "intervals": {"bleu": scores.bleu_interval, "chrf": scores.chrf_interval},
        "signatures": {"bleu": scores.bleu_signature, "chrf": scores.chrf_signature},
        "by_length": by_length,
    }  # fmt: skip


def paired_bleu(first: Translations, second: Translations, *, lowercase: bool) -> dict[str, Any]:
    """Whether one of two runs translates the same sources better.

    Returns:
        JSON values: "difference" of BLEU, first less second; "p_value" of the paired bootstrap; "better", 0 or 1 for
        the run that is significantly better at the level of 5 %, None when neither is.
    """
    found = metrics.paired_bootstrap(first.outputs, second.outputs, first.references, lowercase=lowercase)
    better = None if found["p_value"] >= metrics.SIGNIFICANT else int(found["difference"] < 0)
    return {**found, "better": better}


# --------------------------------------------------------------------------------------------------------- other pairs


def other_pairs(run: Run, name: str, options: Mapping[str, Any], *, is_known: bool) -> dict[str, Any]:
    """The keys of [data] that make other pairs those of a run: its languages, or the columns of its table.

    Args:
        run: the run.
        name: of the other pairs.
        options: what the other dataset takes.
        is_known: whether some run was trained on them, so that they are divided; files that are not known are tested on
            as a whole.
    """
    if names_files(name):
        # The file is its own test split; what the set has to train on is not looked at, so long pairs will do.
        whole = {"test_file": name, "split": "random", "max_length": None}
        own = run.recipe["data"]
        is_table = len(datasets.paths(name)) == 1 and len(datasets.paths(own["name"])) == 1 and names_files(own["name"])
        columns = {key: own[key] for key in ("source", "target") if is_table and key in own}
        return columns | ({} if is_known else whole)
    source, target = run.info["data"].get("languages") or ("", "")
    return {"source": source, "target": target} if source and target and "source" in options else {}


def names_files(name: str) -> bool:
    """Whether a data name means files of pairs, rather than a folder or a set that has a name."""
    places = datasets.paths(name)
    return bool(places) and not file_system.is_folder(file_system.expanded(places[0]))


def check_direction(run: Run, task: Translation) -> None:
    """Raises a UsageError when pairs are known to go just the other way than a run translates; warns of other ones."""
    source, target = run.info["data"].get("languages") or ("", "")
    name, others = task.options["name"], task.data.languages
    if not (source and target and all(others)) or others == (source, target):
        return
    difference = f"{name} goes from {others[0]} to {others[1]}, and {run.path} from {source} to {target}"
    if others == (target, source):
        hint = "name the file of the sources first" if names_files(name) else f"--source {source} --target {target}"
        raise UsageError(difference, hint)
    console.warn(difference)
