"""The README's table has a command for each part of the lecture series, and each of them runs."""

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dlkit import models, recipe
from dlkit.cli import main
from dlkit.experiments import EXPERIMENTS
from dlkit.probe.views import VIEWS

PARTS = [f"{letter}{number}" for letter, most in (("C", 8), ("T", 8), ("R", 10), ("S", 6), ("X", 9))
         for number in range(1, most + 1)]  # fmt: skip
ROW = re.compile(r"^\| ([CTRSX]\d+) \| [^|]+ \| `(.+)` \|$", re.MULTILINE)
README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = {part: command.replace("\\|", "|") for part, command in ROW.findall(README)}
SMALL = {"experiment": ["--first-look"], "train": ["--dry-run"]}


def words_of(command):
    """The arguments after `dlkit`."""
    words = shlex.split(command.rpartition("| ")[2])
    assert words[0] == "dlkit"
    return words[1:]


def test_each_part_has_one_command():
    assert list(COMMANDS) == PARTS
    assert len(ROW.findall(README)) == len(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_what_a_command_names_is_there(part):
    verb, *operands = words_of(COMMANDS[part])
    match verb:
        case "experiment":
            assert part in EXPERIMENTS[operands[0]].parts
        case "inspect":
            assert operands[0] in models.names() or operands[0] == "transformer_tatoeba"
            assert operands[1] in VIEWS
        case "summarize":
            assert operands[0] in models.names()
        case "train":
            options = dict(zip(operands[1::2], operands[2::2], strict=True))
            overrides = [(*options["--set"].split("="), "set")] if "--set" in options else []
            recipe.resolve(operands[0], options.get("--data"), recipe_path=options.get("--recipe"), overrides=overrides)
        case _:
            assert verb == "translate"


# Those that take a second or two in a process that has started TensorFlow; experiments have tests of their own.
CHEAP = {part for part in COMMANDS if words_of(COMMANDS[part])[0] in {"summarize", "inspect", "translate"}} - {"C8"}


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS[part] for part in PARTS if part in CHEAP))
def test_a_cheap_command_runs_as_it_stands(command, tmp_path, monkeypatch, capsys):
    before, _, _ = command.rpartition("| ")
    typed = " ".join(shlex.split(before)[1:]) + "\n"  # behind `echo`
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    assert main(words_of(command)) == 0
    assert capsys.readouterr().out.strip()
    assert not list(tmp_path.iterdir())


# Those whose nets and data, made on the spot or a few sentences, are so small that they are tried out in two seconds.
TRIED_OUT = {"R1", "R3", "R7", "R9", "S3", "S6"}
assert set(PARTS) >= TRIED_OUT
FEW = ["--set", "data.train=64", "--set", "data.validation=8", "--set", "data.test=8"]


@pytest.mark.parametrize("part", [part for part in PARTS if part in TRIED_OUT])
def test_a_cheap_training_is_tried_out(part, tmp_path, monkeypatch, capsys):
    words = words_of(COMMANDS[part])
    assert words[0] == "train"
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--dry-run", *([] if "three_sentences" in words else FEW)]) == 0
    assert "dry run: nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # most train a little, or trace a graph to do so
@pytest.mark.parametrize("part", PARTS)
def test_a_command_runs_at_a_small_size(part, tmp_path):
    command = COMMANDS[part]
    small = SMALL.get(words_of(command)[0], [])
    whole = command.replace("dlkit ", f"{shlex.quote(sys.executable)} -m dlkit ")
    ran = subprocess.run(
        ["bash", "-c", f"{whole} {shlex.join(small)}"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
