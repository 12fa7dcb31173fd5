"""Paths that Python's own functions raise for: locked folders on the way, names too long, links that go in circles."""

import errno
import os
from pathlib import Path

import pytest

from dlkit import data, durable, file_system
from dlkit.cli import main
from dlkit.errors import DataError, UsageError
from dlkit.train import evaluation_data

LONG = "a" * 300
NOBODY = "~nobody-of-this-name/photos"


@pytest.fixture
def loop(tmp_path):
    """A link to itself."""
    path = tmp_path / "loop"
    path.symlink_to(path)
    return path


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A path in a folder that may not be entered; for root that has to be played."""
    folder, stat = tmp_path / "locked", os.stat

    def refuse(path, *arguments, **options):
        if not isinstance(path, int) and folder in Path(os.fsdecode(path)).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    folder.mkdir()
    monkeypatch.setattr(os, "stat", refuse)
    return folder / "photos"


def test_what_is_there(tmp_path, loop):
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "link").symlink_to(tmp_path)
    asked = [tmp_path, tmp_path / "link", file, tmp_path / "none", file / "below", loop, LONG, "a\0b"]
    assert list(map(file_system.exists, asked)) == [True] * 3 + [False] * 5
    assert list(map(file_system.is_folder, asked)) == [True] * 2 + [False] * 6
    assert list(map(file_system.is_file, asked)) == [False] * 2 + [True] + [False] * 5
    assert file_system.real(tmp_path / "link" / "x") == tmp_path.resolve() / "x"
    assert file_system.real(loop) == loop.parent.resolve() / "loop"
    assert file_system.expanded("~/x") == Path.home() / "x"


def test_a_folder_that_may_not_be_entered(locked):
    for asks in (file_system.exists, file_system.is_folder, file_system.is_file, data.builder, data.paths):
        with pytest.raises(DataError, match=f"^cannot read {locked}: permission denied$") as failure:
            asks(str(locked))
        assert failure.value.hint == "`ls -l` says who may read it"


def test_two_names_are_compared_though_one_is_a_circle(loop):
    assert evaluation_data._is_same(str(loop), str(loop))
    assert not evaluation_data._is_same("digits", str(loop))


def test_what_is_written_to_a_circle_of_links_takes_its_place(loop):
    durable.write(loop, "text")
    assert loop.read_text() == "text"


@pytest.mark.parametrize("command", [("train", "mlp", "--data"), ("data", "check"), ("data", "show")], ids=" ".join)
def test_what_a_command_says_of_such_data(command, locked, loop, capsys):
    """Not 1, `(internal)`, nor the hint for places that are written to."""

    def said(name):
        code = main([*command, name])
        return code, *capsys.readouterr().err.splitlines()

    assert said(str(locked)) == (
        3, f"error: cannot read {locked}: permission denied", "hint: `ls -l` says who may read it"
    )  # fmt: skip
    code, error, *_ = said(str(loop))
    assert (code, error) == (3, f"error: no such folder: {loop}")
    code, error, *_ = said(LONG)
    assert (code, error) == (2, f"error: unknown dataset: {LONG}")
    assert said(NOBODY) == (
        2, f"error: no home folder is known of ~nobody-of-this-name: {NOBODY}", "hint: write the path in full"
    )  # fmt: skip


def test_a_word_of_any_length_is_no_model_and_no_recipe(capsys):
    assert main(["train", LONG, "--data", "digits"]) == 2
    assert capsys.readouterr().err.startswith(f"error: unknown model: {LONG}")
    assert main(["train", "--recipe", LONG]) == 2
    assert capsys.readouterr().err.startswith(f"error: unknown recipe: {LONG}")


def test_a_home_that_is_not_there_is_a_mistake_of_usage():
    with pytest.raises(UsageError, match="no home folder"):
        file_system.expanded(NOBODY)


def test_a_disk_that_fails_is_no_missing_folder(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(file_system.os, "stat", fail)
    with pytest.raises(DataError, match="Input/output error|input/output error") as caught:
        file_system.exists(tmp_path)
    assert str(tmp_path) in caught.value.message
