"""What tasks share that read a text as ids of words and say something of it: its class, or a tag for each word."""

from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit.data.batching import Batch
from dlkit.data.buckets import TOKENS_READ, TokenBatches, longest_first, of_like_length
from dlkit.data.pairs import padded_length
from dlkit.data.tokenizer import Tokenizer
from dlkit.errors import UsageError, nothing_to_train_on
from dlkit.tasks.run_files import TOKENIZER_FILE, load_tokenizer
from dlkit.tasks.task import Task


class TextTask(Task):
    """See the module. Batches are made of texts of like length, and what a net says of one depends on no other."""

    shapes_vary = True
    kind: str  # of `dlkit.data.KINDS`
    things: str  # what an example is, in the plural

    @cached_property
    def data(self) -> Any:
        """The dataset, loaded when first needed: predictions with a stored run never need it."""
        loaded = datasets.load_kind(self.options["name"], self.kind, **self.dataset_options())
        if self.stored is not None:
            return loaded.as_trained(list(self.stored["classes"]), self.tokenizer, int(self.stored["max_length"]))
        return replace(loaded, own=self.tokenizer) if self.folder else loaded

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own, so that raw text means the same as in training, else the dataset's.

        Raises:
            dlkit.errors.CheckpointError: the file comes from another run.
        """
        return load_tokenizer(self.folder, self.stored) if self.folder else self.data.tokenizer

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """One: no word is written."""
        return self.tokenizer, self.tokenizer

    def batch_of_text(self, model: keras.Model, text: str) -> Batch:
        """As many tokens of the text as are read, with labels that mean nothing."""
        return self.batch_of_ids(np.array([self.tokenizer.encode(text)[: int(self.info["max_length"])]]))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer into the run folder."""
        self.tokenizer.save(folder / TOKENIZER_FILE)

    @abstractmethod
    def class_names(self) -> list[str]:
        """The names of what the dataset tells apart."""

    @property
    def info(self) -> dict[str, Any]:
        """Classes, and how texts become ids: the size and the digest of the tokenizer, and the most tokens read."""
        if self.stored is not None:
            return dict(self.stored)
        return {
            "classes": self.class_names(), "vocabulary": self.tokenizer.size, "tokenizer": self.tokenizer.digest(),
            "max_length": self.most_tokens(),
        }  # fmt: skip

    @abstractmethod
    def most_tokens(self) -> int:
        """How many tokens of a text are read, as the dataset says."""

    def _check_trains(self) -> None:
        if "train" not in self.data.texts:
            raise nothing_to_train_on(self.options["name"], self.data.texts)

    def fingerprint(self) -> str:
        """sha256 of the training texts and their labels, whatever the tokenizer."""
        self._check_trains()
        return self.data.fingerprint()

    def model_arguments(self) -> dict[str, Any]:
        """Size of the vocabulary and number of classes."""
        return {"vocabulary": self.info["vocabulary"], "classes": len(self.info["classes"])}

    def example_inputs(self) -> Any:
        """Ids of the longest text of the training split."""
        self._check_trains()
        return keras.KerasTensor((1, self._longest("train")), "int32")

    def _longest(self, split: str) -> int:
        return max(1, int(self.data.splits[split].lengths[: self.size(split)].max(initial=0)))

    def check_model(self, model: keras.Model) -> None:
        """Whether the model has positions for as many tokens as are read of a text.

        Raises:
            dlkit.errors.UsageError: it has learned fewer.
        """
        most, read = getattr(model, "max_length", None), self.info["max_length"]
        if most is not None and most < read:
            raise UsageError(
                f"up to {read:,} tokens of a text are read, and the model learns positions for {most:,}",
                f"`--set data.max_length={most}` reads no more, `--set model.max_length={read}` fits it",
            )

    def describe(self) -> str:
        """Sizes, classes and vocabulary."""
        sizes = ", ".join(f"{self.size(split):,} {split}" for split in self.splits)
        count = len(self.info["classes"])
        told = f"{sizes} {self.things}, {count} {'classes' if self.kind == 'labelled_texts' else 'tags'}"
        return f"{self.options['name']}: {told}; {self.tokenizer.kind}, {self.tokenizer.size:,} tokens"

    def remarks(self) -> list[str]:
        """What a user should know of the texts, and how much of the batches is padding where they go by tokens."""
        lines: list[str] = list(self.data.remarks())
        if self.batch_tokens is not None:
            lines.append(f"{100 * self._token_batches.padding_share:.1f} % of the training batches is padding")
        return lines

    def remarks_on(self, split: str) -> list[str]:
        """What a user should know of a split that is tested on: what is unknown of it, and what is not read."""
        return list(self.data.remarks(split))

    @cached_property
    def _token_batches(self) -> TokenBatches:
        """How training texts are put together by their lengths."""
        assert self.batch_tokens is not None
        lengths = np.maximum(self.data.splits["train"].lengths[: self.size("train")], 1)
        return TokenBatches(lengths, lengths, batch_tokens=self.batch_tokens)

    def plan(self, split: str, *, batch_size: int, epoch: int | None) -> list[NDArray[np.int64]]:
        """Texts of like length together; in order without an epoch."""
        if epoch is None:
            return super().plan(split, batch_size=batch_size, epoch=None)
        if self.batch_tokens is not None:
            return self._token_batches.epoch(epoch, seed=self.seed)
        chosen = self.trained_on(split, self.size(split))
        lengths = self.data.splits[split].lengths[chosen]
        return [chosen[rows] for rows in of_like_length(lengths, batch_size, seed=self.seed, epoch=epoch)]

    def evaluation_plan(self, model: keras.Model, split: str, *, batch_size: int) -> list[NDArray[np.int64]]:
        """Texts of like length together, as many as memory has room for, the longest first."""
        lengths = np.maximum(self.data.splits[split].lengths[: self.size(split)], 1)
        return longest_first(lengths, batch_size, most_tokens=TOKENS_READ)

    def rows(self, batch_size: int) -> int:
        """As of every task; with `batch_tokens`, as many as are left of the longest texts."""
        if self.batch_tokens is None:
            return super().rows(batch_size)
        return max(1, self.batch_tokens // self._longest("train"))

    def _padded_length(self, split: str, indices: NDArray[np.int64], epoch: int | None) -> int:
        """Time steps of a batch; in training few lengths occur, as each costs time when it is new."""
        longest = max(1, int(self.data.splits[split].lengths[indices].max(initial=0)))
        if epoch is None:
            return longest
        if self.batch_tokens is not None:
            return self._token_batches.lengths(indices)[0]
        return padded_length(longest, most=self._longest(split))
