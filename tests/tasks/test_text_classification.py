"""Text classification from data to `predict` and `evaluate`, through the ordinary trainer."""

import io
import json
import sys
from itertools import islice

import numpy as np
import pytest

from dlkit import cli, recipe, runs
from dlkit.data.buckets import of_like_length
from dlkit.tasks.task import open_task
from dlkit.tasks.text_classifier import TextClassifier
from dlkit.train import loop, start

SMALL = [
    *("--set", "data.train=1200", "--set", "data.validation=100", "--set", "data.test=200", "--set", "data.length=8"),
    *("--set", "model.width=32", "--set", "model.embedding_width=16", "--set", "train.batch_size=32"),
    *("--set", "train.lr=0.01", "--epochs", "4", "-q"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    arguments = ["train", "text_gru", "--data", "synthetic:order", "--set", "model.pool=last"]
    assert cli.main([*arguments, *SMALL, "--runs-dir", str(folder), "--name", "gru"]) == 0
    return runs.open_run(folder / "gru")


@pytest.fixture(scope="module")
def forward(folder):
    """A worse one on the same data."""
    arguments = ["train", "text_rnn", "--data", "synthetic:order", *SMALL, "--epochs", "1", "--set", "train.lr=0.0001"]
    assert cli.main([*arguments, "--runs-dir", str(folder), "--name", "rnn"]) == 0
    return runs.open_run(folder / "rnn")


def output(capsys, *arguments, code=0):
    capsys.readouterr()
    assert cli.main([*map(str, arguments)]) == code
    return capsys.readouterr().out


def standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


# --------------------------------------------------------------------------------------------------------- evaluation


def test_it_learns_what_a_bag_of_words_cannot_know(run):
    assert run.info["result"]["split"] == "test"
    assert run.info["result"]["metrics"]["accuracy"] > 0.97


def test_evaluate_says_the_same_whatever_the_batch_and_has_all_tables(run, capsys):
    results = [
        json.loads(output(capsys, "evaluate", run.path, "--json", "-q", "--batch-size", size)) for size in (7, 256)
    ]
    for result in results:
        assert result["accuracy"] == run.info["result"]["metrics"]["accuracy"]
        assert result["loss"] == pytest.approx(results[0]["loss"], rel=1e-4)
        assert [record["class"] for record in result["classes"]] == ["x first", "y first"]
    assert results[0]["confusion"] == results[1]["confusion"]
    assert "macro F1" in output(capsys, "evaluate", run.path, "--split", "validation", "--confusion", "-q")


def test_two_runs_are_compared_text_by_text(run, forward, capsys):
    paired = json.loads(output(capsys, "evaluate", run.path, forward.path, "--json", "-q"))["paired"]
    texts = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"]).data.texts["test"]
    answers = [
        [
            classes[0]["class"] == ("x first", "y first")[label]
            for classes, label in zip(found, texts.labels, strict=True)
        ]
        for found in (TextClassifier(each.path)(list(texts.texts)) for each in (run, forward))
    ]
    first, second = map(np.array, answers)
    assert paired["both_right"] == (first & second).sum()
    assert paired["only_first"] == (first & ~second).sum()
    assert paired["only_second"] == (~first & second).sum()
    assert paired["better"] == 0


def test_another_table_is_tested_on_as_a_whole(run, capsys, tmp_path):
    table = tmp_path / "mine.tsv"
    table.write_text("y first\ta y b x\nx first\tx y\nx first\ty x\ny first\ty q x\n")
    result = json.loads(output(capsys, "evaluate", run.path, "--data", table, "--json", "-q"))
    assert (result["examples"], result["split"], result["accuracy"]) == (4, "test", 0.75)
    table.write_text("z first\ta y b x\n")
    assert output(capsys, "evaluate", run.path, "--data", table, code=2) == ""


def test_options_about_other_tasks_are_refused(run, capsys):
    for option in (["--beam", "2"], ["--mirror"], ["--lowercase"], ["--source", "1", "--data", "x.tsv"]):
        output(capsys, "evaluate", run.path, *option, code=2)


# ------------------------------------------------------------------------------------------------------------- predict


def test_predict_answers_each_line_an_empty_one_too(run, capsys, monkeypatch):
    lines = b"a x b y\n\ny x\n\xff\nx y"
    standard_input(monkeypatch, lines)
    rows = output(capsys, "predict", "--model", run.path, "-q", code=3).split("\n")
    assert [row.partition("\t")[0] for row in rows] == ["a x b y", "", "y x", "", "x y", ""]
    assert [row.partition("\t")[2][:7] for row in rows] == ["x first", rows[1][1:8], "y first", "", "x first", ""]
    assert rows[1].endswith("%")
    standard_input(monkeypatch, lines)
    text = output(capsys, "predict", "--model", run.path, "-q", "--json", "--top", "2", "--batch-size", "1", code=3)
    found = [json.loads(line) for line in text.splitlines()]
    assert [record["line"] for record in found] == [1, 2, 3, 4, 5]
    assert "error" in found[3]
    assert sum(guess["probability"] for guess in found[1]["classes"]) == pytest.approx(1)


def test_an_operand_is_a_file_of_lines_or_else_a_text(run, capsys, tmp_path):
    (tmp_path / "lines.txt").write_text("y x\nx y\n")
    rows = output(capsys, "predict", "x b y", tmp_path / "lines.txt", "--model", run.path, "-q").splitlines()
    assert [row.partition("\t")[0] for row in rows] == ["x b y", "y x", "x y"]
    assert [row.partition("\t")[2][:7] for row in rows] == ["x first", "y first", "x first"]
    output(capsys, "predict", tmp_path, "--model", run.path, code=3)
    output(capsys, "predict", "nothing.txt", "--model", run.path, code=3)


def test_tokens_beyond_those_that_are_read_are_told(run, capsys, tmp_path):
    """The run reads eight."""
    capsys.readouterr()
    assert cli.main(["predict", "--model", str(run.path), "x " * 8, "", "x " * 9, "-q"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == ["warning: line 3 has 9 tokens, of which only the first 8 are read"]
    assert len(told.out.splitlines()) == 3
    table = tmp_path / "long.tsv"
    table.write_text("y first\ta a a a a y a x a\nx first\tx y\n")
    remarks = json.loads(output(capsys, "evaluate", run.path, "--data", table, "--json", "-q"))["remarks"]
    assert remarks == ["1 of 2 test texts have more than 8 tokens: the rest of them is not read"]


def test_what_is_said_of_a_text_does_not_depend_on_the_others(run):
    classifier = TextClassifier(run.path)
    texts = ["x y", "", "a b c d x e y f", "y", "q y x", "x " * 40]
    together = classifier(texts, top=2, batch_size=4)
    for text, found in zip(texts, together, strict=True):
        alone = classifier(text, top=2)
        assert [guess["class"] for guess in alone] == [guess["class"] for guess in found]
        assert alone[0]["probability"] == pytest.approx(found[0]["probability"], abs=1e-5)


# ------------------------------------------------------------------------------------------------------------ training


def test_batches_of_like_length_hold_every_text_once_and_depend_on_the_epoch():
    lengths = np.random.default_rng(0).integers(0, 50, 1003)
    first, again, other = (of_like_length(lengths, 10, seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert sorted(np.concatenate(first).tolist()) == list(range(1003))
    assert len(first) == len(other) == 101
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert any((one != two).any() for one, two in zip(first, other, strict=False) if len(one) == len(two))
    spread = np.mean([np.ptp(lengths[batch]) for batch in first])
    assert spread < 5, "sorted among 320 texts, 10 are a 32nd of all lengths"


FLAGS = {
    "model.width": 8, "model.embedding_width": 6, "model.dropout": 0.2, "model.word_dropout": 0.2, "data.train": 99,
    "data.validation": 10, "data.test": 10, "train.batch_size": 20, "train.steps": 5, "train.optimizer": "sgd",
    "train.lr": 0.1, "train.precision": "float64", "train.seed": 3,
}  # fmt: skip


def trained(model, data, devices="cpu", **train):
    flags = FLAGS | {f"train.{key}": value for key, value in train.items()}
    if model == "text_cnn":
        flags = {"model.maps": 5, **{key: value for key, value in flags.items() if key != "model.embedding_width"}}
    prepared = start.prepare(recipe.resolve(model, data, flags=flags), devices=devices)
    update = start.training_step(prepared)
    batches = loop.batches(prepared.task, prepared.recipe.train, loop.Progress(), prepared.devices)
    weights = [
        float(update(drawn.batch, step=step, lr=0.1, size=drawn.size)["weight"])
        for step, drawn in enumerate(islice(batches, 5))
    ]
    return weights, update.arrays()["weights"]


def test_naive_bayes_counts_the_texts_that_the_run_is_trained_on_and_no_others(tmp_path):
    """Each of four texts has a word of its own; the members of an ensemble by parts see two of them each."""
    table = tmp_path / "x.tsv"
    table.write_text("p\ta\nq\tb b\np\tc c c\nq\td d d d\n")
    counted = []
    for part in range(2):
        flags = {
            "data.validation": 0, "data.test": 0, "data.min_count": 1, "model.start": "naive_bayes", "model.width": 2,
            "model.pairs": 0, "train.resample": "part", "train.part": part, "train.parts": 2,
        }  # fmt: skip
        prepared = start.prepare(recipe.resolve("text_bag", str(table), flags=flags), devices="cpu")
        prepared.task.adapt(prepared.model)
        vectors = prepared.model.embedding.embeddings.numpy()
        words = {word: prepared.task.tokenizer.id_of(word) for word in "abcd"}
        counted.append({word for word, row in words.items() if vectors[row].any()})
    assert [len(words) for words in counted] == [2, 2]
    assert counted[0] | counted[1] == set("abcd")


@pytest.mark.parametrize(
    ("model", "data", "devices"),
    [("text_cnn", "synthetic:order", "cpu:3"), ("tagger_rnn", "synthetic:next_marker", "cpu:2")],
)
def test_devices_and_micro_batches_change_nothing(model, data, devices):
    counted, weights = trained(model, data)
    again, same = trained(model, data, devices, accumulate=2 if model == "text_cnn" else 1)
    assert again == counted
    for name, weight in weights.items():
        np.testing.assert_allclose(same[name], weight, rtol=1e-9, atol=1e-12, err_msg=name)


def test_batches_by_tokens(folder):
    arguments = ["train", "text_cnn", "--data", "synthetic:order", "--set", "data.train=300", "--set", "model.maps=4"]
    assert (
        cli.main([*arguments, "--set", "train.batch_tokens=100", "--steps", "3", "--runs-dir", str(folder), "-q"]) == 0
    )


def test_learned_positions_that_are_too_few(folder, capsys):
    arguments = ["train", "text_transformer", "--set", "model.positions=learned", "--set", "model.max_length=5"]
    assert cli.main([*arguments, "--runs-dir", str(folder), "-q"]) == 2
    assert "up to 12 tokens of a text are read, and the model learns positions for 5" in capsys.readouterr().err
