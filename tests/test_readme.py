"""The README says what is so."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dlkit import cluster, errors, models, recipe, signals
from dlkit.cli import app
from dlkit.experiments import EXPERIMENTS, options_of
from dlkit.probe.views import VIEWS
from dlkit.train.search import keys, space
from dlkit.values import parameters_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands():
    """Every dlkit command of the README's shell blocks and scripts."""
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            for part in re.split(r"&&|;|\|", line.partition(" #")[0]):
                if match := re.match(r"\s*(?:exec )?\S*dlkit (.*)", part):
                    yield shlex.split(match[1])


def test_the_two_commands_come_first():
    first, second = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[:2]
    assert first.startswith("python3 -m venv ")
    assert first.strip().endswith("dlkit train lenet")
    assert ".venv/bin/pytest" in second


def test_ci_runs_the_test_command_of_the_readme():
    assert "<!-- tests -->" in README
    script = (ROOT / ".ci" / "run").read_text()
    assert "/^<!-- tests -->$/" in script
    assert "$test_command" in script


def test_the_commands_of_scripts_are_among_them():
    assert ["train", "--resume", "$run", "--data-dir", "/shared/data"] in list(commands())


def test_the_pods_of_kubernetes_start_the_script_of_the_page_with_variables_that_are_read():
    (page,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (command,) = re.findall(r"^ +command: \[(.*)\]$", page, re.MULTILINE)
    assert command.split(", ") == ["bash", "/shared/train.sh"]
    assert "```bash\n#!/bin/bash\n# /shared/train.sh\n" in README
    assert "mountPath: /shared}" in page
    assert dict(re.findall(r'{name: (\w+), value: "(.*?)"}', page)) == {cluster.TIMEOUT: "600"}


def test_how_long_a_worker_is_waited_for(monkeypatch):
    monkeypatch.delenv(cluster.TIMEOUT, raising=False)
    sentence = f"`{cluster.TIMEOUT}=600` waits for ten minutes instead of {cluster.timeout()} seconds."
    assert sentence in " ".join(README.split())


def parsed(words):
    """The name of a command and what its parameters are given, as the command line reads them; nothing runs."""
    command, names = typer.main.get_command(app), []
    while hasattr(command, "commands"):
        name, *words = words
        names.append(name)
        command = command.commands[name]
    return " ".join(names), command.make_context(names[-1], words).params


def check(words):
    """Fails where there is no such command or option, or no such view, experiment, model or key."""
    verb, given = parsed(words)
    sets = [text.partition("=")[::2] for text in given.get("sets") or ()]
    match verb:
        case "experiment":
            assert given["name"] in EXPERIMENTS
            assert {key for key, _ in sets} <= set(options_of(given["name"]))
        case "summarize":
            assert set(given["model"]) <= set(models.names())
        case "inspect":
            assert given["what"] in VIEWS
            check_recipe(given, sets, also="transformer_tatoeba")
        case "train" | "ensemble":
            check_recipe(given, sets)
        case "search" if given["operands"]:
            model, *spaces = given["operands"]
            keys.check(space.parse(spaces), lambda values: recipe.resolve(model, overrides=sources(values.items())))


def check_recipe(given, sets, *, also=None):
    """A model that is no run has a recipe with the data and the keys that are set."""
    model = given["model"]
    if model not in {None, also} and not model.startswith("runs/"):
        recipe.resolve(model, given["data"], recipe_path=given.get("recipe"), overrides=sources(sets))
        of_model = {key.removeprefix("model.") for key, _ in sets if key.startswith("model.")}
        assert not of_model or of_model <= set(parameters_of(models.builder(model)))


def sources(pairs):
    return [(key, text, "set") for key, text in pairs]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_one_with_its_options_and_the_names_in_it(words):
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "inspect lenet gradcams",
        "inspect plain56 jacobian --set model.initial=he",
        "ensemble lenet --by bootstrop",
        "export runs/a --to ctranslate",
        "experiment ensembles --set member=3",
        "experiment ensemble",
        "train lenet --epoch 3",
        "search lenet train.rate=log:1e-4..1e-1",
        "summarize lenett",
    ],
)
def test_a_name_that_is_none_would_be_seen(line):
    with pytest.raises((AssertionError, errors.UsageError, typer.TyperException)):
        check(shlex.split(line))


def test_the_table_of_exit_codes():
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    for error, words in [
        (errors.DlkitError, "failed"),
        (errors.UsageError, "usage"),
        (errors.DataError, "data"),
        (errors.CheckpointError, "checkpoint"),
        (errors.DivergedError, "diverged"),
    ]:
        assert words in table[str(error.code)]
    (row,) = re.findall(r"^\| (\d+(?:, \d+)+) \| (.*) \|$", README, re.MULTILINE)
    assert [int(code) for code in row[0].split(", ")] == sorted(128 + number for number in signals.STOP)
    assert row[1].startswith("interrupted")
