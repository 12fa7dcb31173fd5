"""Tagging from data to `predict` and `evaluate`: what needs the future, and who can know it."""

import json

import numpy as np
import pytest

from dlkit import cli, runs
from dlkit.tasks.task import open_task
from dlkit.tasks.text_classifier import Tagger

SMALL = [
    *("--set", "data.train=800", "--set", "data.validation=100", "--set", "data.test=150", "--set", "data.length=8"),
    *("--set", "model.width=32", "--set", "model.embedding_width=16", "--set", "train.batch_size=32"),
    *("--set", "train.lr=0.01", "--epochs", "4", "-q"),
]  # fmt: skip


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory):
    """A run that reads both ways, and one that reads forward."""
    folder, found = tmp_path_factory.mktemp("runs"), []
    for name, both in (("both", "true"), ("forward", "false")):
        arguments = ["train", "tagger_gru", "--set", f"model.bidirectional={both}", "--name", name, *SMALL]
        assert cli.main([*arguments, "--runs-dir", str(folder)]) == 0
        found.append(runs.open_run(folder / name))
    return found


def test_what_needs_the_future_only_a_bidirectional_net_knows(both_ways):
    both, forward = (run.info["result"]["metrics"] for run in both_ways)
    assert both["accuracy"] > 0.97
    assert both["exact"] > 0.9
    assert forward["accuracy"] < 0.85


def test_evaluate_counts_words_and_sentences(both_ways, capsys):
    run = both_ways[1]
    assert cli.main(["evaluate", str(run.path), "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    texts = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"]).data.texts["test"]
    said = Tagger(run.path)([" ".join(words) for words in texts.words])
    names = run.info["data"]["classes"]
    right = [
        [tag == names[at] for (_, tag), at in zip(tagged, tags, strict=True)]
        for tagged, tags in zip(said, texts.tags, strict=True)
    ]
    assert result["accuracy"] == pytest.approx(np.mean([hit for row in right for hit in row]), abs=1e-6)
    assert result["exact"] == pytest.approx(np.mean([all(row) for row in right]), abs=1e-6)
    assert sum(record["support"] for record in result["classes"]) == sum(map(len, right))


def test_two_taggers_are_compared_sentence_by_sentence(both_ways, capsys):
    assert cli.main(["evaluate", *(str(run.path) for run in both_ways), "--json", "-q"]) == 0
    paired = json.loads(capsys.readouterr().out)["paired"]
    assert sum(paired[key] for key in ("both_right", "only_first", "only_second", "both_wrong")) == 150
    assert paired["better"] == 0


def test_predict_tags_each_word(both_ways, capsys):
    assert cli.main(["predict", "--model", str(both_ways[0].path), "a b x c y", "", "y", "-q"]) == 0
    rows = capsys.readouterr().out.split("\n")
    assert rows == ["a/next_x b/next_x x/next_x c/next_y y/next_y", "", "y/next_y", ""]
    assert cli.main(["predict", "--model", str(both_ways[0].path), "c x", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["words"] == [{"word": "c", "tag": "next x"}, {"word": "x", "tag": "next x"}]
    assert cli.main(["predict", "--model", str(both_ways[0].path), "c x", "--top", "2", "-q"]) == 2


def test_a_file_of_two_columns(both_ways, capsys, tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("a\tnext x\nx\tnext x\n\ny\tnext x\n")
    assert cli.main(["evaluate", str(both_ways[0].path), "--data", str(path), "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["examples"], result["exact"]) == (2, 0.5)
    assert result["accuracy"] == pytest.approx(2 / 3)
