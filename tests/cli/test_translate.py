"""`dlkit translate` with nets that are made by hand to copy: what it prints, beside each line and where one fails."""

import gzip
import io
import json
import os
import pty
import re
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from copying_net import load_once, make
from matplotlib.figure import Figure

from dlkit.cli import main
from dlkit.cli.translate import FATES
from dlkit.data.tokenizer import WordTokenizer
from dlkit.decode import step, tree
from dlkit.probe import translation
from dlkit.tasks import translator

WORDS = WordTokenizer(["le", "chat", "dort", "un", "noir"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that copies, one that copies all but the first word, and one that writes other words."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "copy", WORDS, WORDS)
    make(folder / "later", WORDS, WORDS, shift=1)
    make(folder / "other", WORDS, WordTokenizer(["the", "cat", "sleeps", "a", "black"]))
    return folder


@pytest.fixture
def translate(dlkit, made, monkeypatch):
    """`dlkit translate` with one of the runs, or with several."""
    monkeypatch.setattr(translator, "load", load_once)
    return lambda *arguments, model="copy": dlkit(
        "translate", *arguments, "-q", *(part for name in model.split() for part in ("--model", str(made / name)))
    )


@pytest.fixture
def pictures(monkeypatch):
    """What pictures are drawn of, instead of drawing them."""
    drawn = {}
    monkeypatch.setattr(translation, "alignment", lambda *sides, title: drawn.update(alignment=sides) or Figure())
    monkeypatch.setattr(tree, "picture", lambda levels, piece, *, title: drawn.update(tree=levels) or Figure())
    return drawn


def standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


@pytest.fixture
def shown(translate, monkeypatch):
    """The lines that a terminal shows of `dlkit translate`."""

    def run(*arguments):
        screen, terminal = pty.openpty()
        with os.fdopen(terminal, "w") as stdout, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setenv("TERM", "xterm")
            assert translate(*arguments).code == 0
        seen = b""
        with os.fdopen(screen, "rb", buffering=0) as reading, suppress(OSError):  # a terminal ends with an error
            while piece := reading.read(4096):
                seen += piece
        return seen.decode().replace("\r\n", "\n").split("\n")[:-1]

    return run


def test_columns_on_a_terminal_are_apart_by_spaces(shown):
    best, none = shown("le chat", "--scores", "--align", "--n-best", "2", "--max-len", "2", "--prefix", "le")
    assert re.fullmatch(r"-?\d\.\d{4}  le  0-0", best)
    assert none.split("  ") == ["", "", ""]
    first, second = shown("le chat dort", "", "--format", "tsv")
    assert re.fullmatch(r"1  1  -?\d\.\d{4}  -?\d\.\d{4}  le chat dort", first)
    assert second.split("  ") == ["2", "1", "", "", ""]


def test_other_output_on_a_terminal_is_one_column(shown):
    assert json.loads("".join(shown("le chat", "--json")))["translation"] == "le chat"
    assert shown("le", "--show-beams", "--beam", "1")[-1].startswith("chosen  le   log-probability ")


# ------------------------------------------------------------------------------------------------- alignments and trees


def test_an_alignment_has_source_and_output_tokens(translate):
    """Each token was looked for one word further on; the ends are left out, and what stands beside it in the batch."""
    lines = ["le chat noir", "dort", "un chat noir dort un chat"]
    out = translate(*lines, "--align", model="later").out
    assert out.splitlines() == ["chat noir\t1-0 2-1", "\t", "chat noir dort un chat\t1-0 2-1 3-2 4-3 5-4"]
    out = translate(*lines, "--align", "--format", "tsv", model="later").out
    assert out.splitlines()[0].split("\t")[4:] == ["chat noir", "1-0 2-1"]
    found = json.loads(translate(lines[0], "--align", "--json", model="later").out)
    assert found["source_tokens"] == ["le", "chat", "noir", "</s>"]
    assert found["hypotheses"][0]["tokens"] == ["chat", "noir", "</s>"]
    assert found["hypotheses"][0]["alignment"] == [[1, 0], [2, 1]]


@pytest.mark.parametrize("tree_too", [False, True])
def test_the_picture_of_an_alignment(translate, pictures, tree_too):
    """With --align it is drawn, also where the tree is printed."""
    flags = ["--show-beams"] if tree_too else []
    # Of the first line that has tokens, in a batch with a longer one.
    result = translate("", "le chat noir", "le chat le chat le", "--align", "--png", "x.png", *flags, model="later")
    assert result.code == 0
    assert ("chosen  chat noir" in result.out) == tree_too
    assert Path("x.png").exists()
    assert list(pictures) == ["alignment"]
    weights, source, target = pictures["alignment"]
    assert (list(source), list(target)) == (["le", "chat", "noir", "</s>"], ["chat", "noir", "</s>"])
    np.testing.assert_allclose(weights, np.eye(4)[1:], atol=0.01)


def test_the_picture_of_a_tree(translate, pictures):
    assert translate("le chat", "--png", "x.png").out == "le chat\n"
    assert list(pictures) == ["tree"]


def test_no_picture_is_told(translate):
    result = translate("", "--png", "x.png")
    assert (result.code, result.out, result.err) == (0, "\n", "warning: x.png is not drawn: no line has any token\n")
    assert not Path("x.png").exists()


def test_the_steps_of_the_tree_as_json(translate):
    found = json.loads(translate("un chat dort", "--show-beams", "--beam", "3", "--json").out)
    steps, best = found["steps"], found["hypotheses"][0]
    for before, nodes in zip(steps, [*steps[1:], []], strict=True):
        children = [child for node in before for child in node["leads_to"]]
        assert sorted(children) == list(range(len(nodes))), "each goes on from one"
        for node in before:
            assert node["fate"] in {"kept", "ended", "pruned"}
            assert not node["leads_to"] or node["fate"] == "kept"
            assert all(nodes[child]["log_probability"] <= node["log_probability"] for child in node["leads_to"])
    (node,) = (node for node in steps[0] if node["chosen"])
    way = [node]
    for nodes in steps[1:]:
        following = [nodes[child] for child in way[-1]["leads_to"] if nodes[child]["chosen"]]
        way += following
    assert [node["token"] for node in way] == best["tokens"] == ["un", "chat", "dort", "</s>"]
    assert way[-1]["fate"] == "ended"
    assert way[-1]["log_probability"] == pytest.approx(best["log_probability"], abs=1e-4)


def test_fates_have_the_names_of_the_search():
    assert {getattr(step, name.upper()): name for name in FATES.values()} == FATES
    assert len(FATES) == 3


def test_trees_of_several_lines_stand_apart(translate):
    alone = [translate(line, "--show-beams").out for line in ("le chat", "dort")]
    assert translate("le chat", "dort", "--show-beams").out == "\n".join(alone)


def test_outputs_that_do_not_exist_are_told(translate):
    """Of two tokens that begin as they have to there is one."""
    result = translate("le chat", "--prefix", "le", "--max-len", "2", "--n-best", "3")
    assert (result.code, result.out) == (0, "le\n\n\n")
    assert result.err == "warning: line 1: 1 of 3 outputs; there are no others of so many tokens\n"


@pytest.mark.parametrize("option", ["--format tsv", "--scores", "--n-best 2", "--align"])
def test_what_a_tree_has_no_place_for_is_refused(translate, option):
    result = translate("le chat", "--show-beams", *option.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        f"error: {option.removesuffix(' 2')} is about rows of output, and --show-beams prints trees",
        "hint: `--format jsonl` has all there is",
    ]
    if "tsv" not in option:
        assert "steps" in json.loads(translate("le chat", "--show-beams", *option.split(), "--format", "jsonl").out)


# ----------------------------------------------------------------------------------------- lines that are not searched

# One with an answer, one without tokens, one that is no text, one that is too long, one of white space and controls.
LINES = b"le chat\n\n\xff\n" + b"le " * 33_334 + b"\n \x00\x0b\t\nun\x0bchat\x00noir\r\n"
ANSWERS = ["le chat", "", "", "", "", "un chat noir"]


@pytest.mark.parametrize("n_best", [1, 2])
@pytest.mark.parametrize("flags", [[], ["--scores"], ["--align"], ["--scores", "--align"], ["--format", "tsv"],
                                   ["--format", "tsv", "--align"]], ids=" ".join)  # fmt: skip
def test_every_line_has_as_many_rows_and_cells(translate, monkeypatch, flags, n_best):
    standard_input(monkeypatch, LINES)
    result = translate(*flags, "--n-best", str(n_best))
    assert result.code == 3
    rows = [row.split("\t") for row in result.out.split("\n")[:-1]]
    tsv = "tsv" in flags
    columns = (5 if tsv else 1 + ("--scores" in flags)) + ("--align" in flags)
    assert {len(row) for row in rows} == {columns}
    assert len(rows) == 6 * n_best
    text = 4 if tsv else int("--scores" in flags)
    assert [row[text] for row in rows[::n_best]] == ANSWERS
    if tsv:
        assert [row[:2] for row in rows] == [
            [str(line), str(rank)] for line in range(1, 7) for rank in range(1, n_best + 1)
        ]
    for row in rows[n_best:-n_best]:
        assert not any(row[2 if tsv else 0 :]), "nothing was searched: neither a score nor a probability"
    told = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: line 3 of standard input is not UTF-8",
        "error: line 4 has 33,335 tokens, and at most 24 are read at once",
    ]


def test_what_was_not_searched_is_null_in_json(translate, monkeypatch):
    standard_input(monkeypatch, LINES)
    records = [json.loads(line) for line in translate("--json").out.splitlines()]
    assert [record["line"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert ["error" in record for record in records] == [False, False, True, True, False, False]
    assert records[1]["hypotheses"] == [{"text": "", "score": None, "log_probability": None, "tokens": []}]
    assert records[0]["hypotheses"][0]["score"] is not None


def test_lines_of_a_compressed_file(translate):
    Path("in.gz").write_bytes(gzip.compress(b"le chat\ndort\n"))
    assert translate("--file", "in.gz").out == "le chat\ndort\n"
    # Without compression all of the text stands there but the last line and the 8 bytes after it.
    Path("in.gz").write_bytes(gzip.compress(b"le chat\n" * 99, compresslevel=0)[:-9])
    result = translate("--file", "in.gz")
    assert (result.code, result.out) == (3, "le chat\n" * 98)
    assert result.err.splitlines() == [
        "error: in.gz is no whole gzip file", "hint: it is damaged or cut short: get it again"
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- limits and ensembles


def test_a_prefix_counts_among_the_tokens(translate):
    found = json.loads(translate("un noir dort un", "--prefix", "le chat", "--max-len", "4", "--json").out)
    assert found["hypotheses"][0]["tokens"] == ["le", "chat", "dort", "</s>"]
    for most in ("1", "2"):
        result = translate("un noir", "--prefix", "le chat", "--max-len", most)
        assert (result.code, result.out) == (2, "")
        assert result.err.splitlines() == [
            f"error: the prefix has 2 tokens, and an output at most {most}, the end token among them",
            "hint: allow more tokens, or give a shorter prefix",
        ]


@pytest.mark.parametrize(
    ("arguments", "most", "hint"),
    [("--min-len 9", 8, "give a --max-len, too"), ("--min-len 25 --max-len 30", 24, "give a smaller --min-len")],
)
def test_no_more_tokens_are_asked_for_than_there_may_be(translate, tmp_path, arguments, most, hint):
    make(tmp_path / "short", WORDS, WORDS, "decode.max_len=8")
    result = translate("un noir", *arguments.split(), model=str(tmp_path / "short"))
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[-2:] == [
        f"error: {' '.join(arguments.split()[:2])} is more than the {most} tokens that an output has at most",
        f"hint: {hint}",
    ]


def test_a_longest_output_that_cannot_be_is_told_once(translate):
    result = translate("un noir", "dort", "--max-len", "5000")
    assert (result.code, result.out) == (0, "un noir\ndort\n")
    told = "warning: --max-len 5,000 is more than can be written: outputs have at most 24 tokens\n"
    assert result.err == told
    result = translate("un noir", "--max-len", "24", "--min-len", "24")
    assert (result.code, result.err) == (0, "")


def test_help_says_what_options_do(dlkit):
    text = " ".join(dlkit("translate", "--help").out.replace("│", " ").split())
    for words in ("Seed of what --sample draws. [default: 0]", "a search has at least as many beams",
                  "for many lines. Each call does it anew", "cut to 1,000, or to the model's positions"):  # fmt: skip
        assert words in text


def test_an_ensemble_has_one_target_vocabulary(translate, made):
    result = translate("le chat", model="copy other")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        f"error: {made / 'copy'} and {made / 'other'} have different target vocabularies",
        "hint: an ensemble is of runs that were trained on the same data",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-len", "8", "--max-len", "3"], "--min-len 8 is more than --max-len 3"),
        (["--sample", "--top-p", "0"], "--top-p 0 leaves nothing to draw from"),
        (["--json", "--format", "tsv"], "--json and --format tsv are two formats"),
        (["-o", "{folder}"], "cannot write {folder}: it is a folder"),
        (["--png", "{folder}/mine.png"], "{folder}/mine.png exists"),
        (["-o", "{folder}/none/o.txt"], "cannot write {folder}/none/o.txt: there is no folder {folder}/none"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(arguments, message, tmp_path, capsys):
    (tmp_path / "mine.png").write_bytes(b"precious")
    assert main(["translate", "chat", *(argument.format(folder=tmp_path) for argument in arguments)]) == 2
    error = "".join(capsys.readouterr().err.split())
    assert "".join(message.format(folder=tmp_path).split()) in error
