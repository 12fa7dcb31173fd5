"""`dlkit score` with nets that are made by hand to copy: pairs side by side, and means of several models by hand."""

import gzip
import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from copying_net import load_once, make

from dlkit.cli.score import _side_by_side
from dlkit.data.tokenizer import CharacterTokenizer, WordTokenizer
from dlkit.tasks import translator

WORDS = WordTokenizer("abcde")
# Reads "a b" as three letters, the space among them.
LETTERS = CharacterTokenizer("abcd ")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs that copy words, all words but the first, and letters, of which the space becomes `e`."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "copy", WORDS, WORDS)
    make(folder / "later", WORDS, WORDS, shift=1)
    make(folder / "letters", LETTERS, WORDS)
    return folder


@pytest.fixture
def run(dlkit, made, monkeypatch):
    """A command with one of the runs, or with several."""
    monkeypatch.setattr(translator, "load", load_once)
    return lambda command, *arguments, model="copy": dlkit(
        command, *arguments, "-q", *(part for name in model.split() for part in ("--model", str(made / name)))
    )


FILES = ["--source", "x", "--target", "y"]


def write(source, target):
    Path("x").write_bytes(source)
    Path("y").write_bytes(target)


def probabilities(result):
    """Of each token of each line."""
    records = [json.loads(line) for line in result.out.splitlines()]
    return [np.exp([token["log_probability"] for token in record["tokens"]]) for record in records]


# ----------------------------------------------------------------------------------------------------------- two files


@pytest.mark.parametrize("batch_size", ["1", "2", "32"])
def test_lines_that_cannot_be_read_keep_their_place(run, batch_size):
    """In either file: no text, and too long; the others are scored."""
    long = b"a " * 50_000
    write(b"a b\n\xff\nc\n" + long + b"\nd\ne\n", b"a b\nb\n\xfe\nd\n" + long + b"\ne\n")
    result = run("score", *FILES, "--tokens", "--batch-size", batch_size)
    assert result.code == 3
    rows = [row.split("\t") for row in result.out.splitlines()]
    assert [len(row) for row in rows] == [4] * 6
    assert [row[1] for row in rows] == ["3", "", "", "", "", "2"]
    assert rows[0][3].split()[::2] == ["a", "b", "</s>"]
    assert [line for line in result.err.splitlines() if line.startswith("error: ")] == [
        "error: line 2 of x is not UTF-8",
        "error: line 3 of y is not UTF-8",
        "error: line 4 has 50,001 tokens, and at most 24 are read at once",
        "error: the translation in line 5 has 50,001 tokens, and at most 24 are read at once",
    ]
    hints = [line for line in result.err.splitlines() if line.startswith("hint: ")]
    assert len(hints) == len(set(hints)) == 2, "each is given once"
    assert [len(row) for row in map(str.split, run("score", *FILES).out.splitlines())] == [3, 0, 0, 0, 0, 3]


@pytest.mark.parametrize(("names", "counts"), [("xy", (5, 3)), ("yx", (3, 5))])
@pytest.mark.parametrize("batch_size", ["1", "2", "3", "8"])
def test_files_of_different_length(run, names, counts, batch_size):
    """The pairs that there are, then both lengths; wherever the groups end."""
    write(b"a\nb\nc\nd\ne\n", b"a\nb\nc\n")
    result = run("score", "--source", names[0], "--target", names[1], "--batch-size", batch_size)
    assert result.code == 3
    assert len(result.out.splitlines()) == 3
    assert result.err.splitlines() == [
        f"error: {names[0]} has {counts[0]} lines but {names[1]} has {counts[1]}",
        "hint: line i of one has to be the translation of line i of the other",
    ]


def test_files_are_read_as_they_are_scored():
    groups = _side_by_side(itertools.repeat(["a"]), itertools.repeat(["b"]), names=("x", "y"))
    assert list(itertools.islice(groups, 3)) == [[("a", "b")]] * 3


def test_compressed_and_empty_files(run, dlkit):
    write(b"", b"")
    result = run("score", *FILES)
    assert (result.code, result.out) == (0, "")
    Path("x.gz").write_bytes(gzip.compress(b"a b\n"))
    Path("y").write_bytes(b"a b")
    plain = run("score", "--source", "y", "--target", "y")
    assert run("score", "--source", "x.gz", "--target", "y").out == plain.out != ""


def test_a_file_that_is_not_there(run):
    Path("y").write_bytes(b"a\n")
    result = run("score", *FILES)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("error: cannot read x: ")
    result = run("score", "--source", "y")
    assert result.code == 2
    assert "--source and --target go together" in result.err


# ------------------------------------------------------------------------------------------------------ standard input


def test_a_pair_that_cannot_be_read_keeps_its_place(run, monkeypatch):
    """Two tabs, no text, control characters, which are white space, and a pair of nothing, which has its end alone."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\tb\tc\n\xff\tb\na\x0bb\ta\x00b\n\t\n")))
    result = run("score", "--json")
    records = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 3
    assert [record["line"] for record in records] == [1, 2, 3, 4]
    assert [record.get("error") for record in records] == [
        "line 1 has 2 tabs, not 1", "line 2 of standard input is not UTF-8", None, None
    ]  # fmt: skip
    assert [[token["token"] for token in record["tokens"]] for record in records[2:]] == [["a", "b", "</s>"], ["</s>"]]


# ------------------------------------------------------------------------------------------------------- several models


@pytest.mark.parametrize("others", ["later", "letters"])
def test_probabilities_are_averaged(run, others):
    """Of nets that disagree; also where each reads the source with its own tokenizer, in another number of tokens."""
    write(b"a b c\nd\na b\n", b"a b c\n\na e b\n")
    first, second, both = (
        probabilities(run("score", *FILES, "--json", model=model)) for model in ("copy", others, f"copy {others}")
    )
    assert [len(line) for line in both] == [4, 1, 4]
    for own, other, mean in zip(first, second, both, strict=True):
        np.testing.assert_allclose(mean, (own + other) / 2, atol=1e-5)
    assert max(np.abs(own - other).max() for own, other in zip(first, second, strict=True)) > 0.5


@pytest.mark.parametrize("others", ["later", "letters"])
def test_an_ensemble_searches_by_the_mean(run, others):
    found = json.loads(run("translate", "a b c", "--json", "--n-best", "3", model=f"copy {others}").out)["hypotheses"]
    write(b"a b c\n" * 3, "".join(f"{hypothesis['text']}\n" for hypothesis in found).encode())
    first, second = (probabilities(run("score", *FILES, "--json", model=model)) for model in ("copy", others))
    for hypothesis, own, other in zip(found, first, second, strict=True):
        assert hypothesis["log_probability"] == pytest.approx(np.log((own + other) / 2).sum(), abs=1e-4)
