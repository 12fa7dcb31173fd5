"""Pairs that are longer than a model reads at once: told, left out of the loss, and never the end of a run."""

import json

import numpy as np
import pytest

from dlkit.cli import main
from dlkit.tasks import translation
from dlkit.tasks.task import open_task

WORDS = "abcdefgh"
MOST = 12  # learned positions; no multiple of the steps that lengths are padded to


def line(words):
    return " ".join(WORDS[at % len(WORDS)] for at in range(words))


def write(path, lengths):
    path.write_text("".join(f"{line(words)}\t{line(words)[::-1]}\n" for words in lengths))
    return path


def train(folder, validation, *more, name="run"):
    training = write(folder / "train.tsv", [3, 4, 5, 6, 7, 8, 9, 11])
    return main(
        ["train", "transformer", "--data", str(training), "--name", name, "--runs-dir", str(folder), "-q", *more]
        + [f"--set={setting}" for setting in (
            f"data.validation_file={validation}", "data.tokenizer=word", "model.size=tiny", "model.layers=1",
            "model.width=8", "model.heads=2", "model.ffn=8", "model.positions=learned", f"model.max_length={MOST}",
            "train.steps=2", "train.batch_size=4", "decode.max_len=8",
        )]
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run whose validation split has two pairs that the model has no positions for."""
    folder = tmp_path_factory.mktemp("long")
    assert train(folder, write(folder / "some.tsv", [4, 30, 11, 12])) == 0
    return folder


def evaluated(capsys, folder, pairs, *more):
    assert main(["evaluate", str(folder / "run"), "--data", str(folder / pairs), "--json", *more]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), " ".join(captured.err.split())


def test_a_long_validation_pair_does_not_end_the_training(folder, capsys):
    assert (folder / "run/checkpoints/best").exists()
    assert train(folder, folder / "some.tsv", name="again") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("left out of the loss and accuracy: 2 of 4 validation pairs, with more than 12 tokens") == 1


def test_the_loss_is_that_of_the_other_pairs(folder, capsys):
    write(folder / "short.tsv", [4, 11])  # 12 tokens with the end: just as many as there are positions
    some, said = evaluated(capsys, folder, "some.tsv")
    short, silent = evaluated(capsys, folder, "short.tsv")
    assert "2 of 4 test pairs" in said
    assert "left out" not in silent
    assert some["loss"] == pytest.approx(short["loss"], rel=1e-5)
    assert some["examples"] == 4


def test_a_line_of_a_hundred_thousand_characters(folder, capsys):
    write(folder / "huge.tsv", [4, 50_000, 11])
    huge, said = evaluated(capsys, folder, "huge.tsv", "--batch-size", "2")
    short, _ = evaluated(capsys, folder, "short.tsv")
    assert "1 of 3 test pairs" in said
    assert huge["loss"] == pytest.approx(short["loss"], rel=1e-5)


def test_nothing_but_long_pairs(folder, capsys):
    write(folder / "long.tsv", [30, 12])
    assert main(["evaluate", str(folder / "run"), "--data", str(folder / "long.tsv")]) == 3
    assert "every test pair has more than 12 tokens" in " ".join(capsys.readouterr().err.split())


def test_a_training_pair_without_positions_is_told_before_the_first_step(folder, capsys):
    write(folder / "train.tsv", [3, 4, 20])
    validation = f"--set=data.validation_file={folder / 'short.tsv'}"
    settings = ["data.tokenizer=word", "model.positions=learned", f"model.max_length={MOST}"]
    arguments = ["--data", str(folder / "train.tsv"), "--runs-dir", str(folder / "none"), validation]
    assert main(["train", "transformer", *arguments, *(f"--set={setting}" for setting in settings)]) == 3
    error = " ".join(capsys.readouterr().err.split())
    assert "a training pair has 21 tokens with its end, and the model learned positions for 12" in error
    assert "data.max_length=11" in error
    assert not list((folder / "none").glob("*"))


def test_batches_have_room_and_hold_every_pair_once(folder, monkeypatch):
    monkeypatch.setattr(translation, "TOKENS_WRITTEN", 24)
    lengths = [1, 9, 2, 8, 3, 7, 4, 6, 5, 10]  # with the end token one more
    data = {"name": str(write(folder / "mixed.tsv", lengths)), "tokenizer": "word", "validation": 0, "test": 0}
    task = open_task("translation", data)
    plan = task.evaluation_plan(None, "train", batch_size=4)
    assert sorted(np.concatenate(plan)) == list(range(10))
    assert all(len(rows) <= 4 and len(rows) * (max(lengths[row] for row in rows) + 1) <= 24 for rows in plan)
