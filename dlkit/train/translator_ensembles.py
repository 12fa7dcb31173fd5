"""Several translators evaluated together: each by itself, and as one whose probabilities are averaged word by word."""

import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import keras
import numpy as np

from dlkit.errors import UsageError
from dlkit.metrics import wilson_interval
from dlkit.recipe import DecodeSection, resolve_decode
from dlkit.runtime import Devices
from dlkit.tasks.translation import Translation
from dlkit.tasks.translator import Translator
from dlkit.train import translation_quality
from dlkit.train.comparison import check_same_examples, paired_test
from dlkit.train.ensembles import best_of, cost_of, total_cost
from dlkit.train.evaluation import Evaluation
from dlkit.train.run_evaluation import Candidate
from dlkit.train.setting import Setting
from dlkit.train.translation_quality import Translations


class _Member(NamedTuple):
    task: Translation
    model: keras.Model
    record: dict[str, Any]
    translations: Translations


def translated_together(candidates: Sequence[Candidate], setting: Setting, devices: Devices) -> dict[str, Any]:
    """What translators say of a split, one by one and together, as `evaluate_ensemble` describes it.

    Their "measure" is `bleu`, or of what is no text `exact`. There is no vote, since whole sentences are hardly ever
    the same; "disagreement" is the share of outputs in which two members differ. An answer is timed with all that its
    search takes, in the order and the batches of the split, after a batch that warms up.

    Raises:
        dlkit.errors.UsageError: they have different target vocabularies, or are tested on different pairs.
    """
    first, split = candidates[0].run, setting.split
    decode = resolve_decode(first.recipe["decode"], flags=setting.decode, path=first.path / "recipe.toml")
    members: list[_Member] = []
    for candidate in candidates:
        task = candidate.task(setting, among=[each.run for each in candidates])
        assert isinstance(task, Translation)
        if members and task.tokenizers[1] != members[0].task.tokenizers[1]:
            raise UsageError(
                f"{first.path} and {candidate.run.path} have different target vocabularies",
                "an ensemble is of runs that were trained on the same data",
            )
        model, _ = candidate.model(task, setting, devices)
        values = Evaluation(task, model, devices, batch_size=setting.batch_size)(split, decode=False)
        translations, figures, seconds = _searched(task, model, decode, setting)
        record = {"name": candidate.text, "loss": values["loss"], **figures}
        cost = cost_of(candidate.run, model, task) | {"answer_seconds": seconds}
        members.append(_Member(task, model, record | cost, translations))
    check_same_examples([candidate.text for candidate in candidates], [member.task for member in members], split)
    tasks, models, records, of_members = zip(*members, strict=True)
    together = Translator(models, [task.tokenizers for task in tasks], max(task.max_len for task in tasks))
    translations, averaged, seconds = _searched(tasks[0], models[0], decode, setting, together)
    measure = "bleu" if translations.is_text else "exact"
    best = best_of(records, measure, highest=True)
    differ = [[float(np.mean([a != b for a, b in zip(one.outputs, other.outputs, strict=True)]))
               for other in of_members] for one in of_members]  # fmt: skip
    alone = of_members[records.index(best)]
    return {
        "task": first.task, "data": tasks[0].options["name"], "split": split, "examples": len(translations.outputs),
        "batch_size": setting.batch_size, "measure": measure, "members": list(records),
        "mean": {name: float(np.mean([record[name] for record in records])) for name in ("loss", measure)},
        "best": {name: best[name] for name in ("name", "loss", measure)},
        "averaged": averaged, "cost": total_cost(records) | {"answer_seconds": seconds}, "search": decode.model_dump(),
        "disagreement": float(np.mean([differ[a][b] for a, b in combinations(range(len(differ)), 2)])),
        "disagreements": differ,
        "against_best": translation_quality.paired_bleu(translations, alone, lowercase=setting.lowercase)
        if translations.is_text else paired_test(translations.right, alone.right),
    }  # fmt: skip


def _searched(
    task: Translation, model: keras.Model, decode: DecodeSection, setting: Setting, translator: Translator | None = None
) -> tuple[Translations, dict[str, Any], float]:
    """The outputs, figures of them, and the seconds that each took."""
    translator = translator or task.translator(model)
    size = max(1, setting.batch_size // decode.beams)
    first = task.texts(setting.split).source[:size]
    list(translator.each([first], translation_quality.search_of(decode), batch_size=size))  # its graph takes seconds
    started = time.perf_counter()
    translations = translation_quality.translate(
        task, model, setting.split, decode, batch_size=setting.batch_size, translator=translator
    )
    seconds = (time.perf_counter() - started) / max(1, len(translations.outputs))
    found = translation_quality.quality(translations, lowercase=setting.lowercase)
    right = translations.right
    figures = {"exact": float(right.mean()), "interval": list(wilson_interval(int(right.sum()), len(right)))}
    if translations.is_text:
        figures |= {"bleu": found["bleu"], "chrf": found["chrf"], "interval": list(found["intervals"]["bleu"])}
    return translations, figures, seconds
