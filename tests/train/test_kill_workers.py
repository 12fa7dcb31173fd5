"""`kill -9` of one of two workers or of all, at twenty random moments of a run on CIFAR-10: the same final weights.

In float64, where the order of the sums does not show, they are as near as the README says.
"""

import os
import random
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
from test_workers import ended, start, wait_for_step

from dlkit import data, runs
from dlkit.train import checkpoints

KILLS = 20
STEPS = 200
SETTINGS = [
    "resnet20", "--data", "cifar10", "--limit", "480", "--batch-size", "32", "--steps", str(STEPS), "--seed", "1",
    "--optimizer", "sgd", "--lr", "0.01", "--ema", "0.9", "--set", 'data.augment=["crop_flip"]',
    "--set", "train.checkpoint_every=3", "--set", "train.evaluate_every=1.4", "--precision", "float64",
]  # fmt: skip


def complete(*arguments):
    process = start(*arguments)
    assert process.wait() == 0
    assert ended(process, []) == (0, [])


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    data.load("cifar10")  # without it nothing is shown: then the error says what to do
    fresh = [*SETTINGS, "--runs-dir", str(tmp_path)]
    complete(*fresh, "--name", "undisturbed")
    undisturbed = runs.open_run(tmp_path / "undisturbed")
    training = checkpoints.read_state(undisturbed.path / "checkpoints" / f"step-{STEPS}")["seconds"]

    draw = random.Random(0)
    run = tmp_path / "killed"
    for number in range(KILLS):
        begun = (run / "run.json").exists()
        last = max(checkpoints.steps(run / "checkpoints"), default=0) if begun else 0
        process = start("--resume", str(run)) if begun else start(*fresh, "--name", "killed")
        if number % 4 == 3:  # while it starts
            time.sleep(draw.uniform(0, 20))
            workers = []
        else:
            workers = wait_for_step(process, run, last)
            time.sleep(draw.uniform(0, training / 15))
        victim = draw.choice([*workers, None])
        print(f"kill {number}: after step {last}, {'one' if victim else 'all'}", flush=True)
        if victim:
            os.kill(victim, signal.SIGKILL)
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code, lines = ended(process, workers if victim else [])
        if victim:
            assert code == 1
            (error,) = [line for line in lines if line.startswith("error: ")]
            assert "was killed by SIGKILL" in error
    complete("--resume", str(run))

    for group in ("weights", "optimizer", "ema"):
        theirs, ours = (
            checkpoints.read(each / "checkpoints" / f"step-{STEPS}", group) for each in (undisturbed.path, run)
        )
        assert ours.keys() == theirs.keys()
        worst = max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs)
        print(f"{group}: at most {worst:.1e} apart", flush=True)
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, atol=1e-5, rtol=1e-5, err_msg=name)
    assert runs.open_run(run).info["attempt"] > KILLS / 2
