"""Translation: a text in, another out; cross-entropy per token, and what decoding gets right."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit import metrics
from dlkit.data import pairs, tokenizer
from dlkit.data.batching import Batch
from dlkit.data.buckets import TOKENS_WRITTEN, TokenBatches, longest_first
from dlkit.data.tokenizer import Tokenizer
from dlkit.decode.decoder import positions_of
from dlkit.errors import DataError, UsageError
from dlkit.layers import step_context
from dlkit.tasks import TASKS, own_words
from dlkit.tasks.task import Sums, Task, token_sums
from dlkit.tasks.translator import (
    MOST_TOKENS,
    Search,
    Translator,
    check_tokenizers,
    load_tokenizers,
    save_tokenizers,
)

# So many batches of sources are put in order of their lengths before they are decoded; only their outputs are held.
BATCHES_AT_ONCE = 16


class Translation(Task):
    """See the module; `loss` and `accuracy` are per token with the true prefix, `exact` per sequence without it."""

    about = TASKS["translation"]
    unit = "tok"
    padded_together = (("source",), ("target_in", "target_out"))
    shapes_vary = True
    _translator: Translator | None = None

    @cached_property
    def data(self) -> pairs.PairData:
        """The dataset, loaded when first needed."""
        loaded = datasets.load_pairs(self.options["name"], **self.dataset_options())
        return loaded.with_tokenizers(*self.tokenizers) if self.folder else loaded

    @cached_property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Of source and target: the run's own, so that raw text means the same as in training, else the dataset's."""
        if self.folder:
            tokenizers = load_tokenizers(self.folder)
            if self.stored:
                check_tokenizers(self.folder, tokenizers, arguments=self.stored, info=self.stored)
            return tokenizers
        return self.data.source_tokenizer, self.data.target_tokenizer

    def save(self, folder: Path) -> None:
        """Writes the tokenizers into the run folder."""
        save_tokenizers(folder, self.tokenizers)

    @property
    def info(self) -> dict[str, Any]:
        """Sizes and digests of the tokenizers, which are files of the run, and the languages where they are known."""
        if self.stored is not None:
            return dict(self.stored)
        source, target = self.tokenizers
        return {
            "source_vocabulary": source.size, "target_vocabulary": target.size, "languages": list(self.data.languages),
            "tokenizers": [source.digest(), target.digest()],
        }  # fmt: skip

    def fingerprint(self) -> str:
        """sha256 of the training pairs' token ids."""
        split = self.data.splits["train"]
        source, target = (
            side if isinstance(side, pairs.Ragged) else pairs.Ragged.of(side) for side in (split.source, split.target)
        )
        # As one array: the ids of a source, the end token, those of its target, the end token, and so on.
        lengths = np.stack([source.lengths, target.lengths], axis=1).ravel() + 1
        is_source = np.repeat(np.tile([True, False], len(split)), lengths)
        is_end = np.zeros(len(is_source), np.bool_)
        is_end[np.cumsum(lengths) - 1] = True
        ids = np.full(len(is_source), tokenizer.END, np.int32)
        ids[is_source & ~is_end] = source.flat
        ids[~is_source & ~is_end] = target.flat
        return hashlib.sha256(ids.tobytes()).hexdigest()

    def model_arguments(self) -> dict[str, Any]:
        """Sizes of the vocabularies."""
        return {key: self.info[key] for key in ("source_vocabulary", "target_vocabulary")}

    def example_inputs(self) -> Any:
        """Ids of the longest source and target of the training split."""
        source, target = self.data.splits["train"].longest
        return (keras.KerasTensor((1, source), "int32"), keras.KerasTensor((1, target), "int32"))

    def describe(self) -> str:
        """Sizes, languages and vocabularies."""
        sizes = ", ".join(f"{self.size(split):,} {split}" for split in self.splits)
        source, target = self.tokenizers
        words = (
            f"{source.size:,} tokens"
            if source == target
            else f"{source.size:,} source and {target.size:,} target tokens"
        )
        languages = " to ".join(filter(None, self.info.get("languages", [])))
        return f"{self.options['name']}: {sizes} pairs{f', {languages}' if languages else ''}; {source.kind}, {words}"

    def remarks(self) -> list[str]:
        """What became of the texts: which pairs were dropped and why, and what is unknown."""
        lines = self.data.report.lines()
        if self.batch_tokens is not None:
            lines.append(f"{100 * self._token_batches.padding_share:.1f} % of the training batches is padding")
        return lines

    @cached_property
    def _token_batches(self) -> TokenBatches:
        """How training pairs are put together by their lengths."""
        assert self.batch_tokens is not None
        source, target = (lengths[: self.size("train")] for lengths in self.data.splits["train"].lengths)
        return TokenBatches(source, target, batch_tokens=self.batch_tokens)

    def plan(self, split: str, *, batch_size: int, epoch: int | None) -> list[NDArray[np.int64]]:
        """As of every task; in training with `batch_tokens`, pairs of like length together."""
        if epoch is None or self.batch_tokens is None:
            return super().plan(split, batch_size=batch_size, epoch=epoch)
        return self._token_batches.epoch(epoch, seed=self.seed)

    def evaluation_plan(self, model: keras.Model, split: str, *, batch_size: int) -> list[NDArray[np.int64]]:
        """Pairs of like length together, as many as memory has room for; those that no model reads are left out.

        Raises:
            dlkit.errors.DataError: none is short enough.
        """
        most, count = min(MOST_TOKENS, positions_of(model)), self.size(split)
        longer = np.maximum(*self.data.splits[split].lengths)[:count]
        kept = np.flatnonzero(longer <= most)
        if not len(kept):
            raise DataError(
                f"every {split} pair has more than {most:,} tokens, the most that the model reads at once",
                "divide the texts into sentences",
            )
        if len(kept) < count:
            self.warn_once(
                f"left out of the loss and accuracy: {count - len(kept):,} of {count:,} {split} pairs, "
                f"with more than {most:,} tokens"
            )
        return [kept[rows] for rows in longest_first(longer[kept], batch_size, most_tokens=TOKENS_WRITTEN)]

    def check_model(self, model: keras.Model) -> None:
        """Whether the model has positions for the longest training pair, and a table of words for each tokenizer.

        Raises:
            dlkit.errors.DataError: it has learned fewer.
            dlkit.errors.UsageError: both sides share a table, in which a row would stand for two words.
        """
        source, target = self.tokenizers
        table = getattr(model, "source_embedding", None)
        if table is not None and table is getattr(model, "target_embedding", None) and source != target:
            raise UsageError(
                "both sides have a tokenizer of their own, and with model.tied=all they would share a table of words",
                "`--set data.joint=true` makes one tokenizer of both, `--set model.tied=target` ties the targets alone",
            )
        longest, most = max(self.data.splits["train"].longest), positions_of(model)
        if longest > most:
            raise DataError(
                f"a training pair has {longest:,} tokens with its end, and the model learned positions for {most:,}",
                f"`--set data.max_length={most - 1}` leaves it out, `--set model.max_length={longest}` fits it",
            )

    def rows(self, batch_size: int) -> int:
        """As of every task; with `batch_tokens`, as many as are left of the longest pairs."""
        if self.batch_tokens is None:
            return super().rows(batch_size)
        return max(1, self.batch_tokens // max(self.data.splits["train"].longest))

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`source`, `target_in` and `target_out`, (n, time) int32, padded with 0."""
        data, lengths = self.data.splits[split], None
        if epoch is None:  # no longer than need be: there may be no position beyond
            source, target = (int(side[indices].max()) for side in data.lengths)
            lengths = (source, target)
        elif self.batch_tokens is not None:
            lengths = self._token_batches.lengths(indices)
        return pairs.batch(data, indices, lengths=lengths)._asdict()

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over tokens that are not padding, the end token included."""
        target_in, target_out = batch["target_in"], batch["target_out"]
        context = step_context.current()
        if training and context is not None and context.sampling is not None:
            target_in = own_words.with_own_words(model, batch["source"], target_in, context)
        logits = model((batch["source"], target_in), training=training)  # (batch, time, vocabulary)
        return token_sums(logits, target_out, batch, smoothing=smoothing)

    def logits(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Of each word of the target, (rows, time, vocabulary)."""
        return model((batch["source"], batch["target_in"]), training=False)

    def likelihood(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, str]:
        """Of the target."""
        return -self.loss_sums(model, batch, training=False, smoothing=0.0).loss, "its own words"

    def batch_of_ids(self, ids: NDArray[np.int64]) -> Batch:
        """The source alone, of which the first word is about to be said."""
        begun, unknown = (np.full((len(ids), 1), token, np.int32) for token in (tokenizer.START, tokenizer.PAD))
        return {"source": ids.astype(np.int32), "target_in": begun, "target_out": unknown}

    def batch_of_text(self, model: keras.Model, text: str) -> Batch:
        """The text as a source, and the model's own translation by greedy search."""
        (found,) = self.translator(model).each([[text]], Search(method="greedy"))
        if isinstance(found, DataError):
            raise found
        source = [*self.tokenizers[0].encode(text), tokenizer.END]
        return {"source": np.array([source], np.int32), **pairs.teacher_forcing(found.hypotheses[0].ids)}

    def own_words_loss(self, model: keras.Model, split: str, *, batch_size: int) -> float:
        """See `own_words.own_words_loss`; pairs that are too long are left out, as in `loss`."""
        plan = self.evaluation_plan(model, split, batch_size=batch_size)
        batch_of = partial(self.batch, split, epoch=None)
        return own_words.own_words_loss(model, plan, batch_of, source="source", seed=self.seed)

    @property
    def is_text(self) -> bool:
        """Whether the data are texts, of which BLEU and chrF say something, and not made up of letters."""
        return not self.options["name"].startswith("synthetic:")

    def texts(self, split: str) -> pairs.Texts:
        """The pairs of a split as they were read, untouched by any tokenizer; after `limit`."""
        data, count = self.data.splits[split], self.size(split)
        return pairs.Texts(list(data.source_texts[:count]), list(data.target_texts[:count]))

    def tested_on(self, split: str) -> tuple[str, pairs.Texts]:
        """The pairs."""
        return "pairs", self.texts(split)

    def outputs(
        self,
        model: keras.Model,
        split: str,
        search: Search,
        *,
        batch_size: int,
        translator: Translator | None = None,
    ) -> Iterator[str]:
        """What a model makes of each source of a split, in their order; nothing of one that is too long to be read.

        Args:
            model: of the task.
            split: the split's name.
            search: how.
            batch_size: sources at a time.
            translator: another one than that of the model.
        """
        sources, size = self.texts(split).source, BATCHES_AT_ONCE * batch_size
        groups = (sources[start : start + size] for start in range(0, len(sources), size))
        unread = 0
        for found in (translator or self.translator(model)).each(groups, search, batch_size=batch_size):
            unread += isinstance(found, DataError)
            yield "" if isinstance(found, DataError) else found.hypotheses[0].text
        if unread:
            self.warn_once(
                f"{unread:,} of {len(sources):,} {split} sources are too long to be read, and count as empty"
            )

    def decoded_metrics(self, model: keras.Model, split: str, *, batch_size: int) -> dict[str, float]:
        """What greedy decoding gets right: `exact`, the share of outputs that are the target; of text BLEU and chrF."""
        outputs = list(self.outputs(model, split, Search(method="greedy"), batch_size=batch_size))
        references = self.texts(split).target
        scores = {"exact": float(metrics.exact_matches(outputs, references).mean())}
        if self.is_text:
            measured = metrics.text_scores(outputs, references)
            scores |= {"bleu": measured.bleu, "chrf": measured.chrf}
        return scores

    def translator(self, model: keras.Model) -> Translator:
        """The translator with a model, made once: each one traces a graph of its own."""
        if self._translator is None or self._translator.decoder.models != (model,):
            self._translator = Translator([model], [self.tokenizers], self.max_len)
        return self._translator
