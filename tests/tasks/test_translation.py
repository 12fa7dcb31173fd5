"""`synthetic:reverse` from recipe to decoded text, through the ordinary trainer."""

import io
import json
import sys

import numpy as np
import pytest

from dlkit import runs
from dlkit.cli import main
from dlkit.data.tokenizer import END, START
from dlkit.decode.greedy import greedy
from dlkit.tasks.task import open_task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "seq2seq", "--runs-dir", str(folder), "--name", "reverse", "-q"]) == 0
    return runs.open_run(folder / "reverse")


def translated(capsys, run, *arguments):
    assert main(["translate", "--model", str(run.path), *arguments]) == 0
    return capsys.readouterr().out


def test_more_than_99_percent_of_the_test_sequences_are_exact(run):
    result = run.info["result"]
    assert result["split"] == "test"
    assert result["metrics"]["exact"] > 0.99


def test_evaluate_says_the_same(run, capsys):
    assert main(["evaluate", str(run.path), "--json", "-q"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["examples"] == 1000
    assert evaluated["exact"] == run.info["result"]["metrics"]["exact"]
    assert evaluated["loss"] == pytest.approx(run.info["result"]["metrics"]["loss"], rel=1e-5)


def test_exact_is_what_a_plain_loop_over_the_test_split_counts(run, capsys):
    """Every test source through `translate`, each against itself from back to front."""
    task = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"])
    split = task.data.splits["test"]
    lines = [task.source_tokenizer.decode(ids) for ids in split.source]
    outputs = translated(capsys, run, *lines, "-q").splitlines()
    assert len(outputs) == len(lines)
    right = sum(output.split() == line.split()[::-1] for line, output in zip(lines, outputs, strict=True))
    assert right / len(lines) == pytest.approx(run.info["result"]["metrics"]["exact"])


def test_one_line_in_one_line_out_whatever_the_batch(run, capsys, monkeypatch):
    text = "a b c d e\n\nj\n   \na i b h c g d f e j\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    together = translated(capsys, run, "-q").splitlines()
    assert together == ["e d c b a", "", "j", "", "j e f d g c h b i a"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert translated(capsys, run, "-q", "--batch-size", "1").splitlines() == together


def test_json_has_both_sides(run, capsys):
    assert json.loads(translated(capsys, run, "f g h", "--json", "-q")) == {
        "source": "f g h",
        "translation": "h g f",
        "unknown": [],
    }


def test_the_longest_output_is_bounded(run, capsys):
    """The end token counts: two tokens are one letter and the end."""
    assert translated(capsys, run, "a b c", "--max-len", "2", "-q") == "c\n"


def test_an_unknown_word_is_no_failure_and_is_named(run, capsys):
    assert main(["translate", "--model", str(run.path), "a b", "a z UNKNOWN z", "-q"]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert error == "warning: line 2: not in the vocabulary: z UNKNOWN\n"


def test_input_that_is_no_text(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a b\xff\n"), encoding="utf-8"))
    assert main(["translate", "--model", str(run.path)]) == 3
    assert "not a text in UTF-8" in capsys.readouterr().err


def test_without_a_model_the_newest_translator_is_taken(run, capsys):
    assert main(["translate", "a b c", "--runs-dir", str(run.path.parent)]) == 0
    out, error = capsys.readouterr()
    assert out == "c b a\n"
    assert f"{run.path} (the newest run)" in error


def test_the_wrong_kind_of_run(run, tmp_path, capsys):
    assert main(["predict", str(run.path / "run.json"), "--model", str(run.path)]) == 2
    assert "no image classifier" in capsys.readouterr().err


def test_decoding_needs_start_and_step_only(run):
    """The trained model through its step contract, one token at a time in Python, equals the loop in the graph."""
    import tensorflow as tf

    model = runs.load_model(run.path)
    task = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"])
    source = np.array([[*task.source_tokenizer.encode("h e a d"), END]], np.int32)
    decoded = greedy(model.step, model.start(source), batch=1, start_id=START, end_id=END, max_len=12)
    state, token, tokens, score = model.start(source), START, [], 0.0
    while token != END:
        logits, state = model.step(tf.constant([token]), state)
        log_p = logits.numpy()[0] - np.log(np.exp(logits.numpy()[0]).sum())
        token = int(log_p.argmax())
        score += log_p[token]
        tokens.append(token)
    assert decoded.tokens.numpy()[0, : len(tokens)].tolist() == tokens
    assert task.target_tokenizer.decode(tokens) == "d a e h"
    assert float(decoded.scores[0]) == pytest.approx(score, abs=1e-4)
