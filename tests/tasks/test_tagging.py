"""Tagging from data to `predict` and `evaluate`: what needs the future, and who can know it."""

import json

import numpy as np
import pytest

from dlkit import cli, runs
from dlkit.tasks.task import open_task
from dlkit.tasks.text_classifier import Tagger

SMALL = [
    *("--set", "data.train=800", "--set", "data.validation=100", "--set", "data.test=150", "--set", "data.length=8"),
    *("--set", "model.width=32", "--set", "train.batch_size=32", "--set", "train.lr=0.01", "-q"),
]  # fmt: skip


def trained(folder, name, model, *options, epochs=4):
    """A run of a small tagger; the options are values of the recipe."""
    sets = [part for option in options for part in ("--set", option)]
    arguments = ["train", model, *SMALL, *sets, "--epochs", str(epochs), "--name", name, "--runs-dir", str(folder)]
    assert cli.main(arguments) == 0
    return runs.open_run(folder / name)


def of_test(run):
    """The test sentences, and the name of the tag of each of their words."""
    texts = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"]).data.texts["test"]
    names = run.info["data"]["classes"]
    return texts.words, [[names[at] for at in tags] for tags in texts.tags]


def hits(run, words, tags):
    """Of each word of each sentence whether the run says its tag."""
    found = Tagger(run.path)([" ".join(each) for each in words])
    return [
        [tag == own for (_, tag), own in zip(tagged, right, strict=True)]
        for tagged, right in zip(found, tags, strict=True)
    ]


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory):
    """A run that reads both ways, and one that reads forward."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        trained(folder, name, "tagger_gru", "model.embedding_width=16", f"model.bidirectional={both}")
        for name, both in (("both", "true"), ("forward", "false"))
    ]


def test_what_needs_the_future_only_a_bidirectional_net_knows(both_ways):
    both, forward = (run.info["result"]["metrics"] for run in both_ways)
    assert both["accuracy"] > 0.97
    assert both["exact"] > 0.9
    assert forward["accuracy"] < 0.85


def test_convolutions_know_the_future_within_their_window(tmp_path):
    """Two words ahead, where the next marker is as good as always found; beyond x and y are as likely, and guessed."""
    options = ["model.embedding_width=16", "model.layers=2", "model.dilated=false"]
    run = trained(tmp_path, "cnn", "tagger_cnn", *options)
    words, tags = of_test(run)
    seen, beyond = [], []
    for sentence, right in zip(words, hits(run, words, tags), strict=True):
        for at, hit in enumerate(right):
            (seen if {"x", "y"} & set(sentence[at : at + 3]) else beyond).append(hit)
    assert len(beyond) > 50
    assert np.mean(seen) > 0.97
    assert 0.3 < np.mean(beyond) < 0.7


def test_attention_knows_the_future(tmp_path):
    options = ["model.heads=2", "model.ffn=32", "model.dropout=0.0"]
    run = trained(tmp_path, "attention", "tagger_transformer", *options, epochs=12)
    assert run.info["result"]["metrics"]["accuracy"] > 0.95


def test_evaluate_counts_words_and_sentences(both_ways, capsys):
    run = both_ways[1]
    assert cli.main(["evaluate", str(run.path), "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    right = hits(run, *of_test(run))
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


def test_words_beyond_those_that_are_read_are_told(both_ways, capsys, tmp_path):
    """The runs read eight words."""
    names = [str(run.path) for run in both_ways]
    long = "a b x a b y a b x c"
    assert cli.main(["predict", "--model", names[0], "a b x a b y a b", long, "y", "-q"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == ["warning: line 2 has 10 words, of which only the first 8 are read and have a tag"]
    assert [len(row.split()) for row in told.out.splitlines()] == [8, 8, 1]
    assert [cut for _, cut in Tagger(names).answers([long, "", "y"])] == [(10, 8), None, None]
    path = tmp_path / "long.conll"
    path.write_text("\n".join(f"{word}\tnext x" for word in long.split()) + "\n\nx\tnext x\nzz\tnext y\n")
    assert cli.main(["evaluate", names[0], "--data", str(path)]) == 0
    told = capsys.readouterr().err
    assert "1 of 2 test sentences have more than 8 words: the rest is neither read nor counted" in told
    assert "unknown: 10.00% of test words" in told


def test_a_file_of_two_columns(both_ways, capsys, tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("a\tnext x\nx\tnext x\n\ny\tnext x\n")
    assert cli.main(["evaluate", str(both_ways[0].path), "--data", str(path), "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["examples"], result["exact"]) == (2, 0.5)
    assert result["accuracy"] == pytest.approx(2 / 3)


def test_the_tags_of_a_text_are_those_that_the_model_gives(both_ways):
    """For what explains an answer: a text brings none with it."""
    run = both_ways[0]
    task = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"])
    words, tags = (each[0] for each in of_test(run))
    batch = task.batch_of_text(runs.load_model(str(run.path)), " ".join(words))
    names = run.info["data"]["classes"]
    assert [names[at] for at in batch["labels"][0]] == [tag for _, tag in Tagger(run.path)([" ".join(words)])[0]]
    assert len(set(tags)) > 1
    assert [names[at] for at in batch["labels"][0]] == tags  # of a sentence that it has learned to tag
