"""The batch whose gradients `inspect` shows is the one that the run began with."""

import numpy as np
import pytest
import tensorflow as tf

from dlkit import recipe, runs
from dlkit.probe.views import Subject
from dlkit.runtime import Devices
from dlkit.tasks.task import open_task
from dlkit.train import start
from dlkit.train.loop import Progress, batches, first_batch

TEXTS = ["data.train=64", "data.validation=4", "data.test=4", "model.width=8", "model.ffn=8", "model.layers=1"]
STREAMS = ["data.block=16", "train.batch_size=8", "train.precision=float32", "model.width=4", "model.layers=1"]
RUNS = {
    "of few images": (
        "mlp", ["train.seed=5", "train.limit=60", "train.batch_size=20", "data.augment=['crop']"]
    ),
    "of drawn images": ("mlp", ["train.seed=5", "train.resample=bootstrap", "train.batch_size=20"]),
    "of tokens": ("transformer", [*TEXTS, "train.seed=2", "train.batch_tokens=100", "train.clip_norm=none"]),
    "of streams": ("lstm_lm", STREAMS),
    "of short streams": ("lstm_lm", [*STREAMS, "train.limit=60"]),
}  # fmt: skip


def drawn_first(task, settings):
    """The first batch of the training loop."""
    drawn = batches(task, settings, Progress(), Devices(tf.distribute.get_strategy(), "cpu"))
    return next(iter(drawn)).batch


def same(one, other):
    assert one.keys() == other.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, other[key], err_msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_the_first_batch_of_a_run(tmp_path, name):
    model, sets = RUNS[name]
    prepared = start.prepare(recipe.resolve(model, overrides=[(*recipe.parse_override(text), "set") for text in sets]))
    task, settings = prepared.task, prepared.recipe.train
    wanted = drawn_first(task, settings)
    info = {"task": prepared.recipe.task, "data": task.info, "model_arguments": task.model_arguments()}
    run = runs.create(tmp_path, prepared.recipe, info, prepare=task.save)
    subject = Subject(str(run.path))
    subject.__dict__["model"] = prepared.model  # the run has no checkpoint yet
    assert subject.settings == settings
    indices, batch = first_batch(subject.training_task, subject.settings)
    np.testing.assert_array_equal(indices, task.plan("train", batch_size=settings.batch_size, epoch=0)[0])
    same(batch, wanted)
    # The other splits can be looked at as a whole, however little the run was trained on.
    whole = open_task(prepared.recipe.task, run.recipe["data"], info=run.info["data"], folder=run.path).size("train")
    assert subject.task.size("train") == whole == {"transformer": 64, "mlp": 1293}.get(model, whole)
    limited = {"of few images": 60, "of short streams": 60}
    assert subject.training_task.size("train") == limited.get(name, whole)


def test_small_images_early_in_training():
    overrides = [
        (key, value, "set") for key, value in (("train.progressive", "[0.5]"), ("train.progressive_until", "[0.5]"))
    ]
    settings = recipe.resolve("resnet20", "digits", overrides=overrides).train
    task = start.open_as_trained("image_classification", {"name": "digits"}, settings, max_len=1)
    _, batch = first_batch(task, settings)
    whole = task.info["shape"][0]
    assert batch["images"].shape[1:3] == (whole // 2, whole // 2)
    same(batch, drawn_first(task, settings))
