"""A translator that starts from another's weights reads with the other's tokenizers: ids mean what they meant."""

import pytest

from dlkit.cli import main
from dlkit.tasks.translator import load_tokenizers

TINY = ["--set=model.layers=1", "--set=model.width=16", "--set=model.ffn=16", "--set=model.heads=2", "-q"]


def pairs(path, words):
    lines = [f"{a} {b}\t{b} {a}" for a in words for b in words]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    data = pairs(folder / "first.tsv", ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit"])
    words = ["--set=data.tokenizer=word", "--set=data.min_count=1"]
    command = ["train", "transformer", "--data", data, *words, "--steps", "2", *TINY]
    assert main([*command, "--runs-dir", str(folder), "--name", "first"]) == 0
    return folder / "first"


def test_the_tokenizer_comes_with_the_weights(first, tmp_path):
    # As many different words as before, so that only the tokenizer tells one from the other.
    data = pairs(tmp_path / "second.tsv", ["eins", "zwei", "drei", "vier", "un", "deux", "trois", "quatre"])
    command = ["train", "transformer", "--data", data, "--steps", "2", *TINY, "--init-from", str(first)]
    assert main([*command, "--runs-dir", str(tmp_path), "--name", "second"]) == 0
    assert load_tokenizers(tmp_path / "second") == load_tokenizers(first)
    assert load_tokenizers(tmp_path / "second")[0].unknown("eins un") == ["eins"]
    assert main(["train", "--resume", str(tmp_path / "second"), "-q"]) == 0


def test_another_tokenizer_is_refused(first, tmp_path, capsys):
    data = pairs(tmp_path / "second.tsv", ["eins", "zwei", "drei", "vier"])
    command = ["train", "transformer", "--data", data, *TINY, "--init-from", str(first), "--runs-dir", str(tmp_path)]
    assert main([*command, "--set", "data.vocabulary=50"]) == 2
    assert "data.vocabulary is settled by the tokenizer" in capsys.readouterr().err
