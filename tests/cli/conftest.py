"""What the tests of commands share."""

import json
import os
from typing import NamedTuple

import pytest

from dlkit import cli


class Result(NamedTuple):
    """What one command line gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def dlkit(capsys, monkeypatch, tmp_path):
    """Runs a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert "_DLKIT_COMPLETE" not in os.environ

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(arguments)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def evaluate(capsys):
    """`dlkit evaluate` with these arguments: exit code, stdout, stderr."""

    def run(*arguments):
        code = cli.main(["evaluate", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def as_json(evaluate):
    """What it says as JSON, when it has nothing to complain of."""

    def run(*arguments):
        code, out, error = evaluate(*arguments, "--json", "-q")
        assert (code, error) == (0, "")
        return json.loads(out)

    return run
