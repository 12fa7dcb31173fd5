"""`dlkit models` lists every model of the table, grouped by task."""

import json
import re

from dlkit import models
from dlkit.cli.models import about
from dlkit.tasks import TASKS


def test_every_model_is_listed_with_its_task(dlkit):
    result = dlkit("models")
    assert (result.code, result.err) == (0, "")
    header, *lines = result.out.splitlines()
    assert header.split() == ["model", "task", "about"]
    assert [line.split()[0] for line in lines] == models.names()
    assert re.match("resnet18  +image classification  ", lines[models.names().index("resnet18")])


def test_models_of_one_task_stand_together(dlkit, monkeypatch):
    extra = {"late": ("image_classification", "elsewhere.net:late"), "odd": ("odd_task", "elsewhere.net:odd")}
    table = models.targets() | extra
    monkeypatch.setattr(models, "targets", lambda: table)
    listed = json.loads(dlkit("models", "--json").out)
    tasks = [entry["task"] for entry in listed]
    assert tasks == sorted(tasks, key=[*TASKS, "odd_task"].index)
    assert {"name": "late", "task": "image_classification", "about": ""} in listed, "its module is not imported"
    assert listed[-1]["name"] == "odd"


def test_about_reads_docstrings_without_importing(tmp_path, monkeypatch):
    package = tmp_path / "nets.py"
    package.write_text(
        '"""Nets. Of all kinds."""\n\ndef one(): "The first net."\ndef two(): ...\n'
        'three = partial(one, 3)\n"""The third net.\n\nIt has a partial."""\nfour = partial(one, 4)\n'
        "raise RuntimeError\n"
    )
    monkeypatch.setattr("dlkit.source.find_spec", lambda name: type("Spec", (), {"origin": str(package)}))
    assert about("dlkit.nets:one") == "The first net"
    assert about("dlkit.nets:two") == "Nets. Of all kinds"
    assert about("dlkit.nets:gone") == "Nets. Of all kinds"
    assert about("dlkit.nets:three") == "The third net"
    assert about("dlkit.nets:four") == "Nets. Of all kinds"


def test_every_model_says_what_it_is(dlkit):
    said = {entry["name"]: entry["about"] for entry in json.loads(dlkit("models", "--json").out)}
    assert all(said.values())
    for one, other in (("text_rnn", "text_gru"), ("tagger_rnn", "tagger_gru"), ("rnn_lm", "gru_lm")):
        assert said[one] != said[other], "of one function, and each has words of its own"
