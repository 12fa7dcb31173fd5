"""The loss of mixed and weighted images against NumPy, and what of it the devices and the rows of padding change."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import runtime
from dlkit.cli import main
from dlkit.data import batching
from dlkit.data.images import ImageData, ImageSplit
from dlkit.errors import DataError, UsageError
from dlkit.tasks.image_classification import ImageClassification, class_weights
from dlkit.train.optimizers import SGD
from dlkit.train.step import TrainingStep

CLASSES = ["cat", "dog", "owl"]


def task_of(labels, info=None, **options):
    """A task on random 4x4 images with these labels, which needs no dataset of the table."""
    task = ImageClassification({"name": "made", **options}, seed=3, info=info)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1)).astype(np.uint8)
    split = ImageSplit(images, np.asarray(labels, np.int32))
    task.data = ImageData("made", CLASSES, {"train": split, "test": split})
    return task


def test_classes_that_are_learned_and_not_measured_are_told():
    task = task_of([0, 1, 2, 2])
    assert task.remarks() == []
    train, few = task.data.splits["train"], np.array([0, 0], np.int32)
    splits = {"train": train, "validation": ImageSplit(train.images[:2], few), "test": train}
    task.data = ImageData("made", CLASSES, splits)
    assert task.remarks() == ["2 classes have no validation images (dog, ...)"]
    splits["test"] = ImageSplit(train.images[:2], np.array([0, 1], np.int32))
    assert task.remarks()[1] == "1 class has no test images (owl)"
    task.options["split_seed"] = 0  # of a folder, whose test images have a folder of their own
    task.data = ImageData("made", CLASSES, splits, ignored_options=("test",))
    assert ["data.split_seed=1" in line for line in task.remarks()] == [True, False]


class Scripted:
    """A model whose logits are known."""

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, images, *, training):
        return tf.constant(self.logits)


def sums_of(task, logits, batch, *, training=True, smoothing=0.0):
    batch = {"images": np.zeros((len(logits), 4, 4, 1), np.float32)} | batch
    found = task.loss_sums(
        Scripted(logits), {key: tf.constant(value) for key, value in batch.items()}, training=training,
        smoothing=smoothing,
    )  # fmt: skip
    hits, weight = found.metrics["accuracy"]
    return float(found.loss), float(found.weight), float(hits), float(weight)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


LOGITS = np.random.default_rng(1).normal(size=(6, 3))
MIXED = {
    "labels": np.array([0, 1, 2, 0, 1, 2], np.int32),
    "other_labels": np.array([1, 2, 0, 0, 2, 1], np.int32),
    "shares": np.array([0.25, 0.5, 1.0, 0.75, 0.0, 0.125], np.float32),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_mixed_image_is_that_of_its_soft_label(smoothing):
    """Zhang et al. 2018, equation 1: labels are mixed as one-hot vectors."""
    one_hot, share = np.eye(3), MIXED["shares"][:, None].astype(float)
    soft = share * one_hot[MIXED["labels"]] + (1 - share) * one_hot[MIXED["other_labels"]]
    smoothed = (1 - smoothing) * soft + smoothing / 3
    loss, weight, hits, images = sums_of(task_of([0, 1, 2]), LOGITS, MIXED, smoothing=smoothing)
    assert loss == pytest.approx(-(smoothed * log_softmax(LOGITS)).sum(), rel=1e-12)
    assert hits == pytest.approx(soft[np.arange(6), LOGITS.argmax(1)].sum(), rel=1e-12)
    assert (weight, images) == (6, 6)


def test_rows_of_padding_add_nothing():
    padded = batching.pad_rows(MIXED, 8)
    assert len(padded["shares"]) == 8
    logits = np.concatenate([LOGITS, [[50.0, -50.0, 0.0], [-50.0, 50.0, 0.0]]])
    task = task_of([0, 0, 0, 1, 1, 2], class_weights="balanced")
    assert sums_of(task, logits, padded) == pytest.approx(sums_of(task, LOGITS, MIXED), rel=1e-12)


def test_of_an_image_and_its_mirror_image_the_probabilities_are_averaged_where_that_is_asked_for():
    """The model says of an image the first three pixels of its upper row; by NumPy."""
    task = task_of([0, 1, 2])
    mirroring = task.with_mirror_images()
    rows = np.arange(3)
    batch = task.batch("test", rows, epoch=None)
    upper = np.float64(batch["images"][:, 0, :, 0])  # (images, width)
    read, mirrored = log_softmax(upper[:, :3]), log_softmax(upper[:, ::-1][:, :3])
    both = np.log((np.exp(read) + np.exp(mirrored)) / 2)

    def loss(of, training):
        tensors = {key: tf.constant(value) for key, value in batch.items()}
        return float(of.loss_sums(lambda images, training: images[:, 0, :3, 0], tensors, training=training,
                                  smoothing=0.0).loss)  # fmt: skip

    labels = batch["labels"]
    assert loss(mirroring, False) == pytest.approx(-both[rows, labels].sum(), rel=1e-5)
    for of, training in ((mirroring, True), (task, False)):
        assert loss(of, training) == pytest.approx(-read[rows, labels].sum(), rel=1e-5)
    assert mirroring.data is task.data, "loaded once"


def test_balanced_weights_are_n_over_classes_times_count():
    weights = class_weights("balanced", np.array([0] * 6 + [1] * 3 + [2]), CLASSES)
    assert weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])


def test_weights_of_a_list_keep_their_ratios_and_weigh_1_on_average():
    weights = np.array(class_weights([1.0, 2.0, 4.0], np.array([0] * 6 + [1] * 3 + [2]), CLASSES))
    np.testing.assert_allclose(weights / weights[0], [1, 2, 4])
    assert weights @ [6, 3, 1] == pytest.approx(10)


def test_the_training_loss_is_weighted_and_nothing_else():
    """sum(w * loss) / sum(w), by hand."""
    labels = np.array([0, 0, 1, 2, 0, 1], np.int32)
    task = task_of([0] * 6 + [1] * 3 + [2], class_weights="balanced")
    losses = -log_softmax(LOGITS)[np.arange(6), labels]
    weights = np.array([10 / 18, 10 / 9, 10 / 3])[labels]
    right = (LOGITS.argmax(1) == labels).sum()
    loss, weight, hits, images = sums_of(task, LOGITS, {"labels": labels})
    assert loss == pytest.approx(weights @ losses, rel=1e-12)
    assert weight == pytest.approx(weights.sum(), rel=1e-12)
    assert (hits, images) == (right, 6)
    evaluated = sums_of(task, LOGITS, {"labels": labels}, training=False)
    assert evaluated == pytest.approx((losses.sum(), 6, right, 6), rel=1e-12)


def test_a_mixed_image_weighs_as_its_parts():
    weights = np.array([10 / 18, 10 / 9, 10 / 3])
    loss, weight, _, _ = sums_of(task_of([0] * 6 + [1] * 3 + [2], class_weights="balanced"), LOGITS, MIXED)
    expected = 0.0
    for row in range(6):
        for label, share in [
            (MIXED["labels"][row], MIXED["shares"][row]), (MIXED["other_labels"][row], 1 - MIXED["shares"][row])
        ]:  # fmt: skip
            expected -= share * weights[label] * log_softmax(LOGITS)[row, label]
    assert loss == pytest.approx(expected, rel=1e-12)
    share = MIXED["shares"].astype(float)
    assert weight == pytest.approx(share @ weights[MIXED["labels"]] + (1 - share) @ weights[MIXED["other_labels"]])


def test_balancing_needs_images_of_every_class():
    with pytest.raises(DataError, match="no training images of owl"):
        _ = task_of([0, 1, 1], class_weights="balanced").info


def test_a_list_of_weights_has_a_number_for_every_class():
    with pytest.raises(UsageError, match="2 numbers, and there are 3 classes") as caught:
        _ = task_of([0, 1, 2], class_weights=[1.0, 2.0]).info
    assert f"in this order: {', '.join(CLASSES)}; or `balanced`" in caught.value.hint


def test_a_run_keeps_its_weights():
    info = task_of([0, 0, 0, 1, 2], class_weights="balanced").info
    assert json.loads(json.dumps(info)) == info
    resumed = task_of([0, 1, 2], info=info, class_weights="balanced")
    assert resumed.info["class_weights"] == info["class_weights"]
    assert "class_weights" not in task_of([0, 1, 2]).info


def test_only_training_batches_are_augmented():
    task = task_of(range(3), augment=["mixup", "cutout"], mixup_alpha=4.0)
    still, moved = (task.batch("train", np.arange(3), epoch=epoch) for epoch in (None, 0))
    assert set(still) == {"images", "labels"}
    assert set(moved) == {"images", "labels", "other_labels", "shares"}
    assert not np.array_equal(still["images"], moved["images"])
    again = task.batch("train", np.arange(3), epoch=0)
    assert all(np.array_equal(moved[key], again[key]) for key in moved)


def test_alternate_flip_turns_each_image_every_other_epoch():
    task = task_of(np.arange(40) % 3, augment=["alternate_flip"])
    rows = np.arange(40)
    plain = task.batch("train", rows, epoch=None)["images"]
    first, second, third = (task.batch("train", rows, epoch=epoch)["images"] for epoch in (0, 1, 2))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(second, first[:, :, ::-1])
    turned = [not np.array_equal(one, other) for one, other in zip(first, plain, strict=True)]
    assert 8 < sum(turned) < 32


ALL = ["trivial", "crop_flip", "alternate_flip", "cutout", "mixup", "cutmix"]


@pytest.mark.parametrize(("augment", "most"), [([], 5), (ALL[:4], 5), (ALL, 10)])
@pytest.mark.parametrize("size", [1, 11, 20])
def test_a_part_is_those_rows_of_the_batch_and_decodes_no_others(monkeypatch, augment, most, size):
    """To the bit, as a process trains on them that shares the batch with others; a mix needs a partner for each row."""
    task = task_of(np.arange(40) % 3, augment=augment)
    indices = np.random.default_rng(1).permutation(40)[:size]
    fetched = []
    fetch = ImageSplit.fetch
    monkeypatch.setattr(ImageSplit, "fetch", lambda self, rows: fetched.append(len(rows)) or fetch(self, rows))
    _ = task.info
    for epoch in (0, None):
        whole = task.batch("train", indices, epoch=epoch)
        for worker in range(4):
            rows = np.arange(size)[worker::4]
            part = task.rows_of("train", indices, rows, epoch=epoch)
            assert fetched[-1] <= most
            assert part.keys() == whole.keys()
            for key, array in part.items():
                assert array.dtype == whole[key].dtype
                np.testing.assert_array_equal(array, whole[key][rows], err_msg=key)


def trained(task, count):
    """Weights after 3 steps in float64 on batches of 7, the last an uneven 6, over some devices."""
    runtime.set_precision("float64")
    names = [f"CPU:{index}" for index in range(count)]
    strategy = (
        tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())
        if count > 1
        else tf.distribute.get_strategy()
    )
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4, 4, 1))
        flat = keras.layers.Flatten(name="flatten")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3, name="head")(flat))
    step = TrainingStep(task, model, SGD(), runtime.Devices(strategy, "some", replicas=count))
    for number, indices in enumerate(task.plan("train", batch_size=7, epoch=0)):
        measured = step(task.batch("train", indices, epoch=0), step=number, lr=0.1)
    return {**step.arrays()["weights"], "accuracy": float(measured["accuracy/sum"])}


def test_mixed_and_weighted_steps_do_not_depend_on_the_devices():
    labels = np.random.default_rng(2).integers(0, 3, 20)
    task = task_of(labels, augment=["crop_flip", "mixup", "cutmix"], class_weights=[1.0, 3.0, 2.0])
    one = trained(task, 1)
    for count in (2, 3):
        for name, array in trained(task, count).items():
            np.testing.assert_allclose(array, one[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("chosen", [None, "balanced"])
def test_balanced_weights_let_a_net_name_what_is_rare(chosen):
    """Ten dark images and 190 bright ones, whose means lie 1.5 standard deviations apart.

    By Bayes' rule the best limit between them lies ln(19) / 1.5 = 1.96 deviations from the middle, below which are 11 %
    of the dark ones; between classes that weigh the same it is the middle, with 77 % of each on its side.
    """
    random = np.random.default_rng(0)
    labels = (np.arange(200) >= 10).astype(np.int32)
    shades = np.where(labels, 150, 105) + random.normal(0, 30, 200)  # one for each image: its pixels are alike
    pixels = np.broadcast_to(shades.clip(0, 255)[:, np.newaxis, np.newaxis, np.newaxis], (200, 4, 4, 1))
    task = ImageClassification({"name": "made", "class_weights": chosen}, seed=3)
    split = ImageSplit(pixels.astype(np.uint8), labels)
    task.data = ImageData("made", ["dark", "bright"], {"train": split})
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(inputs)))
    step = TrainingStep(task, model, SGD(), runtime.Devices(tf.distribute.get_strategy(), "some"))
    whole = task.batch("train", np.arange(200), epoch=0)
    for number in range(200):
        step(whole, step=number, lr=0.5)
    predicted = model(whole["images"]).numpy().argmax(axis=1)
    recall = [float((predicted[labels == label] == label).mean()) for label in (0, 1)]
    if chosen:
        assert min(recall) > 0.6
    else:
        assert recall[0] < 0.3
        assert recall[1] > 0.95


def test_a_run_with_mixes_and_weights_is_trained_resumed_and_evaluated(tmp_path, capsys):
    sets = ["data.augment=trivial,crop,cutout,mixup,cutmix", "data.class_weights=balanced", "data.cutmix_alpha=0.5",
            "model.hidden=[8]", "data.size=8", "train.keep=2"]  # fmt: skip
    options = [word for text in sets for word in ("--set", text)]
    folder = ["--runs-dir", str(tmp_path), "--name", "x", "--batch-size", "24", "--limit", "40", "--epochs", "2"]
    assert main(["train", "mlp", "-q", *folder, *options, "--max-time", "0s"]) == 0
    info = json.loads((tmp_path / "x" / "run.json").read_text())["data"]
    assert np.mean(info["class_weights"]) == pytest.approx(1, abs=0.01), "digits are nearly even"
    assert main(["train", "--resume", str(tmp_path / "x"), "-q", "--max-time", "10m"]) == 0
    records = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    logged = [record for record in records if record["kind"] == "train"]
    assert logged[-1]["step"] == 4
    assert all(np.isfinite(record["loss"]) and 0 <= record["accuracy"] <= 1 for record in logged)
    assert main(["evaluate", str(tmp_path / "x"), "--limit", "40", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["examples"] == 40
