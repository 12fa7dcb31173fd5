"""Language modelling: the next token, from those before it; cross-entropy per token."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit.data.batching import Batch, in_batches, shuffled
from dlkit.data.buckets import TOKENS_WRITTEN, longest_first
from dlkit.data.corpus import CorpusData, CorpusPreparation, Lines, Stream, text_lines
from dlkit.data.pairs import LENGTH_STEP
from dlkit.data.text_files import some_at_once
from dlkit.data.tokenizer import Tokenizer
from dlkit.decode.decoder import positions_of
from dlkit.errors import DataError, UsageError
from dlkit.recipe import check_data_dir
from dlkit.tasks import TASKS
from dlkit.tasks.run_files import TOKENIZER_FILE, load_tokenizer
from dlkit.tasks.task import Sums, Task, token_sums
from dlkit.values import parameters_of

# A recurrent model is evaluated on so many streams at most, side by side, each at least so long: a stream begins
# without a past, and of so many tokens the first few do not count.
STREAMS, STREAM_TOKENS = 32, 2000

CARRY = "carry"


class LanguageModelling(Task):
    """See the module; `perplexity` is e to the loss, `bits_per_character` the loss in bits, spread over characters.

    Where words are unknown the latter is too low to be compared with: that one comes is foretold, and not its letters.

    A batch is `inputs` and `targets`, (rows, time) int32 padded with 0. Of a stream an example is the place where a
    block begins, so that blocks may begin anywhere; of lines it is a line.
    """

    about = TASKS["language_modelling"]
    unit = "tok"
    padded_together = (("inputs", "targets"),)
    _carries = False  # in training, see `for_model`

    @property
    def shapes_vary(self) -> bool:  # type: ignore[override]
        """Lines differ in length."""
        return self.options_of_data.units == "lines"

    @property
    def options_of_data(self) -> CorpusPreparation:
        """The corpus' `CorpusPreparation`."""
        return self.data.options

    @cached_property
    def data(self) -> CorpusData:
        """The corpus, loaded when first needed."""
        loaded = datasets.load_kind(self.options["name"], "corpus", **self.dataset_options())
        return loaded.with_tokenizer(self.tokenizer) if self.folder else loaded

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own, so that raw text means the same as in training, else the corpus'."""
        if not self.folder:
            return self.data.tokenizer
        return load_tokenizer(self.folder, self.stored)

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """One: what is said is read next."""
        return self.tokenizer, self.tokenizer

    def save(self, folder: Path) -> None:
        """Writes the tokenizer into the run folder."""
        self.tokenizer.save(folder / TOKENIZER_FILE)

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self._splits)

    @cached_property
    def _splits(self) -> dict[str, Stream | Lines]:
        """The splits, after `limit`."""
        return {name: split.limited(self.limit) if self.limit else split for name, split in self.data.splits.items()}

    def size(self, split: str) -> int:
        """Number of blocks, or lines, after `limit`."""
        self.check_split(split)
        return len(self._splits[split])

    @property
    def info(self) -> dict[str, Any]:
        """The vocabulary's size, the tokenizer's digest, what comes before all text, and whether texts are lines."""
        if self.stored is not None:
            return dict(self.stored)
        return {
            "vocabulary": self.tokenizer.size, "tokenizer": self.tokenizer.digest(), "first": self.data.first,
            "units": self.options_of_data.units, "keeps_lines": self.data.keeps_lines,
        }  # fmt: skip

    def tokens(self, model: keras.Model, split: str) -> int:
        """Tokens that a model is asked for in a split, after `limit`."""
        return self._read_by(model, split).predicted

    def unknown_share(self, model: keras.Model, split: str) -> float:
        """The share of these that stand for what is not in the vocabulary."""
        part = self._read_by(model, split)
        return part.unknown / max(1, part.predicted)

    def altered_share(self, split: str) -> float:
        """The share of the lines of a split that are others when they are read back from their tokens.

        Such as those whose letters have become small, or of whose spaces only one is left: what is foretold is easier
        than the text.
        """
        lines = altered = 0
        for some in some_at_once(text_lines(self.texts(split))):
            back = map(self.tokenizer.decode, self.tokenizer.encode_all(some))
            altered += sum(one != other for one, other in zip(some, back, strict=True))
            lines += len(some)
        return altered / max(1, lines)

    def texts(self, split: str) -> list[str]:
        """The texts of a split as they were read, untouched by any tokenizer and by `limit`."""
        self.check_split(split)
        return list(self.data.texts[split])

    def tested_on(self, split: str) -> tuple[str, list[str]]:
        """The texts; where a limit ends in them, `cut` says."""
        return "texts", self.texts(split)

    @property
    def cut(self) -> tuple[Any, ...]:
        """What says where the blocks or lines of a text end, which `limit` counts."""
        options = self.options_of_data
        return (options.units,) if options.units == "lines" else (options.block, self.info["tokenizer"])

    def _read_by(self, model: keras.Model, split: str) -> Stream | Lines:
        """What a model reads of a split, after `limit`: of lines those for whose tokens it has positions."""
        part, most = self._splits[split], positions_of(model)
        return part.take(part.no_longer(most)) if isinstance(part, Lines) and part.longest > most else part

    def fingerprint(self) -> str:
        """sha256 of the training ids."""
        return self.data.fingerprint()

    def model_arguments(self) -> dict[str, Any]:
        """Size of the vocabulary."""
        return {"vocabulary": self.info["vocabulary"]}

    def example_inputs(self) -> Any:
        """Ids of a block, or of the longest line."""
        split = self.data.splits["train"]
        time = split.longest if isinstance(split, Lines) else self.options_of_data.block
        return keras.KerasTensor((1, time), "int32")

    def describe(self) -> str:
        """Sizes and vocabulary."""
        sizes = ", ".join(f"{split.predicted:,} {name}" for name, split in self._splits.items())
        units = "lines" if self.options_of_data.units == "lines" else f"blocks of {self.options_of_data.block:,}"
        carried = ", state carried" if self._carries else ""
        of = f"{self.tokenizer.kind}, {self.tokenizer.size:,} tokens"
        return f"{self.options['name']}: {sizes} tokens to predict, in {units}{carried}; {of}"

    def remarks(self) -> list[str]:
        """What became of the texts."""
        return self.data.remarks()

    # ------------------------------------------------------------------------------------------------------- batches

    def carries(self, model: keras.Model) -> bool:
        """Whether the state of a model goes from batch to batch: where it has one, unless `data.carry` is false."""
        wanted, units = self.options_of_data.carry, self.options_of_data.units
        return wanted is not False and units == "text" and hasattr(model, "zero_state")

    def check_model(self, model: keras.Model) -> None:
        """Whether the model has positions for a training sequence, and a state where one is to be carried.

        Raises:
            dlkit.errors.UsageError: it has fewer positions, or no state.
        """
        options = self.options_of_data
        # Said or not, false changes nothing here; but a run that was begun with it goes on as it is.
        asked = bool(options.carry) if self.stored else options.carry is not None
        if asked and options.units == "lines":
            raise UsageError("data.carry is for data.units=text: lines know nothing of each other", "leave it out")
        if asked and not hasattr(model, "zero_state"):
            raise UsageError(f"{model.name} has no state that could be carried", "leave data.carry out")
        split = self.data.splits.get("train")
        longest = split.longest if isinstance(split, Lines) else options.block
        if longest > (most := positions_of(model)):
            raise UsageError(
                f"training sequences have {longest:,} tokens, and the model learned positions for {most:,}",
                f"`--set model.max_length={longest}` fits them, `--set data.block={most}` makes them shorter",
            )
        if self.resampling is not None and not isinstance(split, Lines):
            raise UsageError(
                "train.resample draws examples, and a text is one stream", "`--set data.units=lines` makes examples"
            )

    def for_model(self, model: keras.Model) -> Self:
        """The same task with batches of streams where the state of the model is carried, else of shuffled blocks."""
        task = self._copy()
        task._carries = self.carries(model)
        return task

    def first_carry(self, model: keras.Model, rows: int) -> Batch:
        """A zero state of the model, where it is carried."""
        if not self.carries(model):
            return {}
        leaves = tf.nest.flatten(model.zero_state(rows))
        return {f"{CARRY}{at}": _storable(leaf).numpy() for at, leaf in enumerate(leaves)}

    def rows(self, batch_size: int) -> int:
        """As of every task; where the state is carried a row is a stream, of which there are always so many."""
        return batch_size if self._carries else super().rows(batch_size)

    def plan(self, split: str, *, batch_size: int, epoch: int | None) -> list[NDArray[np.int64]]:
        """The batches of an epoch.

        Where the state is carried, row r of all batches is one stream, cut into blocks that follow on each other, and
        every epoch is the same. Else blocks begin a random number of tokens behind the beginning, and are shuffled;
        both depends on (seed, epoch). A text of one block is read from its beginning.
        """
        self.check_split(split)
        part = self._splits[split]
        if isinstance(part, Lines):
            return super().plan(split, batch_size=batch_size, epoch=epoch)
        if epoch is not None and self._carries:
            return streams(part, batch_size)
        count = len(part)
        if epoch is None:
            return in_batches(np.arange(count) * part.block, batch_size)
        draw = np.random.default_rng([self.seed, crc32(b"phase"), epoch])
        # With one block alone, what stands before it would not be read at all.
        phase = int(draw.integers(part.block)) if count > 1 else 0
        # All epochs have as many blocks: where the last one would be behind the end, it is the first one.
        offsets = phase + np.arange(count) * part.block
        offsets = np.where(offsets < part.predicted, offsets, 0)
        return in_batches(offsets[shuffled(count, seed=self.seed, epoch=epoch)], batch_size)

    def evaluation_plan(self, model: keras.Model, split: str, *, batch_size: int) -> list[NDArray[np.int64]]:
        """Each token but the first is predicted once: block by block, or where a state is carried in long streams.

        Lines of like length are together, as many as memory has room for. Those that have more tokens than the model
        learned positions for are left out.

        Raises:
            dlkit.errors.DataError: none is short enough.
        """
        self.check_split(split)
        part = self._splits[split]
        if isinstance(part, Stream):
            if self.carries(model):
                return streams(part, min(STREAMS, max(1, part.predicted // STREAM_TOKENS)))
            return self.plan(split, batch_size=batch_size, epoch=None)
        most = positions_of(model)
        rows = part.no_longer(most)
        if not len(rows):
            raise DataError(
                f"every {split} line has more than {most:,} tokens with its end, the most that the model reads",
                "divide the lines into shorter ones",
            )
        if len(rows) < len(part):
            self.warn_once(
                f"left out of the evaluation: {len(part) - len(rows):,} of {len(part):,} {split} lines, "
                f"with more than {most:,} tokens"
            )
        lengths = part.rows.lengths[rows] + 1  # with the stop token
        return [rows[chosen] for chosen in longest_first(lengths, batch_size, most_tokens=TOKENS_WRITTEN)]

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`inputs` and `targets`, (n, time) int32, padded with 0; in training lines to few different lengths."""
        part = self._splits[split]
        if isinstance(part, Stream):
            inputs, targets = part.batch(indices)
        else:  # without an epoch no longer than need be: there may be no position beyond
            inputs, targets = part.batch(indices, step=1 if epoch is None else LENGTH_STEP)
        return {"inputs": inputs, "targets": targets}

    # --------------------------------------------------------------------------------------------------------- loss

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy, summed over tokens that are not padding."""
        targets, carry = batch["targets"], {}
        names = sorted((key for key in batch if key.startswith(CARRY)), key=lambda key: int(key.removeprefix(CARRY)))
        if names:
            like = model.zero_state(1)
            leaves = [tf.cast(batch[key], leaf.dtype) for key, leaf in zip(names, tf.nest.flatten(like), strict=True)]
            state = tf.nest.pack_sequence_as(like, leaves)
            logits, state = model.run(batch["inputs"], state, training=training)
            carry = dict(zip(names, map(_storable, tf.nest.flatten(state)), strict=True))
        else:
            logits = model(batch["inputs"], training=training)  # (rows, time, vocabulary)
        return replace(token_sums(logits, targets, batch, smoothing=smoothing, hits=False), carry=carry)

    def logits(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Of the token after each, (rows, time, vocabulary)."""
        return model(batch["inputs"], training=False)

    def likelihood(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, str]:
        """Of the token that comes last."""
        return -self.last_loss(model, batch), "the last token"

    def batch_of_text(self, model: keras.Model, text: str) -> Batch:
        """The text behind what comes before all texts, each token of which foretells the next."""
        whole = [self.info["first"], *self.tokenizer.encode(text)]
        return {"inputs": np.array([whole[:-1]], np.int32), "targets": np.array([whole[1:]], np.int32)}

    def derived_metrics(self, model: keras.Model, split: str, values: Mapping[str, float]) -> dict[str, float]:
        """Perplexity and bits per character."""
        part = self._read_by(model, split)
        loss = values["loss"]
        return {
            "perplexity": math.exp(loss) if loss < math.log(1e300) else math.inf,
            "bits_per_character": loss * part.predicted / (math.log(2) * max(1, part.characters)),
        }


def streams(part: Stream, rows: int) -> list[NDArray[np.int64]]:
    """The batches of a text that is read as so many streams side by side, as places where their blocks begin.

    A stream is a whole number of blocks, so the last ones may be shorter, or empty: their places lie behind the end.
    """
    blocks = -(-len(part) // rows)  # of each stream
    starts = np.arange(rows) * blocks * part.block
    return [starts + at * part.block for at in range(blocks)]


def _storable(state: tf.Tensor) -> tf.Tensor:
    """A state in a type that files and NumPy know; bfloat16 comes back from float32 as it was."""
    return state if state.dtype == tf.float64 else tf.cast(state, tf.float32)


def other_text(own: Mapping[str, Any], name: str, *, is_known: bool, folder: Path | None) -> dict[str, Any]:
    """The section [data] of a run for another text, cut into blocks or lines as the run's own.

    Args:
        own: the section of the run.
        name: of the other text.
        is_known: whether a run was trained on it, so that it is divided as then; others without splits are tested on as
            a whole.
        folder: where prepared data lies; None for where it lay in training.
    """
    if is_known:
        return {**own, "name": name, **({} if folder is None else {"dir": folder})}
    function = datasets.builder(name, folder or own.get("dir"), kind="corpus")
    options = parameters_of(function)
    shared = [field.name for field in fields(CorpusPreparation)]
    section = {"name": name} | {key: own[key] for key in ("dir", *shared) if key in own and key in options}
    if folder is not None:
        check_data_dir(name, folder, kind="corpus")
        section["dir"] = folder
    if datasets.is_undivided(name, section.get("dir"), kind="corpus"):
        section["test"] = "all"
    return section
