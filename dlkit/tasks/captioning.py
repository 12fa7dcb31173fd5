"""Captioning: an image in, a sentence about it out; cross-entropy per token, and what decoding gets right."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import caption_metrics
from dlkit import data as datasets
from dlkit.data.augment import alternation, are_mirrored, augment, example_keys, uniform
from dlkit.data.batching import Batch, in_batches
from dlkit.data.captions import CaptionData
from dlkit.data.check import decode_all
from dlkit.data.images import Split, standardize
from dlkit.data.pairs import LENGTH_STEP, inputs_and_targets, padded_length, teacher_forcing
from dlkit.data.tokenizer import Tokenizer
from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.tasks import TASKS, own_words
from dlkit.tasks.captioner import Captioner
from dlkit.tasks.image_task import ImageTask
from dlkit.tasks.run_files import TOKENIZER_FILE, load_tokenizer
from dlkit.tasks.task import Sums, token_sums
from dlkit.tasks.translator import Search

if TYPE_CHECKING:
    from dlkit.data.tfds_prepare import Check


class Captioning(ImageTask):
    """See the module; `loss` and `accuracy` are per token with the true words before it, `exact` per image without.

    An example of training is an image with one of its captions, so an image with five is seen five times an epoch. The
    loss of an evaluation is over all captions; what the model writes is compared with all captions of the image.
    """

    about = TASKS["captioning"]
    unit = "tok"
    padded_together = (("target_in", "target_out"),)
    shapes_vary = True
    _shuffles = False
    _captioner: Captioner | None = None
    adapted_to = 2000
    adapted_pixels = 2000 * 96 * 96

    @staticmethod
    def tfds_reader() -> "tuple[Callable[..., Any], Check]":
        """Of images with captions."""
        from dlkit.data import tfds_captions

        return tfds_captions.caption_set, tfds_captions.image_and_captions

    @cached_property
    def data(self) -> CaptionData:
        """The dataset, loaded when first needed."""
        loaded: CaptionData = datasets.load_kind(self.options["name"], "captions", **self.dataset_options())
        if self.stored is not None and loaded.shape != tuple(self.stored["shape"]):
            found, wanted = ("x".join(map(str, sides)) for sides in (loaded.shape, self.stored["shape"]))
            raise UsageError(f"the images of {self.options['name']} are {found}, and the run takes {wanted}")
        return loaded.with_tokenizer(self.tokenizer) if self.folder else loaded

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own, so that ids mean the same as in training, else the dataset's."""
        return load_tokenizer(self.folder, self.stored) if self.folder else self.data.tokenizer

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """One, of the captions; no word is read."""
        return self.tokenizer, self.tokenizer

    def save(self, folder: Path) -> None:
        """Writes the tokenizer into the run folder."""
        self.tokenizer.save(folder / TOKENIZER_FILE)

    @cached_property
    def info(self) -> dict[str, Any]:
        """Shape and standardization of the images, size and digest of the tokenizer, which is a file of the run."""
        if self.stored is not None:
            return dict(self.stored)
        return {
            **self.standardization(), "shape": list(self.data.shape),
            "vocabulary": self.tokenizer.size, "tokenizer": self.tokenizer.digest(),
        }  # fmt: skip

    @property
    def training_images(self) -> Split:
        """The images of the training split."""
        if "train" not in self.data.splits:
            _ = self.data.tokenizer  # says that there is nothing to train on
        return self.data.splits["train"].images

    def fingerprint(self) -> str:
        """sha256 of the training images, or of their files, and of their captions.

        All images are decoded here, which finds damaged ones before the first step; those that do not fit into memory
        when training begins only.

        Raises:
            dlkit.errors.DataError: an image cannot be decoded.
        """
        if self.stored is None or self.data.splits["train"].images.is_kept:
            decode_all(self.data.images)
        return self.data.fingerprint()

    def model_arguments(self) -> dict[str, Any]:
        """Shape of the images and size of the vocabulary."""
        return {"image_shape": tuple(self.info["shape"]), "vocabulary": self.info["vocabulary"]}

    def example_inputs(self) -> Any:
        """An image, and the ids of the longest training caption."""
        longest = int(self.data.pairs("train").ids.lengths.max()) + 1
        return (keras.KerasTensor((1, *self.info["shape"]), "float32"), keras.KerasTensor((1, longest), "int32"))

    def describe(self) -> str:
        """Sizes, captions, shape and vocabulary."""
        sizes = ", ".join(
            f"{self.size(split):,} {split}"
            + (f" ({self._pairs(split):,} captions)" if self._has_several(split) else "")
            for split in self.splits
        )
        shape = "x".join(str(side) for side in self.info["shape"])
        words = self.tokenizer
        return f"{self.options['name']}: {sizes} images, {shape}; {words.kind}, {words.size:,} tokens"

    def remarks(self) -> list[str]:
        """What became of the captions: which were dropped and why, and what is unknown."""
        return self.data.remarks()

    def _pairs(self, split: str) -> int:
        """Number of pairs of an image and a caption, after `limit`, which counts images."""
        return int(np.searchsorted(self.data.pairs(split).image, self.size(split)))

    def _has_several(self, split: str) -> bool:
        return self._pairs(split) != self.size(split)

    def see(self, model: keras.Model, images: tf.Tensor) -> Any:
        """What the decoder begins with."""
        return model.start(images)

    def adapt(self, model: keras.Model) -> None:
        """Shows training images to the layers of the encoder that take their weights from them."""
        self.show_images(model.encoder, self.data.splits["train"].images)

    def rows(self, batch_size: int) -> int:
        """Pairs of a training batch."""
        return min(batch_size, self._pairs("train"))

    def plan(self, split: str, *, batch_size: int, epoch: int | None) -> list[NDArray[np.int64]]:
        """The batches of an epoch as arrays of indices of pairs, shuffled; in order without an epoch."""
        self.check_split(split)
        count = self._pairs(split)
        return in_batches(np.arange(count) if epoch is None else self.shuffled(split, count, epoch), batch_size)

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`images` (n, h, w, c) float32, `target_in` and `target_out`, (n, time) int32, padded with 0."""
        return self.rows_of(split, indices, np.arange(len(indices)), epoch=epoch)

    def rows_of(self, split: str, indices: NDArray[np.int64], rows: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """The given rows of `batch`: only their images are decoded, each once however many of its captions are there.

        The net sees such an image once for each caption all the same: a row of the batch is what devices share and what
        padding weighs, so a model is given an image in each.
        """
        pairs, source, info = self.data.pairs(split), self.data.splits[split].images, self.info
        keys = example_keys(self.seed, epoch or 0, indices)
        names = self.options.get("augment") or [] if epoch is not None else []
        alternates = alternation(self.seed, epoch or 0, indices)
        mirrored = np.zeros(len(indices), np.bool_)
        for name in names:  # what is mirrored twice is as it was
            if name in {"flip", "crop_flip"}:
                mirrored ^= are_mirrored(keys)
            elif name == "alternate_flip":
                mirrored ^= alternates
        ids = [
            (self.data.mirrored if turned else pairs.ids)[int(index)]
            for index, turned in zip(indices, mirrored, strict=True)
        ]
        # All rows of the batch say how long it is, so that every process pads alike.
        length = padded_length(max(map(len, ids)) + 1, step=1 if epoch is None else LENGTH_STEP)
        target_in, target_out = inputs_and_targets([ids[at] for at in rows.tolist()], length=length)
        shown, place = np.unique(self._shown(pairs.image[indices[rows]], split, epoch), return_inverse=True)
        pixels = source.fetch(shown)
        if names:
            none = np.zeros(len(rows), np.int32)
            images = augment(
                names, pixels[place], none, keys[rows], mean=info["mean"], std=info["std"], options=self.options,
                mirrored=alternates[rows],
            )["images"]  # fmt: skip
        else:
            images = standardize(pixels, info["mean"], info["std"])[place]
        return {"images": images, "target_in": target_in, "target_out": target_out}

    def with_shuffled_images(self) -> Self:
        """The same task, but its evaluation shows a model other images of the split than those of the captions."""
        task = self._copy()
        task._shuffles = True
        return task

    def _shown(self, images: NDArray[np.int64], split: str, epoch: int | None) -> NDArray[np.int64]:
        """Which images the model is shown for those whose captions are looked at."""
        return self._another[split][images] if self._shuffles and epoch is None else images

    @cached_property
    def _another(self) -> dict[str, NDArray[np.int64]]:
        """For each image of a split another one: all stand in a ring, in an order that is drawn."""
        found = {}
        for split in self.splits:
            count = self.size(split)
            if count < 2:
                raise UsageError(f"the {split} split has one image: there is no other one to show", "leave it out")
            ring = np.argsort(uniform(example_keys(0, 0, np.arange(count)), 1, purpose="another image")[:, 0])
            another = np.empty(count, np.int64)
            another[ring] = np.roll(ring, 1)
            found[split] = another
        return found

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over tokens that are not padding, the end token included."""
        images, target_in, target_out = batch["images"], batch["target_in"], batch["target_out"]
        context = step_context.current()
        if training and context is not None and context.sampling is not None:
            target_in = own_words.with_own_words(model, images, target_in, context)
        logits = model((images, target_in), training=training)  # (batch, time, vocabulary)
        return token_sums(logits, target_out, batch, smoothing=smoothing)

    def own_words_loss(self, model: keras.Model, split: str, *, batch_size: int) -> float:
        """See `own_words.own_words_loss`; over all captions, as `loss`."""
        plan = self.evaluation_plan(model, split, batch_size=batch_size)
        batch_of = partial(self.batch, split, epoch=None)
        return own_words.own_words_loss(model, plan, batch_of, source="images", seed=self.seed)

    def logits(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Of each word of the caption, (rows, time, vocabulary)."""
        return model((batch["images"], batch["target_in"]), training=False)

    def likelihood(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, str]:
        """Of the caption."""
        return -self.loss_sums(model, batch, training=False, smoothing=0.0).loss, "its own words"

    # ------------------------------------------------------------------------------------------- what the model writes

    @property
    def is_text(self) -> bool:
        """Whether people wrote the captions, so that BLEU and CIDEr say something of them."""
        return not self.options["name"].startswith("synthetic:")

    def references(self, split: str) -> list[Sequence[str]]:
        """The captions of each image of a split as they were read, untouched by any tokenizer; after `limit`."""
        return list(self.data.splits[split].captions[: self.size(split)])

    def tested_on(self, split: str) -> tuple[str, list[Sequence[str]]]:
        """The captions of each image."""
        return "captions", self.references(split)

    def outputs(self, model: keras.Model, split: str, search: Search, *, batch_size: int) -> Iterator[str]:
        """What a model says of each image of a split, in their order."""
        captioner, source = self.captioner(model), self.data.splits[split].images
        for rows in in_batches(np.arange(self.size(split)), batch_size):
            pixels = source.fetch(self._shown(rows, split, None))
            for hypotheses in captioner.of_pixels([pixels], (rows + 1).tolist(), search):
                yield hypotheses[0].text

    def decoded_metrics(self, model: keras.Model, split: str, *, batch_size: int) -> dict[str, float]:
        """What greedy search gets right: `exact`, the share of captions that are one of the image's, BLEU, CIDEr-D."""
        outputs = list(self.outputs(model, split, Search(method="greedy"), batch_size=batch_size))
        references = self.references(split)
        scores = {"exact": float(caption_metrics.exact_matches(outputs, references).mean())}
        if self.is_text:
            measured = caption_metrics.caption_scores(outputs, references, lowercase=self.tokenizer.lower)
            scores |= {"bleu": measured.bleu[-1], "cider": measured.cider}
        return scores

    def batch_of_image(self, model: keras.Model, image: NDArray[np.float32]) -> Batch:
        """The image, and what the model says of it by greedy search."""
        captioner, search = self.captioner(model), Search(method="greedy")
        decoded = captioner.writer.decode(image[np.newaxis], [1], search)
        (hypothesis, *_) = captioner.writer.hypotheses(decoded, 0, 0, search)
        return {"images": image[np.newaxis], **teacher_forcing(hypothesis.ids)}

    def captioner(self, model: keras.Model) -> Captioner:
        """The captioner with a model, made once: each one traces a graph of its own."""
        if self._captioner is None or self._captioner.models != (model,):
            self._captioner = Captioner([model], [self.info], self.tokenizer, self.max_len)
        return self._captioner
