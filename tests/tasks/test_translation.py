"""`synthetic:reverse` from recipe to decoded text, through the ordinary trainer."""

import hashlib
import io
import json
import re
import shutil
import sys

import numpy as np
import pytest

from dlkit import runs
from dlkit.cli import main
from dlkit.data.tokenizer import END, START, WordTokenizer
from dlkit.decode.greedy import greedy
from dlkit.tasks.task import open_task
from dlkit.tasks.translator import Search


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "seq2seq", "--runs-dir", str(folder), "--name", "reverse", "-q"]) == 0
    return runs.open_run(folder / "reverse")


def translated(capsys, run, *arguments):
    assert main(["translate", "--model", str(run.path), *arguments]) == 0
    return capsys.readouterr().out


def standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def test_more_than_99_percent_of_the_test_sequences_are_exact(run):
    result = run.info["result"]
    assert result["split"] == "test"
    assert result["metrics"]["exact"] > 0.99


def test_evaluate_says_the_same(run, capsys):
    assert main(["evaluate", str(run.path), "--beam", "1", "--json", "-q"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["examples"] == 1000
    assert evaluated["exact"] == run.info["result"]["metrics"]["exact"]
    assert evaluated["loss"] == pytest.approx(run.info["result"]["metrics"]["loss"], rel=1e-5)


def test_exact_is_what_a_plain_loop_over_the_test_split_counts(run, capsys):
    """Every test source through `translate`, each against itself from back to front."""
    lines = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"]).data.texts["test"].source
    outputs = translated(capsys, run, *lines, "--beam", "1", "-q").splitlines()
    assert len(outputs) == len(lines)
    right = sum(output.split() == line.split()[::-1] for line, output in zip(lines, outputs, strict=True))
    assert right / len(lines) == pytest.approx(run.info["result"]["metrics"]["exact"])


def test_outputs_keep_the_order_of_the_split_whatever_the_batch(run):
    """More sources than are put in order of their lengths at a time: 16 batches of 3."""
    task = open_task(run.task, run.recipe["data"], folder=run.path, info=run.info["data"], limit=100)
    model = runs.load_model(run.path)
    outputs = list(task.outputs(model, "test", Search(method="greedy"), batch_size=3))
    sources, targets = task.texts("test").source, task.texts("test").target
    assert [len(output.split()) for output in outputs] == [len(text.split()) for text in sources]
    assert sum(said == wanted for said, wanted in zip(outputs, targets, strict=True)) > 95


def test_one_line_in_one_line_out_whatever_the_batch(run, capsys, monkeypatch):
    text = b"a b c d e\n\nj\r\n   \na i b h c g d f e j"
    standard_input(monkeypatch, text)
    together = translated(capsys, run, "-q").splitlines()
    assert together == ["e d c b a", "", "j", "", "j e f d g c h b i a"]
    standard_input(monkeypatch, text)
    assert translated(capsys, run, "-q", "--batch-size", "1").splitlines() == together


def test_a_file_is_translated_into_a_file(run, capsys, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfa b\n\nc d\n")
    out = tmp_path / "out.txt"
    assert translated(capsys, run, "--file", str(tmp_path / "in.txt"), "-o", str(out), "-q") == ""
    assert out.read_text() == "b a\n\nd c\n"


def test_json_has_all_there_is(run, capsys):
    found = json.loads(translated(capsys, run, "f g h", "--json", "-q", "--n-best", "2"))
    assert (found["line"], found["source"], found["translation"], found["unknown"]) == (1, "f g h", "h g f", [])
    first, second = found["hypotheses"]
    assert first["tokens"] == ["h", "g", "f", "</s>"]
    assert first["score"] == pytest.approx(first["log_probability"] / 4)
    assert first["score"] > second["score"]


def test_tab_separated_n_best(run, capsys):
    rows = [
        line.split("\t")
        for line in translated(capsys, run, "a b", "c", "--n-best", "2", "--format", "tsv").splitlines()
    ]
    assert [(row[0], row[1]) for row in rows] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert [row[4] for row in rows if row[1] == "1"] == ["b a", "c"]
    assert float(rows[0][3]) == pytest.approx(3 * float(rows[0][2]), abs=3e-4)  # two letters and the end


def test_scores_are_those_of_score(run, capsys, monkeypatch):
    score, output = translated(capsys, run, "a b c d", "--scores", "-q").rstrip("\n").split("\t")
    standard_input(monkeypatch, f"a b c d\t{output}\n".encode())
    assert main(["score", "--model", str(run.path), "-q"]) == 0
    total, tokens, mean = capsys.readouterr().out.split()
    assert int(tokens) == 5
    assert float(mean) == pytest.approx(float(score), abs=1e-3)
    assert float(total) == pytest.approx(5 * float(mean), abs=1e-3)


def test_score_of_two_files(run, capsys, tmp_path):
    (tmp_path / "x").write_text("a b\nc d\n")
    (tmp_path / "y").write_text("b a\nc d\n")
    files = ["--source", str(tmp_path / "x"), "--target", str(tmp_path / "y")]
    assert main(["score", "--model", str(run.path), *files, "--json", "-q"]) == 0
    right, wrong = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert right["log_probability"] > wrong["log_probability"] + 3
    assert [token["token"] for token in right["tokens"]] == ["b", "a", "</s>"]
    (tmp_path / "y").write_text("b a\n")
    assert main(["score", "--model", str(run.path), *files]) == 3
    assert "has 2 lines" in capsys.readouterr().err


def test_score_without_a_tab(run, capsys, monkeypatch):
    standard_input(monkeypatch, b"a b\nc\tc\n")
    assert main(["score", "--model", str(run.path), "-q"]) == 3
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "line 1 has 0 tabs" in error


def test_a_prefix_is_forced(run, capsys):
    assert translated(capsys, run, "a b c", "--prefix", "c b", "-q") == "c b a\n"
    assert translated(capsys, run, "a b c", "--prefix", "j", "-q").startswith("j")


def test_samples_are_those_of_the_seed_and_not_of_the_batch(run, capsys):
    lines = ["a b c d e f", "g h i j", "a", "b c"]
    setting = ["--sample", "--temperature", "3", "--seed", "5", "--n-best", "2", "-q"]
    first = translated(capsys, run, *lines, *setting)
    assert translated(capsys, run, *lines, *setting, "--batch-size", "1") == first
    assert translated(capsys, run, *lines, *setting[:4], "6", *setting[5:]) != first


def test_the_tree_of_hypotheses(run, capsys, tmp_path):
    out = translated(capsys, run, "a b", "--show-beams", "--beam", "2", "--png", str(tmp_path / "tree.png"), "-q")
    *tree, chosen = out.splitlines()
    assert any("┬" in line or "─" in line for line in tree)
    assert chosen.startswith("chosen  b a   log-probability -")
    assert "3 tokens" in chosen
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")


def test_an_ensemble_of_one_run_twice_is_that_run(run, capsys):
    alone = translated(capsys, run, "a b c d", "--scores", "-q").split("\t")
    twice = translated(capsys, run, "a b c d", "--scores", "-q", "--model", f"{run.path}@last").split("\t")
    assert twice[1] == alone[1]
    assert float(twice[0]) == pytest.approx(float(alone[0]), abs=2e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a", "--n-best", "6", "--beam", "5"], 2, "--n-best 6 of 5 beams"),
        (["a", "--top-k", "3"], 2, "--top-k is for sampling"),
        (["a", "--sample", "--beam", "2"], 2, "--beam searches and --sample draws"),
        (["a", "--beam", "2", "--temperature", "2"], 2, "--temperature is for sampling"),
        (["a", "--sample", "--alpha", "2"], 2, "--alpha is about beam search"),
        (["a", "--png", "tree.txt"], 2, "has no name for a picture"),
        (["a", "--compile", "--show-beams"], 2, "--compile is about beam search"),
        (["a", "--sample", "--show-beams"], 2, "--show-beams is about beam search"),
        (["a", "--file", "x"], 2, "a text and --file"),
        (["a", "--align"], 2, "no attention"),
        (["--file", "none.txt"], 3, "cannot read none.txt"),
        (["a", "--sample", "--n-best", "2", "--temperature", "0"], 2, "--temperature 0 would be the same output"),
        (["a", "--sample", "--n-best", "2", "--top-k", "1"], 2, "--top-k 1 would be the same output"),
        (["a", "--sample", "--top-p", "0"], 2, "--top-p 0 leaves nothing to draw from"),
    ],
)
def test_mistakes(run, capsys, arguments, code, words):
    assert main(["translate", "--model", str(run.path), *arguments, "-q"]) == code
    assert words in capsys.readouterr().err


def test_a_compiled_search_says_the_same(run, capsys):
    lines = ["a b c", "d e f g h i j", "b"]
    assert translated(capsys, run, *lines, "--compile", "-q") == translated(capsys, run, *lines, "-q")


def test_bad_lines_keep_their_place(run, capsys, monkeypatch):
    """One that is no text, one that is far too long: the others are translated, and the code says that some are not."""
    standard_input(monkeypatch, b"a b\n\xff\n" + b"a " * 50_000 + b"\nc d\n")
    assert main(["translate", "--model", str(run.path), "-q"]) == 3
    out, error = capsys.readouterr()
    assert out.splitlines() == ["b a", "", "", "d c"]
    assert "line 2 of standard input is not UTF-8" in error
    assert "line 3 has 50,001 tokens, and at most 1,000" in error


def test_nothing_to_translate(run, capsys, monkeypatch):
    standard_input(monkeypatch, b"")
    assert main(["translate", "--model", str(run.path)]) == 0
    out, error = capsys.readouterr()
    assert out == ""
    assert "standard input is empty" in error


def test_a_tokenizer_of_another_run(run, capsys, tmp_path):
    shutil.copytree(run.path, tmp_path / "other")
    name = "tokenizer.json" if (run.path / "tokenizer.json").exists() else "target_tokenizer.json"
    WordTokenizer(["x", "y"]).save(tmp_path / "other" / name)
    for command in (["translate", "a"], ["score"]):
        assert main([*command, "--model", str(tmp_path / "other"), "-q"]) == 4
        out, error = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"error: the \w+ tokenizer of .* has 6 tokens, and its model \d+\nhint: .*\n", error)


@pytest.mark.parametrize(("joint", "code"), [("false", 2), ("true", 0)])
def test_two_tokenizers_share_no_table_of_words(tmp_path, capsys, joint, code):
    """However equal their sizes are: a row of it would stand for two words."""
    table = tmp_path / "pairs.tsv"
    table.write_text("un\tone\ndeux\ttwo\ntrois\tthree\n" * 4)
    sets = ["data.tokenizer=word", "data.min_count=1", f"data.joint={joint}", "data.split=random", "model.tied=all",
            "model.width=8", "model.heads=2", "model.layers=1"]  # fmt: skip
    command = ["train", "transformer", "--data", str(table), "--dry-run", "--runs-dir", str(tmp_path / "runs")]
    assert main([*command, *(part for each in sets for part in ("--set", each))]) == code
    assert ("they would share a table of words" in capsys.readouterr().err) == (code == 2)


def test_a_tokenizer_of_another_run_with_as_many_tokens(run, capsys, tmp_path):
    shutil.copytree(run.path, tmp_path / "other")
    name = "tokenizer.json" if (run.path / "tokenizer.json").exists() else "target_tokenizer.json"
    own = json.loads((run.path / name).read_text())
    key = "words" if "words" in own else "characters"
    (tmp_path / "other" / name).write_text(json.dumps(own | {key: own[key][::-1]}))
    for command in (["translate", "a", "--model"], ["evaluate"]):
        assert main([*command, str(tmp_path / "other"), "-q"]) == 4
        out, error = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(
            r"error: the \w+ tokenizer of .* is not the one that its model was trained with\nhint: .*\n", error
        )


def test_the_longest_output_is_bounded(run, capsys):
    """The end token counts: two tokens are one letter and the end."""
    assert translated(capsys, run, "a b c", "--max-len", "2", "-q") == "c\n"


def test_an_unknown_word_is_no_failure_and_is_named(run, capsys):
    assert main(["translate", "--model", str(run.path), "a b", "a z UNKNOWN z", "-q"]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert error == "warning: line 2: not in the vocabulary: z UNKNOWN\n"


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
    source = np.array([[*task.tokenizers[0].encode("h e a d"), END]], np.int32)
    state, memory = model.start(source)
    decoded = greedy(model.step, state, memory, batch=1, start_id=START, end_id=END, max_len=12)
    token, tokens, score = START, [], 0.0
    while token != END:
        logits, state, _ = model.step(tf.constant([[token]]), state, memory)
        log_p = logits.numpy()[0, 0] - np.log(np.exp(logits.numpy()[0, 0]).sum())
        token = int(log_p.argmax())
        score += log_p[token]
        tokens.append(token)
    assert decoded.tokens.numpy()[0, 0, : len(tokens)].tolist() == tokens
    assert task.tokenizers[1].decode(tokens) == "d a e h"
    assert float(decoded.scores[0, 0]) == pytest.approx(score, abs=1e-4)


def test_the_fingerprint_is_that_of_the_ids_pair_by_pair(tmp_path):
    """The ids of a source, the end token, those of its target and the end token, 4 bytes each: runs on disk have it."""
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{'a b c ' * (1 + n % 3)}\t{'d e ' * (1 + n % 5)}f{n % 7}\n" for n in range(40)))
    task = open_task("translation", {"name": str(file), "tokenizer": "word", "validation": 0, "test": 0})
    train, digest = task.data.splits["train"], hashlib.sha256()
    assert len(train) > 10
    for source, target in zip(train.source, train.target, strict=True):
        for number in (*source, END, *target, END):
            digest.update(int(number).to_bytes(4, "little"))
    assert task.fingerprint() == digest.hexdigest()
