"""Commands of one process under TF_CONFIG, as in a pod of a cluster: they wait for nobody, or refuse."""

import json

import pytest

from dlkit import runtime
from dlkit.cli import main
from dlkit.experiments import training


@pytest.fixture(autouse=True)
def _member(monkeypatch):
    """This process is one of two, and the other one does not exist."""
    cluster = {"cluster": {"worker": ["127.0.0.1:9", "127.0.0.1:19"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    monkeypatch.setattr(runtime, "_cluster", lambda *_, **__: pytest.fail("this would wait for the other one"))


def test_a_model_is_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "mlp", "activations", "--data", "digits", "--limit", "8", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_an_experiment_trains_by_itself():
    made = training.prepared("mlp", "digits", {"model.hidden": [4], "data.size": 8, "train.limit": 8}, seed=0)
    assert made.devices.processes == 1


@pytest.mark.parametrize("operands", [["mlp", "train.lr=log:1e-4..1e-1"], ["--resume", "runs/x"]])
def test_a_search_does_not_begin(tmp_path, monkeypatch, capsys, operands):
    monkeypatch.chdir(tmp_path)
    assert main(["search", *operands]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: TF_CONFIG names several processes, and each trial is trained by one"
    assert hint.startswith("hint: unset it; ")
    assert list(tmp_path.iterdir()) == []
