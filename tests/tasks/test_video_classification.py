"""Video: what the net sees of a clip, labels per clip and per frame, devices, and looking ahead."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import metrics, models, runtime
from dlkit.cli import main
from dlkit.runtime import Devices
from dlkit.summary import summarize
from dlkit.tasks.task import open_task
from dlkit.train.optimizers import optimizer
from dlkit.train.step import TrainingStep

SMALL = {"name": "synthetic:moving_digits", "size": 16, "frames": 3, "train": 20, "validation": 6, "test": 9}
TINY = {"filters": 2, "width": 8}


def opened(label="digit", **more):
    return open_task("video_classification", SMALL | {"label": label}, seed=3, **more)


def net(task, **options):
    keras.utils.set_random_seed(0)
    return models.build("video_lstm", **task.model_arguments(), **TINY, **options)


def test_pixels_are_standardized_with_the_training_clips_which_the_run_keeps():
    task = opened()
    train = task.data.splits["train"].fetch(np.arange(20)).pixels / 255
    batch = task.batch("test", np.array([5, 1]), epoch=None)
    expected = (task.data.splits["test"].fetch([5, 1]).pixels / 255 - train.mean()) / train.std()
    np.testing.assert_allclose(batch["clips"], expected, rtol=1e-4, atol=1e-5)
    assert opened(info=task.info).info == task.info


def test_the_net_of_each_frame_sees_that_frame_alone():
    """Frame by frame through the conv net, then the LSTM over the vectors, then the head."""
    task = opened("revealed")
    model = net(task, dropout=0.5)
    clips = tf.constant(task.batch("test", np.arange(4), epoch=None)["clips"])
    vectors = tf.stack([model.frame_net.net(clips[:, frame]) for frame in range(3)], axis=1)
    outputs, _ = model.stack(vectors)
    logits = model(clips)
    assert logits.shape == (4, 3, 10)
    np.testing.assert_allclose(logits, model.head(outputs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(clips[:1]), logits[:1], rtol=1e-4, atol=1e-5)  # neighbours do not matter


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_a_bidirectional_net_sees_the_frames_that_follow(bidirectional):
    task = opened("revealed")
    model = net(task, bidirectional=bidirectional)
    clips = task.batch("test", np.arange(4), epoch=None)["clips"]
    changed = clips.copy()
    changed[:, 2] += 1
    before, after = model(clips)[:, :2].numpy(), model(changed)[:, :2].numpy()
    assert np.allclose(before, after, atol=1e-6) != bidirectional


def test_the_class_of_a_clip_is_told_after_its_last_frame():
    task = opened("digit")
    model = net(task)
    clips = task.batch("test", np.arange(4), epoch=None)["clips"]
    outputs, _ = model.stack(model.frame_net(clips))
    np.testing.assert_allclose(model(clips), model.head(outputs[:, -1]), rtol=1e-4, atol=1e-5)


def test_what_it_costs():
    """Three frames of 16x16: convs 3x3 on 16x16, 8x8 and 4x4 maps, a dense layer on 2x2x4, four gates, the head."""
    model = net(opened("revealed"))
    found = summarize(model, keras.KerasTensor((1, 3, 16, 16, 1), "float32"))
    frame = 9 * (256 * 1 * 2 + 64 * 2 * 4 + 16 * 4 * 4) + 16 * 8
    assert found.multiply_adds == 3 * (frame + (8 + 8) * 32 + 8 * 10)
    assert found.parameters == model.count_params()
    assert not any("estimate" in note for note in found.notes)


@pytest.mark.parametrize("label", ["direction", "next_direction"])
def test_the_loss_is_that_of_numpy_over_clips_or_over_frames(label):
    task = opened(label)
    model = net(task)
    batch = task.batch("test", np.arange(9), epoch=None)
    sums = task.loss_sums(model, batch, training=False, smoothing=0)
    logits = model(batch["clips"]).numpy().reshape(-1, 4)
    labels = batch["labels"].ravel()
    chosen = metrics.softmax(logits)[np.arange(len(labels)), labels]
    assert float(sums.loss / sums.weight) == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    total, weight = sums.metrics["accuracy"]
    assert float(total / weight) == pytest.approx((logits.argmax(1) == labels).mean())
    assert ("exact" in sums.metrics) == (label == "next_direction")


def test_two_devices_make_the_update_of_one():
    task, ends = opened("revealed"), []
    for replicas in (1, 2):
        places = [place.name for place in tf.config.list_logical_devices("CPU")[:replicas]]
        strategy = (
            tf.distribute.MirroredStrategy(places, tf.distribute.ReductionToOneDevice())
            if replicas > 1
            else tf.distribute.get_strategy()
        )
        with runtime.precision("float64"), strategy.scope():
            devices = Devices(strategy, "", replicas=replicas)
            step = TrainingStep(task, net(task, dropout=0.3), optimizer("sgd", momentum=0.9), devices)
            step(task.batch("train", np.arange(5), epoch=0), step=0, lr=0.1)
        ends.append([variable.value.numpy() for variable in step.variables.values()])
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-9)


@pytest.mark.parametrize("label", ["digit", "revealed"])
def test_from_training_to_the_tables_of_classifiers(tmp_path, capsys, label):
    sets = [f"--set=data.{key}={value}" for key, value in SMALL.items() if key != "name"]
    sets += [f"--set=model.{key}={value}" for key, value in TINY.items()]
    run = str(tmp_path / "run")
    place = ["--runs-dir", str(tmp_path), "--name", "run", "-q"]
    assert main(["train", "video_lstm", f"--set=data.label={label}", *sets, "--steps=2", *place]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--json", "-q", "--png", str(tmp_path / "tables.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    labels = 9 if label == "digit" else 9 * 3
    assert (found["examples"], sum(map(sum, found["confusion"]))) == (9, labels)
    assert ("accuracy" in found["intervals"]) == (label == "digit"), "frames of a clip hang together"
    assert ("exact" in found) == (label == "revealed")
    assert main(["evaluate", run, run]) == 0
    assert "Neither is better" in capsys.readouterr().err
    assert main(["evaluate", run, "--mirror"]) == 2
