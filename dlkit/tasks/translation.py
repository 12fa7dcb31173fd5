"""Translation: a sequence of tokens in, another out; cross-entropy per token, and what greedy decoding gets right."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit import runs
from dlkit.data import pairs, tokenizer
from dlkit.data.batching import ROW_WEIGHTS, Batch
from dlkit.decode.greedy import Decoded, greedy
from dlkit.errors import UsageError
from dlkit.tasks.task import Sums, Task
from dlkit.train.losses import softmax_cross_entropy

SOURCE_FILE, TARGET_FILE = "source_tokenizer.json", "target_tokenizer.json"


class Translation(Task):
    """See the module; `loss` and `accuracy` are per token with the true prefix, `exact` per sequence without it."""

    unit = "tok"
    _decoder: "Decoder | None" = None

    @cached_property
    def data(self) -> pairs.PairData:
        """The dataset, loaded when first needed."""
        loaded = datasets.load(self.options["name"], **self.dataset_options())
        if not isinstance(loaded, pairs.PairData):
            raise UsageError(
                f"{self.options['name']} has no pairs of sequences", "`dlkit data list` says what each one is"
            )
        return loaded

    @cached_property
    def source_tokenizer(self) -> tokenizer.WordTokenizer:
        """The run's own, so that raw text means the same as in training; the dataset's before there is a run."""
        return tokenizer.load(self.folder / SOURCE_FILE) if self.folder else self.data.source_tokenizer

    @cached_property
    def target_tokenizer(self) -> tokenizer.WordTokenizer:
        """As `source_tokenizer`, for the output."""
        return tokenizer.load(self.folder / TARGET_FILE) if self.folder else self.data.target_tokenizer

    def save(self, folder: Path) -> None:
        """Writes both tokenizers into the run folder."""
        self.source_tokenizer.save(folder / SOURCE_FILE)
        self.target_tokenizer.save(folder / TARGET_FILE)

    @property
    def info(self) -> dict[str, Any]:
        """Sizes of the vocabularies; the vocabularies are files of the run."""
        return {"source_vocabulary": self.source_tokenizer.size, "target_vocabulary": self.target_tokenizer.size}

    def fingerprint(self) -> str:
        """sha256 of the training pairs' token ids."""
        split, digest = self.data.splits["train"], hashlib.sha256()
        for source, target in zip(split.source, split.target, strict=True):
            digest.update(np.array([*source, tokenizer.END, *target, tokenizer.END], np.int32).tobytes())
        return digest.hexdigest()

    def model_arguments(self) -> dict[str, Any]:
        """Sizes of the vocabularies."""
        return self.info

    def example_inputs(self) -> Any:
        """Ids of the longest source and target of the training split."""
        source, target = self.data.splits["train"].longest
        return (keras.KerasTensor((1, source), "int32"), keras.KerasTensor((1, target), "int32"))

    def describe(self) -> str:
        """Sizes and vocabularies."""
        sizes = ", ".join(f"{self.size(split):,} {split}" for split in self.splits)
        source, target = self.info["source_vocabulary"], self.info["target_vocabulary"]
        return f"{self.options['name']}: {sizes} pairs; {source} source and {target} target tokens"

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`source`, `target_in` and `target_out`, (n, time) int32, padded with 0."""
        return pairs.batch(self.data.splits[split], indices)._asdict()

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over tokens that are not padding, the end token included."""
        target_out = batch["target_out"]
        logits = model((batch["source"], batch["target_in"]), training=training)  # (batch, time, vocabulary)
        losses = softmax_cross_entropy(logits, target_out, label_smoothing=smoothing)  # (batch, time)
        # A padded row is all padding, so it weighs nothing here without its row weight.
        weights = tf.cast(target_out != tokenizer.PAD, losses.dtype)
        if ROW_WEIGHTS in batch:
            weights *= tf.cast(batch[ROW_WEIGHTS], losses.dtype)[:, tf.newaxis]
        hits = tf.cast(tf.argmax(logits, axis=-1, output_type=target_out.dtype) == target_out, losses.dtype)
        weight = tf.reduce_sum(weights)
        return Sums(tf.reduce_sum(losses * weights), weight, {"accuracy": (tf.reduce_sum(hits * weights), weight)})

    def decoded_metrics(self, model: keras.Model, split: str, *, batch_size: int) -> dict[str, float]:
        """`exact`: the share of sources whose greedy decoding is the target, to the last token."""
        data = self.data.splits[split]
        right = 0
        for indices in self.plan(split, batch_size=batch_size, epoch=None):
            tokens = self.decoder(model)(pairs.batch(data, indices).source, max_len=self.max_len).tokens.numpy()
            for index, row in zip(indices, tokens, strict=True):
                want = [*data.target[index], tokenizer.END]
                right += row[: len(want)].tolist() == want  # what comes after the end token is padding
        return {"exact": right / self.size(split)}

    def translate(self, model: keras.Model, lines: Sequence[str], *, max_len: int) -> list[str]:
        """Translates lines of text as one batch, in order; an empty line stays empty.

        Args:
            model: of a run of this task.
            lines: texts.
            max_len: most tokens of an output, the end token included.
        """
        sources = [[*self.source_tokenizer.encode(line), tokenizer.END] for line in lines]
        longest = max(map(len, sources))
        padded = pairs.pad(sources, length=-(-longest // pairs.LENGTH_STEP) * pairs.LENGTH_STEP)
        tokens = self.decoder(model)(padded, max_len=max_len).tokens.numpy()
        texts = (self.target_tokenizer.decode(row) for row in tokens)
        return [text if len(source) > 1 else "" for source, text in zip(sources, texts, strict=True)]

    def decoder(self, model: keras.Model) -> "Decoder":
        """The decoder of a model, made once: each one traces a graph of its own."""
        if self._decoder is None or self._decoder.model is not model:
            self._decoder = Decoder(model)
        return self._decoder


class Decoder:
    """Greedy decoding of a model that has `start` and `step`; one graph for all shapes.

    Args:
        model: the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model

        def decode(source: tf.Tensor, max_len: tf.Tensor) -> Decoded:
            rows = tf.shape(source)[0]
            start, end = tokenizer.START, tokenizer.END
            return greedy(model.step, model.start(source), batch=rows, start_id=start, end_id=end, max_len=max_len)

        shapes = [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((), tf.int32)]
        self._decode = tf.function(decode, input_signature=shapes)

    def __call__(self, source: NDArray[np.int32], *, max_len: int) -> Decoded:
        """Decodes source ids (batch, time), padded with 0, into at most `max_len` tokens, the end token included."""
        return self._decode(source, max_len)


def _groups(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for line in lines:
        group.append(line)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def translate_lines(
    lines: Iterable[str], *, model: str, max_len: int | None = None, batch_size: int = 32
) -> Iterator[tuple[str, str, list[str]]]:
    """Translates lines of text with a run.

    Args:
        lines: texts; one translation comes out for each, in order.
        model: a run or a checkpoint.
        max_len: most tokens of an output; None for what the run's recipe says.
        batch_size: lines at a time; does not change the result.

    Returns:
        For each line the line, its translation, and its words that the model does not know.
    """
    run = runs.open_run(model)
    if run.task != "translation":
        raise UsageError(
            f"{run.path} does not translate: it is a run of {run.task.replace('_', ' ')}",
            "`dlkit runs list` shows others",
        )
    net = runs.load_model(model)
    task = Translation(run.recipe["data"], info=run.info["data"], folder=run.path)
    longest = max_len or int(run.recipe["decode"]["max_len"])
    for group in _groups(lines, batch_size):
        for line, output in zip(group, task.translate(net, group, max_len=longest), strict=True):
            yield line, output, task.source_tokenizer.unknown(line)
