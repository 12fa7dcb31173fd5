"""Processes on this machine, as several machines would be: the same weights, one run folder, one signal for all."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from dlkit import runs
from dlkit.cli import main
from dlkit.train import checkpoints

SETTINGS = [
    "--batch-size", "20", "--limit", "50", "--seed", "3", "--ema", "0.9", "--epochs", "4",
    "--set", "model.hidden=[8]", "--set", "model.norm=batch", "--set", "model.dropout=0.3", "--set", "data.size=8",
    "--set", "train.keep=20", "--precision", "float64",  # where the order of the sums does not show
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 60, 12 and 50 images of two classes, and one beside them, which training warns of."""
    root, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 6), ("test", 25)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    Image.fromarray(pixels).save(root / "train" / "stray.png")
    return root


def start(arguments, count=2):
    """Starts so many workers of one cluster."""
    ports = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    processes = []
    for index in range(count):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "dlkit", "train", *arguments],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def ended(processes):
    results = []
    for process in processes:
        try:
            _, error = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            _, error = process.communicate()
        results.append((process.returncode, error))
    return results


@pytest.fixture(scope="module")
def alone(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("alone")
    settings = ["--data", str(photos), *SETTINGS]
    assert main(["train", "mlp", "--runs-dir", str(folder), "--name", "x", *settings, "-q"]) == 0
    return runs.open_run(folder / "x")


def assert_same(run, alone):
    assert run.checkpoints()[-1] == alone.checkpoints()[-1] == "step-12"
    for group in ("weights", "optimizer", "ema"):
        ours, theirs = (checkpoints.read(each.path / "checkpoints" / "step-12", group) for each in (run, alone))
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_train_stop_and_resume_as_one(alone, photos, tmp_path, count):
    """Of a batch of 20, and of the last one of 10, three processes have unequal parts."""
    settings = ["--data", str(photos), *SETTINGS]
    first = ended(start(["mlp", "--runs-dir", str(tmp_path), "--name", "x", *settings], count))
    assert [code for code, _ in first] == [0] * count, first
    assert "test accuracy" in first[0][1]
    assert first[0][1].count("left out 1 image outside of a class folder") == 1
    assert [error for _, error in first[1:]] == [""] * (count - 1), "only the chief speaks and warns"
    assert os.listdir(tmp_path) == ["x"], "only the chief writes"
    run = runs.open_run(tmp_path / "x")
    assert_same(run, alone)
    assert run.info["data"] == alone.info["data"], "mean and deviation of images of which each has decoded a part"
    # The weights differ in their last digits: an image on the edge between two classes may fall on either side.
    accuracies = [each.info["result"]["metrics"]["accuracy"] for each in (run, alone)]
    assert abs(accuracies[0] - accuracies[1]) < 1.5 / 50

    # A copy whose last checkpoint is damaged, which is warned of, goes on with all of them from the one before it.
    shutil.copytree(run.path, tmp_path / "cut")
    next((tmp_path / "cut" / "checkpoints" / "step-12").glob("weights*")).write_bytes(b"")
    again = ended(start(["--resume", str(tmp_path / "cut")], count))
    assert [code for code, _ in again] == [0] * count, again
    assert again[0][1].count("is damaged") == 1
    assert [error for _, error in again[1:]] == [""] * (count - 1)
    assert_same(runs.open_run(tmp_path / "cut"), alone)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_and_saves_all(tmp_path):
    settings = [word if word != "4" else "4000" for word in SETTINGS]
    processes = start(["mlp", "--runs-dir", str(tmp_path), "--name", "x", *settings])
    deadline = time.monotonic() + 60
    while not (tmp_path / "x" / "checkpoints" / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    processes[1].send_signal(signal.SIGINT)
    results = ended(processes)
    assert [code for code, _ in results] == [130, 130], results
    assert "interrupted after step" in results[0][1]
    run = runs.open_run(tmp_path / "x")
    assert checkpoints.damage(run.path / "checkpoints" / str(run.pointer("last"))) is None


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other(tmp_path):
    settings = [word if word != "4" else "4000" for word in SETTINGS]
    processes = start(["mlp", "--runs-dir", str(tmp_path), "--name", "x", *settings, "-q"])
    deadline = time.monotonic() + 60
    while not (tmp_path / "x" / "checkpoints" / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    processes[1].kill()
    killed = time.monotonic()
    assert processes[0].wait(timeout=60) == 1
    print(f"ended after {time.monotonic() - killed:.2f} s")
    error, hint = ended(processes)[0][1].splitlines()
    assert re.fullmatch(r"error: worker 1 \(127.0.0.1:\d+\) is gone: its connection broke", error)
    assert hint == f"hint: `dlkit train --resume {tmp_path / 'x'}` goes on from its last checkpoint"
