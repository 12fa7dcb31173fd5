"""Every image net of the table trains for an epoch on drawn shapes, moves by it, saves a checkpoint and evaluates it.

Tiny, and fast: a graph of a deep net takes longer to build than its epoch to compute. So the deep nets run without
graphs here, operation by operation; the shallow ones, which are made of the same blocks, run as they do for users.
"""

import math
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, recipe
from dlkit.train import start

NAMES = list(models.MODELS_BY_TASK["image_classification"])
AS_GRAPHS = {"mlp", "lenet", "alexnet", "vgg11", "resnet18", "plain20", "airbench"}
# The smallest images that a net takes; residual and plain nets take any.
SIZES = {"mlp": 8, "lenet": 16, "alexnet": 63, "airbench": 9} | {name: 32 for name in NAMES if name.startswith("vgg")}


class Records:
    """Shows nothing and keeps all that it is to show."""

    def __init__(self):
        self.records = []

    def estimate(self, *, steps, seconds):
        """Nobody waits."""

    def advance(self, step):
        """Nobody looks."""

    def interval(self, record):
        self.records.append(record)

    evaluation = interval


@pytest.fixture
def folder(tmp_path):
    """A folder for a run, emptied in the end: the checkpoints of all nets are gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def without_graphs(request):
    tf.config.run_functions_eagerly(request.param)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    ("without_graphs", "name"),
    [(name not in AS_GRAPHS, name) for name in NAMES],
    indirect=["without_graphs"],
    ids=NAMES,
)
def test_an_epoch_on_shapes(without_graphs, name, folder):
    flags = {
        "data.size": SIZES.get(name, 8), "data.train": 4, "data.validation": 4, "data.test": 4,
        "train.epochs": 1, "train.batch_size": 4, "train.optimizer": "sgd", "train.momentum": 0.0,
    }  # fmt: skip
    if name.startswith("vgg"):
        flags["model.dense_units"] = 64
    display = Records()
    prepared = start.prepare(recipe.resolve(name, "synthetic:shapes", flags=flags))
    loop = start.new_loop(prepared, display, folder=folder)
    variables = prepared.model.trainable_variables
    fresh = [np.asarray(variable).copy() for variable in variables]
    assert loop.fit() == "done"
    for variable, before in zip(variables, fresh, strict=True):
        # The scale of a norm begins at 1, where float32 loses what deep nets move it by, less than 6e-8.
        may_stay = re.search(r"_norm\d?/gamma$", variable.path) and (before == 1).all()
        assert may_stay or not np.array_equal(before, variable), f"{variable.path} has not changed"
    assert [(record["kind"], record["step"]) for record in display.records] == [("train", 1), ("evaluation", 1)]
    result = loop.test()
    assert (result["step"], result["best"]) == (1, True)
    losses = [record["loss"] for record in display.records] + [result["metrics"]["loss"]]
    assert all(math.isfinite(loss) for loss in losses), losses


def test_the_table_is_not_empty():
    assert len(NAMES) > 20
    assert set(NAMES) > AS_GRAPHS
