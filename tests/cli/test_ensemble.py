"""`dlkit ensemble`: members are ordinary runs, made once; together they are what NumPy makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlkit as package
from dlkit import recipe, runs
from dlkit.data.digits import digits
from dlkit.data.images import standardize
from dlkit.tasks.classifier import Classifier
from dlkit.train import checkpoints

SMALL = ["--set", "model.hidden=[8]", "--steps", "6", "--limit", "60", "--batch-size", "20", "--lr", "0.02"]
MLP = ["mlp", "--members", "2", *SMALL]


def weights_of(path):
    run = runs.open_run(path)
    return checkpoints.read(runs.find_checkpoint(run, "last"), "weights")


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def probabilities(path, count=60):
    """What a run says of the first test images, from its weights and statistics."""
    info = runs.open_run(path).info["data"]
    images = digits().splits["test"].fetch(np.arange(count))
    return softmax(package.load(str(path))(standardize(images, info["mean"], info["std"])).numpy().astype(np.float64))


def test_members_are_runs_like_any_others_and_are_put_together(dlkit):
    result = dlkit("ensemble", *MLP, "--by", "bootstrap", "--seed", "4", "--png", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    paths = [f"runs/mlp_digits_bootstrap-{number}" for number in (1, 2)]
    assert [member["name"] for member in found["members"]] == paths
    labels = digits().splits["test"].labels[:60]
    each = [probabilities(path) for path in paths]
    mean = np.mean(each, axis=0)
    for member, said in zip(found["members"], each, strict=True):
        assert member["accuracy"] == pytest.approx((said.argmax(1) == labels).mean())
        assert member["loss"] == pytest.approx(-np.log(said[np.arange(60), labels]).mean(), rel=1e-5)
        assert member["parameters"] == (32 * 32 + 1) * 8 + (8 + 1) * 10
        assert member["training_seconds"] > 0
        assert member["answer_seconds"] > 0
    assert found["averaged"]["accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    assert found["averaged"]["loss"] == pytest.approx(-np.log(mean[np.arange(60), labels]).mean(), rel=1e-5)
    named = np.eye(10)[[said.argmax(1) for said in each]].sum(axis=0)
    chosen = np.where(named > 0, mean, -1).argmax(1)  # of two members, one vote each or two for one class
    assert found["vote"]["accuracy"] == pytest.approx((chosen == labels).mean())
    assert found["vote"]["ties"] == (each[0].argmax(1) != each[1].argmax(1)).sum()
    for key in ("parameters", "multiply_adds", "training_seconds", "answer_seconds"):
        assert found["cost"][key] == pytest.approx(sum(member[key] for member in found["members"]))
    with Image.open(found["picture"]) as picture:
        assert picture.size[0] > 1000
    stored = [recipe.load(Path(path) / "recipe.toml").train for path in paths]
    assert [(train.seed, train.resample) for train in stored] == [(4, "bootstrap"), (5, "bootstrap")]

    # evaluate says the same of the same runs; and the second member is what `train` alone makes of its recipe
    again = json.loads(dlkit("evaluate", "--ensemble", *paths, "--limit", "60", "--json").out)
    for key in ("averaged", "vote", "disagreement", "against_best", "by_size"):
        assert again[key] == found[key]
    assert (
        dlkit("train", "mlp", *SMALL, "--seed", "5", "--set", "train.resample=bootstrap", "--name", "alone").code == 0
    )
    alone = weights_of("runs/alone")
    for name, array in weights_of(paths[1]).items():
        np.testing.assert_allclose(array, alone[name], atol=1e-5)

    # predict averages
    Image.fromarray(digits().splits["test"].fetch(np.array([3]))[0, :, :, 0].astype(np.uint8)).save("three.png")
    said = dlkit("predict", "three.png", "--model", paths[0], "--model", paths[1], "--top", "10", "--json")
    told = {guess["class"]: guess["probability"] for guess in json.loads(said.out)["classes"]}
    singles = [{g["class"]: g["probability"] for g in Classifier(path)("three.png", top=10)} for path in paths]
    for name, probability in told.items():
        assert probability == pytest.approx((singles[0][name] + singles[1][name]) / 2, rel=1e-5)


def test_the_same_command_again_trains_only_what_is_missing(dlkit):
    """One member was stopped in the middle by its time, another was never begun."""
    first = dlkit("train", "mlp", *SMALL, "--max-time", "0.0001s", "--name", "e-1")
    assert "time is up" in first.err
    assert "result" not in runs.open_run("runs/e-1").info
    result = dlkit("ensemble", *MLP, "--name", "e")
    assert result.code == 0, result.err
    assert "attempt 2" in result.err
    assert "averaged probabilities" in result.out
    logs = [Path(f"runs/e-{number}/metrics.jsonl").read_text() for number in (1, 2)]
    made = [Path(f"runs/e-{number}/run.json").stat().st_mtime_ns for number in (1, 2)]
    result = dlkit("ensemble", *MLP, "--name", "e")
    assert result.err.count("is trained") == 2
    assert logs == [Path(f"runs/e-{number}/metrics.jsonl").read_text() for number in (1, 2)]
    assert made == [Path(f"runs/e-{number}/run.json").stat().st_mtime_ns for number in (1, 2)]
    assert dlkit("ensemble", *MLP, "--name", "e", "--set", "train.momentum=0.5").code == 2, "adamw has none"
    other = dlkit("ensemble", *MLP, "--name", "e", "--set", "train.beta1=0.5")
    assert other.code == 2
    assert "runs/e-1 exists and is of another training: train.beta1 is 0.9 there, and 0.5 here" in other.err
    assert "lenet" not in dlkit("ensemble", "lenet", "--members", "2", "--name", "e").out


def test_parts_are_disjoint_and_heads_are_one_run(dlkit):
    assert dlkit("ensemble", *MLP, "--by", "split", "--json").code == 0
    trained = [recipe.load(Path(f"runs/mlp_digits_split-{number}/recipe.toml")).train for number in (1, 2)]
    assert [(train.resample, train.part, train.parts, train.seed) for train in trained] == [
        ("part", 0, 2, 0), ("part", 1, 2, 1)
    ]  # fmt: skip
    result = dlkit("ensemble", *MLP, "--by", "heads", "--branch", "dense1", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [member["name"] for member in found["members"]] == ["head 1", "head 2"]
    assert found["cost"]["parameters"] == runs.open_run("runs/mlp_digits_heads-1").info["parameters"]
    whole = json.loads(dlkit("evaluate", "runs/mlp_digits_heads-1", "--limit", "60", "--json").out)
    assert whole["accuracy"] == found["averaged"]["accuracy"]
    assert whole["loss"] == pytest.approx(found["averaged"]["loss"], rel=1e-5)
    assert whole["loss"] <= found["mean"]["loss"], "Jensen: -log of a mean is at most the mean of -log"


def test_numbers_are_averaged(dlkit):
    adding = ["--set", "data.length=4", "--set", "model.width=8", "--limit", "60", "--steps", "3"]
    result = dlkit("ensemble", "rnn", "--members", "2", *adding)
    assert result.code == 0, result.err
    assert "averaged numbers" in result.out
    assert "majority vote" not in result.out
    assert "A vote is for classes" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt"], "ensembles of language modelling are not evaluated"),
        (["captioner"], "ensembles of captioning are not evaluated"),
        (["lstm", "--by", "heads"], "--by heads divides a net that classifies images"),
        (["heads", "--by", "heads"], "a net with heads already"),
        (["mlp", "--members", "1"], "--members"),
        (["mlp", "--branch", "dense1"], "--branch is for --by heads"),
        (["mlp", "--by", "split", "--set", "train.parts=3", "--set", "train.resample=part"], "--by split settles"),
        (["mlp", "--name", "a/b"], "not a name for a run"),
        (["mlp", "x.png"], "what to do with x.png?"),
        (["mlp", "--by", "boosting"], "must be one of seeds, bootstrap, split, heads"),
        (["mpl"], "did you mean `mlp`?"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(dlkit, arguments, message):
    result = dlkit("ensemble", *arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 2
    assert not Path("runs").exists()


def test_a_cluster_is_refused(dlkit, monkeypatch):
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    result = dlkit("ensemble", "mlp")
    assert (result.code, "members are trained one by one" in result.err) == (2, True)
