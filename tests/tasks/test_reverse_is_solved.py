"""Nets that look back at the source learn to write it from back to front: sequences that training never saw."""

import json

import pytest

from dlkit.cli import main

SMALL = [
    f"--set={value}"
    for value in ("data.length=8", "data.train=10000", "data.validation=300", "data.test=500", "decode.max_len=12")
]


@pytest.mark.parametrize(("model", "batch_size"), [("seq2seq_attention", 128), ("transformer", 64)])
def test_reverse_is_solved(tmp_path, capsys, model, batch_size):
    settings = [*SMALL, "--epochs", "3", "--batch-size", str(batch_size)]
    place = ["--runs-dir", str(tmp_path), "--name", "solved"]
    assert main(["train", model, "--data", "synthetic:reverse", *settings, *place, "-q"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "solved"), "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["examples"] == 500
    assert result["exact"] > 0.99  # "solved" in the literature
