"""The README says what is so."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from command_lines import check

from dlkit import cluster, errors, signals

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
        "train lenet --lr fast",
        "train resnet18 --data cifar10 --set data.cutout_sice=0.375",
        "train lenet --set model.pool=avarage",
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
