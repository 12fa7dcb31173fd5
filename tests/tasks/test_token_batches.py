"""Batches by tokens have as many rows as they come to, which no number of devices need divide: that changes nothing."""

from itertools import islice

import numpy as np
import pytest

from dlkit import recipe

# Sources of 1 to 10 letters, so batches of many sizes; dropout, so that rows must not change places.
FLAGS = {
    "model.width": 8, "model.layers": 1, "model.dropout": 0.2, "data.train": 200, "train.batch_tokens": 60,
    "train.steps": 5, "train.optimizer": "sgd", "train.lr": 0.1, "train.precision": "float64", "train.seed": 3,
}  # fmt: skip


def trained(devices, **train):
    """The rows of each batch, its tokens as the update counts them, and the weights afterwards."""
    from dlkit.train import loop, start

    flags = FLAGS | {f"train.{key}": value for key, value in train.items()}
    prepared = start.prepare(recipe.resolve("seq2seq", "synthetic:reverse", flags=flags), devices=devices)
    update = start.training_step(prepared)
    rows, tokens = [], []
    batches = loop.batches(prepared.task, prepared.recipe.train, loop.Progress(), prepared.devices)
    for step, drawn in enumerate(islice(batches, 5)):
        rows.append(drawn.size)
        tokens.append(float(update(drawn.batch, step=step, lr=0.1, size=drawn.size)["weight"]))
    return rows, tokens, update.arrays()["weights"]


@pytest.fixture(scope="module")
def alone():
    return trained("cpu")


@pytest.mark.parametrize(("devices", "accumulate"), [("cpu:2", 1), ("cpu:3", 1), ("cpu:2", 2)])
def test_devices_and_micro_batches_that_do_not_divide_a_batch(alone, devices, accumulate):
    rows, tokens, weights = alone
    assert any(count % (int(devices[-1]) * accumulate) for count in rows), rows
    same_rows, same_tokens, same_weights = trained(devices, accumulate=accumulate)
    assert (same_rows, same_tokens) == (rows, tokens)
    for name, weight in weights.items():
        np.testing.assert_allclose(same_weights[name], weight, rtol=1e-9, atol=1e-12, err_msg=name)
