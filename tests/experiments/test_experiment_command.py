"""`dlkit experiment` on all experiments, in their first look, and what users get wrong."""

import json

import pytest
from PIL import Image
from probe_pictures import assert_readable

from dlkit.cli import main
from dlkit.experiments import EXPERIMENTS, function_of, options_of
from dlkit.probe import pictures
from dlkit.values import defaults_of

PARTS = {f"{letter}{number}" for letter, most in (("C", 8), ("T", 8), ("R", 10), ("S", 6), ("X", 9))
         for number in range(1, most + 1)}  # fmt: skip


def test_the_list_names_each_experiment_with_its_claim(capsys):
    assert main(["experiment"]) == 0
    told, noted = capsys.readouterr()
    assert "two cores, degradation about an hour" in noted
    for name, each in EXPERIMENTS.items():
        assert name in told
        assert each.parts and set(each.parts) <= PARTS
    (line,) = (line for line in told.splitlines() if line.startswith("clipping "))
    assert line.endswith(" norm=none value=none"), "what switches it off"
    assert main(["experiment", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(EXPERIMENTS)
    assert listed["clipping"]["switch"] == {"norm": "none", "value": "none"}
    assert listed["clipping"]["options"]["value"] == 0.01


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_options_that_are_read_from_the_source_are_those_of_the_function(name):
    assert options_of(name) == defaults_of(function_of(name))


LONG = {"degradation", "vanishing", "standardize"}  # many nets have to be traced


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in EXPERIMENTS]
)
def test_a_first_look_ends_with_verdicts_and_a_picture(name, tmp_path, capsys, monkeypatch):
    drawn, save = [], pictures.save

    def kept(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(pictures, "save", kept)
    picture = tmp_path / "picture.png"
    assert main(["experiment", name, str(picture), "--png", "--first-look", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["experiment"] == name
    assert said["verdicts"]
    assert all(isinstance(each["holds"], bool) and each["claim"] and each["numbers"] for each in said["verdicts"])
    assert {key: said["options"][key] for key in EXPERIMENTS[name].first_look} == dict(EXPERIMENTS[name].first_look)
    assert said["records"]
    assert said["notes"]
    below = "".join(drawn[0].get_supxlabel().split())
    assert all("".join(note.split()) in below for note in said["notes"]), "what explains the picture stands in it"
    with Image.open(picture) as image:
        assert image.width > 500
    assert_readable(drawn[0])


def test_the_table_ends_with_a_line_for_each_verdict(capsys):
    assert main(["experiment", "ensembles", "--first-look", "--set", "by=none"]) == 0
    told = capsys.readouterr()
    assert told.out.count("\ndoes not hold: ") == 1
    assert "mean of the members" in told.out
    assert "time " in told.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["dropuot"], "unknown experiment: dropuot", "`dropout`"),
        (["dropout", "--set", "rat=0.1"], "unknown key: dropout.rat", "rate"),
        (["dropout", "--set", "rate=much"], "dropout.rate must be", ""),
        (["dropout", "--set", "rate"], "--set rate has no value", "--set rate=value"),
        (["dropout", "--full"], "dropout has no larger size", "leave --full out"),
        (["dropout", "--png", "nowhere/a.png"], "there is no folder nowhere", "another file"),
        (["degradation", "--full", "--first-look"], "--full is the largest size", "one of them"),
        (["dropout", "a.png"], "what to do with a.png?", "--png a.png"),
        (["dropout", "--png", "a.pdf"], "a.pdf has no name for a picture", "PNG"),
        (["attention_cost", "--seed", "3"], "nothing is drawn in attention_cost", "leave --seed out"),
        (["initialization", "--set", "small=he"], "he says no sd", "gaussian:SD"),
        (["initialization", "--set", "orthogonal=hee"], "hee", "`he`"),
        (["attention_cost", "--set", "lengths=[16,16]"], "the lengths are all the same", "16,64"),
        (["attention_cost", "--set", "heads=3"], "3 heads cannot share a width of 256", "divisor"),
        (["padding_and_stride", "--set", "kernel=4"], "a kernel of 4 has no middle", "odd"),
        (["--full"], "--full is for an experiment", "lists them"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message, hint, capsys):
    assert main(["experiment", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert hint in told


def test_no_picture_is_written_over(tmp_path, capsys):
    picture = tmp_path / "mine.png"
    picture.write_bytes(b"precious")
    assert main(["experiment", "ensembles", str(picture), "--png", "--first-look"]) == 2
    assert f"{picture} exists" in capsys.readouterr().err
    assert picture.read_bytes() == b"precious"
