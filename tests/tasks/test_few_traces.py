"""Batches by tokens come in few shapes and make few graphs; how much of them is padding is told."""

import re
from itertools import islice

import numpy as np
import pytest

from dlkit import recipe
from dlkit.cli import main

FLAGS = {
    "model.width": 4, "model.layers": 1, "model.cell": "rnn", "data.train": 300, "data.length": 20,
    "train.batch_tokens": 120,
}  # fmt: skip
EPOCHS = 2


@pytest.fixture(scope="module")
def run():
    """The shapes and real tokens of each batch of two epochs, and how many graphs were traced after each."""
    from dlkit.train import loop, start

    prepared = start.prepare(recipe.resolve("seq2seq", "synthetic:reverse", flags=FLAGS), devices="cpu")
    update = start.training_step(prepared)
    batches = loop.batches(prepared.task, prepared.recipe.train, loop.Progress(), prepared.devices)
    steps = len(prepared.task.plan("train", batch_size=1, epoch=0))
    seen, traces = [], []
    for step, drawn in enumerate(islice(batches, EPOCHS * steps)):
        update(drawn.batch, step=step, lr=0.0, size=drawn.size)
        seen.append({name: drawn.batch[name] for name in ("source", "target_out")})
        traces.append(update.traces)
    return seen, traces[steps - 1 :: steps]


def test_an_epoch_traces_few_graphs_and_the_next_one_none(run):
    """A graph of its own for each axis that turns out to vary: the rows, the source's time, the target's time."""
    batches, traces = run
    shapes = {(batch["source"].shape, batch["target_out"].shape) for batch in batches}
    assert len(shapes) > 8
    assert len(shapes) <= 16 + 1  # buckets, and what is left over of the longest
    assert traces[0] <= 1 + 3
    assert traces[1] == traces[0]


def test_train_tells_how_much_is_padding(run, tmp_path, capsys):
    batches, _ = run
    ids = np.concatenate([batch[side].ravel() for batch in batches for side in batch])
    arguments = [part for key, value in FLAGS.items() for part in ("--set", f"{key}={value}")]
    command = ["train", "seq2seq", "--data", "synthetic:reverse", "--dry-run", "--runs-dir", str(tmp_path)]
    assert main([*command, *arguments]) == 0
    (told,) = re.findall(r"([\d.]+) % of the training batches is padding", capsys.readouterr().err)
    assert float(told) == pytest.approx(100 * np.mean(ids == 0), abs=0.06)
    assert 0 < float(told) < 30
