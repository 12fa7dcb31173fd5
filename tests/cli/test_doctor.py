"""`dlkit doctor` tells what is wrong, in the table, as JSON and by its exit code."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from dlkit import runtime
from dlkit.cli import doctor
from dlkit.data import digits
from dlkit.errors import UsageError


@pytest.fixture
def quick(monkeypatch):
    """The check of training is tested on its own."""
    monkeypatch.setattr(doctor, "training", lambda: doctor.Finding("training", "skipped"))


def test_a_machine_that_runs_the_tests_is_well(dlkit, quick):
    result = dlkit("doctor")
    assert (result.code, result.err) == (0, "")
    header, *lines = result.out.splitlines()
    assert header.split() == ["check", "found"]
    assert [line.split()[:2] for line in lines] == [
        ["ok", check]
        for check in ["versions", "devices", "threads", "bfloat16", "memory", "disk", "data", "prepared", "training"]
    ]
    assert "tensorflow 2." in lines[0]
    assert "1,797 images" in lines[6]


def test_json_says_the_same(dlkit, quick):
    found = json.loads(dlkit("doctor", "--json").out)
    assert found["ok"] is True
    assert len(found["checks"]) == 9


def test_the_memory_that_a_container_leaves_is_told(monkeypatch):
    monkeypatch.setattr(runtime, "memory", lambda: 7 * 10**6)
    assert doctor.memory().found.endswith("; this process may use 0.0 GB")
    monkeypatch.setattr(runtime, "memory", lambda: None)
    assert "may use" not in doctor.memory().found


def test_too_little_disk_is_wrong(dlkit, quick, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 5, 5))
    result = dlkit("doctor")
    assert result.code == 1
    assert any(line.split()[:2] == ["wrong", "disk"] for line in result.out.splitlines())
    assert result.err == "error: wrong here: disk\nhint: free some space\n"
    assert json.loads(dlkit("doctor", "--json").out)["ok"] is False


def test_a_check_that_breaks_down_is_wrong_and_the_others_go_on(dlkit, quick, monkeypatch):
    def broken():
        raise ValueError("no zip file\x1b[31m")

    def mistaken():
        raise UsageError("KERAS_BACKEND is jax", "unset it")

    monkeypatch.setattr("dlkit.data.digits.read", broken)
    monkeypatch.setattr(doctor, "versions", mistaken)
    result = dlkit("doctor")
    assert result.code == 1
    assert result.err.startswith("error: wrong here: versions, data\nhint: unset it; ")
    assert r"ValueError: no zip file\x1b[31m" in result.out
    assert sum(line.startswith("ok ") for line in result.out.splitlines()) == 7


def test_another_backend_is_wrong(dlkit, quick, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert dlkit("doctor").code == 1


def test_training_learns_in_a_moment(monkeypatch):
    monkeypatch.setattr(doctor, "TRAINING_SECONDS", 0.5)
    assert not doctor.training().wrong


def test_training_that_does_not_learn_is_wrong(monkeypatch):
    honest = digits.digits()
    train = honest.splits["train"]
    noise = replace(train, labels=np.random.default_rng(0).permutation(train.labels))
    monkeypatch.setattr(digits, "digits", lambda: replace(honest, splits={"train": noise}))
    monkeypatch.setattr(doctor, "TRAINING_SECONDS", 0.05)
    assert doctor.training().wrong
