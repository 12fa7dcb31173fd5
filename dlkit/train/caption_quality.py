"""How good captions are: what a run says of the images of a split, scored against all captions that people wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit import caption_metrics, metrics
from dlkit.errors import UsageError
from dlkit.recipe import DecodeSection
from dlkit.tasks.captioning import Captioning
from dlkit.train.translation_quality import search_of


@dataclass(frozen=True)
class Captions:
    """Captions of the images of a split, in the order of the split.

    Args:
        outputs: n texts.
        references: of each image all captions, as they were read.
        is_text: whether people wrote them, so that BLEU and CIDEr-D say something.
        lowercase: whether BLEU compares lower-cased texts.
    """

    outputs: Sequence[str]
    references: caption_metrics.References
    is_text: bool
    lowercase: bool

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether an output is one of the references, word for word, (n,)."""
        return caption_metrics.exact_matches(self.outputs, self.references)


def write_captions(
    task: Captioning,
    model: keras.Model,
    split: str,
    decode: DecodeSection,
    *,
    batch_size: int,
    lowercase: bool,
    write: Callable[[str], None] | None = None,
) -> Captions:
    """Captions the images of a split.

    Args:
        task: where the images come from.
        model: of the task.
        split: the split's name.
        decode: how to search.
        batch_size: hypotheses at a time: so many images, less when each has several beams.
        lowercase: whether BLEU is of lower-cased texts; it is, too, where the model knows no capitals.
        write: is called with each output as soon as it is there, in their order.
    """
    outputs = []
    size = max(1, batch_size // decode.beams)
    for output in task.outputs(model, split, search_of(decode), batch_size=size):
        outputs.append(output)
        if write:
            write(output)
    return _compared(task, split, outputs, lowercase)


def one_for_all(
    task: Captioning, split: str, *, lowercase: bool, write: Callable[[str], None] | None = None
) -> Captions:
    """The blind baseline: one training caption for every image of a split, see `caption_metrics.constant_caption`.

    Raises:
        dlkit.errors.UsageError: there are no training captions.
    """
    if "train" not in task.splits:
        raise UsageError(
            f"--constant takes a caption of the training data, and {task.options['name']} has none", "leave out --data"
        )
    text = caption_metrics.constant_caption(task.references("train"))
    outputs = [text] * task.size(split)
    for output in outputs if write else ():
        assert write is not None
        write(output)
    return _compared(task, split, outputs, lowercase)


def _compared(task: Captioning, split: str, outputs: Sequence[str], lowercase: bool) -> Captions:
    return Captions(outputs, task.references(split), task.is_text, lowercase or task.tokenizer.lower)


def quality(captions: Captions) -> dict[str, Any]:
    """Exact matches, and of what people wrote BLEU-1 to BLEU-4 and CIDEr-D.

    Returns:
        JSON values: "exact", "intervals" (empty), and of text "bleu_1", "bleu_2", "bleu_3", "bleu" (of order 4),
        "cider" and the "signatures" of sacrebleu.
    """
    found: dict[str, Any] = {"exact": float(captions.right.mean()), "intervals": {}}
    if not captions.is_text:
        return found
    scores = caption_metrics.caption_scores(captions.outputs, captions.references, lowercase=captions.lowercase)
    bleu = dict(zip(("bleu_1", "bleu_2", "bleu_3", "bleu"), scores.bleu, strict=True))
    return found | bleu | {"cider": scores.cider, "signatures": {"bleu": scores.signature}}


def paired_bleu(first: Captions, second: Captions) -> dict[str, Any]:
    """Whether one of two runs writes better captions of the same images, as `translation_quality.paired_bleu` says."""
    found = caption_metrics.paired_bootstrap(
        first.outputs, second.outputs, first.references, lowercase=first.lowercase or second.lowercase
    )
    better = None if found["p_value"] >= metrics.SIGNIFICANT else int(found["difference"] < 0)
    return {**found, "better": better}
