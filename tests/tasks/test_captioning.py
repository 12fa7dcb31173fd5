"""Captioning as a task: batches, augmented captions, sums that padding and batch mates do not change, the update."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, recipe, runtime
from dlkit.data.batching import ROW_WEIGHTS
from dlkit.data.scenes import mirrored
from dlkit.data.tokenizer import END, START
from dlkit.errors import UsageError
from dlkit.tasks.captioning import Captioning
from dlkit.tasks.translator import Search
from dlkit.train import optimizers
from dlkit.train.step import TrainingStep

SIZES = {"train": 30, "validation": 6, "test": 8, "size": 16}


def task_of(cls=Captioning, **options):
    seed = options.pop("seed", 0)
    return cls({"name": "synthetic:shapes", **SIZES, **options}, seed=seed, max_len=12)


def net(task, name="captioner_attention", seed=0, **options):
    keras.utils.set_random_seed(seed)
    options = {"encoder": "lenet", "width": 8, **options}
    return models.build(name, **task.model_arguments(), **options)


class FiveEach(Captioning):
    """Its images have from one to three captions."""

    @property
    def data(self):
        if "made" not in self.__dict__:
            from dataclasses import replace

            loaded = Captioning.data.func(self)
            splits = {
                name: replace(
                    split,
                    captions=[
                        [f"{one[0]} {'a ' * k}" for k in range(1 + at % 3)] for at, one in enumerate(split.captions)
                    ],
                )
                for name, split in loaded.splits.items()
            }
            self.__dict__["made"] = replace(loaded, splits=splits)
        return self.__dict__["made"]


# ------------------------------------------------------------------------------------------------------------- batches


def test_a_training_example_is_an_image_with_one_of_its_captions():
    task = task_of(FiveEach)
    assert task.size("train") == 30
    plan = task.plan("train", batch_size=16, epoch=0)
    assert sorted(np.concatenate(plan)) == list(range(60))
    assert task.rows(64) == 60
    pairs = task.data.pairs("train")
    batch = task.batch("train", plan[0], epoch=0)
    assert batch["images"].shape == (16, 16, 16, 3)
    for row, index in enumerate(plan[0]):
        image = task.data.splits["train"].images.fetch([pairs.image[index]])
        expected = (image[0] / 255 - task.info["mean"]) / task.info["std"]
        np.testing.assert_allclose(batch["images"][row], expected, atol=1e-5)
        ids = pairs.ids[int(index)].tolist()
        assert task.tokenizer.decode(ids).split() == pairs.texts[index].split()
        assert batch["target_in"][row, : len(ids) + 1].tolist() == [START, *ids]
        assert batch["target_out"][row, : len(ids) + 1].tolist() == [*ids, END]
        assert not batch["target_in"][row, len(ids) + 1 :].any()
    assert "30 train (60 captions)" in task.describe()


def test_three_processes_standardize_by_what_each_has_counted_of_its_part_of_the_images():
    pixels = task_of().data.splits["train"].images.fetch(np.arange(30)) / 255
    task = task_of()
    task.take_counts(sum(task_of().count(rank=rank, processes=3) for rank in range(3)))
    np.testing.assert_allclose(task.info["mean"], pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(task.info["std"], pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    begun = Captioning(task.options, info=task.info)
    assert begun.count(rank=0, processes=3) is None, "a run that has begun knows them"


def test_the_limit_counts_images():
    task = FiveEach({"name": "synthetic:shapes", **SIZES}, limit=4)
    assert task.size("train") == 4
    assert len(np.concatenate(task.plan("train", batch_size=3, epoch=1))) == 1 + 2 + 3 + 1
    assert len(task.references("test")) == 4


@pytest.mark.parametrize("names", [["flip"], ["alternate_flip"], ["flip", "alternate_flip"]])
def test_a_mirrored_image_comes_with_the_caption_of_what_it_shows(names):
    plain, flipped = task_of(), task_of(augment=names)
    indices = np.arange(30)
    before, after = plain.batch("train", indices, epoch=2), flipped.batch("train", indices, epoch=2)
    turned = 0
    for row in range(30):
        said, now = (plain.tokenizer.decode(batch["target_out"][row]) for batch in (before, after))
        is_turned = not np.array_equal(before["images"][row], after["images"][row])
        np.testing.assert_array_equal(after["images"][row], before["images"][row][:, :: -1 if is_turned else 1])
        assert now == (mirrored(said) if is_turned else said)
        turned += is_turned
    assert 5 < turned < 25
    again = flipped.batch("train", indices, epoch=None)
    np.testing.assert_array_equal(again["images"], before["images"])  # evaluation sees them as they are


def test_parts_are_rows_of_the_batch():
    task = task_of(FiveEach, augment=["crop_flip"])
    indices = np.array([7, 3, 50, 21])
    whole, rows = task.batch("train", indices, epoch=1), np.array([2, 0])
    for key, array in task.rows_of("train", indices, rows, epoch=1).items():
        np.testing.assert_array_equal(array, whole[key][rows])


def test_an_image_is_decoded_once_for_all_of_its_captions(monkeypatch):
    """One, two and three captions in turn."""
    task = task_of(FiveEach)
    split, info, read = task.data.splits["test"].images, task.info, []
    fetch = type(split).fetch
    monkeypatch.setattr(type(split), "fetch", lambda self, rows: read.append(list(rows)) or fetch(self, rows))
    images = task.batch("test", np.arange(9), epoch=None)["images"]
    assert read == [[0, 1, 2, 3, 4]]
    for image, of in zip(images, [0, 1, 1, 2, 2, 2, 3, 4, 4], strict=True):
        np.testing.assert_allclose(image, (fetch(split, [of])[0] / 255 - info["mean"]) / info["std"], atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.augment", '["mixup"]', "mixup mixes two images, and their captions cannot be mixed"),
        ("data.class_weights", '"balanced"', "unknown key: data.class_weights"),
        ("train.batch_tokens", "100", "train.batch_tokens is for tasks on text"),
        ("train.monitor", "cider", "train.monitor is cider, which is not measured on synthetic:shapes"),
    ],
)
def test_mistakes_in_recipes_are_usage_errors(key, value, message):
    with pytest.raises(UsageError, match=message):
        recipe.resolve("captioner", "synthetic:shapes", overrides=[(key, value, "set")])


# ---------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("name", ["captioner", "captioner_attention"])
def test_padding_and_batch_mates_change_no_sum(name):
    runtime.set_precision("float64")
    task = task_of(FiveEach)
    model = net(task, name)
    batch = {key: tf.constant(array) for key, array in task.batch("test", np.arange(10), epoch=None).items()}
    batch["images"] = tf.cast(batch["images"], tf.float64)
    whole = task.loss_sums(model, batch, training=False, smoothing=0.1)
    parts = [
        task.loss_sums(model, {key: value[at : at + 1] for key, value in batch.items()}, training=False, smoothing=0.1)
        for at in range(10)
    ]
    assert float(whole.loss) == pytest.approx(sum(float(part.loss) for part in parts), rel=1e-9)
    assert float(whole.weight) == sum(float(part.weight) for part in parts)
    wider = {key: tf.pad(value, [[0, 3], [0, 5]]) if value.shape.rank == 2 else tf.pad(value, [[0, 3]] + [[0, 0]] * 3)
             for key, value in batch.items()}  # fmt: skip
    wider[ROW_WEIGHTS] = tf.constant([1.0] * 10 + [0.0] * 3)
    padded = task.loss_sums(model, wider, training=False, smoothing=0.1)
    assert float(padded.loss) == pytest.approx(float(whole.loss), rel=1e-9)
    assert float(padded.weight) == float(whole.weight)


def test_what_is_written_does_not_depend_on_the_batch():
    task = task_of()
    model = net(task, "captioner", init="gaussian:2.0", width=24)
    search = Search(beams=3)
    together = list(task.outputs(model, "test", search, batch_size=8))
    assert together == list(task.outputs(model, "test", search, batch_size=3))
    assert len(set(together)) > 1


def test_shuffled_images_are_other_images():
    task = task_of()
    rows = np.arange(8)
    before = task.batch("test", rows, epoch=None)
    shuffled = task.with_shuffled_images()
    after = shuffled.batch("test", rows, epoch=None)
    np.testing.assert_array_equal(after["target_out"], before["target_out"])
    origin = [[np.array_equal(one, other) for other in before["images"]].index(True) for one in after["images"]]
    assert sorted(origin) == list(range(8))
    assert all(own != other for own, other in enumerate(origin))
    assert shuffled.data is task.data, "loaded once"
    np.testing.assert_array_equal(task.batch("test", rows, epoch=None)["images"], before["images"])
    of_training = [each.batch("train", rows, epoch=0)["images"] for each in (task, shuffled)]
    np.testing.assert_array_equal(*of_training)


# ---------------------------------------------------------------------------------------------------------- the update


def test_micro_batches_equal_the_whole_batch():
    """With dropout, flips and scheduled sampling, in float64; LeNet has no batch norm."""
    runtime.set_precision("float64")
    found = []
    for parts in (1, 3):
        task = task_of(FiveEach, augment=["crop_flip"])
        model = net(task, "captioner", dropout=0.3)
        devices = runtime.Devices(tf.distribute.get_strategy(), "one")
        step = TrainingStep(task, model, optimizers.SGD(momentum=0.9), devices, accumulate=parts)
        for number, indices in enumerate(task.plan("train", batch_size=26, epoch=0)):  # of 26, 26 and 8 pairs
            step(task.batch("train", indices, epoch=0), step=number, lr=0.2, sampling=0.5)
        found.append({path: variable.numpy() for path, variable in step.variables.items()})
    one, divided = found
    for path, array in one.items():
        np.testing.assert_allclose(divided[path], array, rtol=0, atol=1e-9 * np.abs(array).max(), err_msg=path)
