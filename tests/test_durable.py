import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from dlkit import durable


def test_write_replaces_the_content(tmp_path):
    file = tmp_path / "recipe.toml"
    durable.write(file, "old")
    durable.write(file, "new")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["recipe.toml"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch, broken):
    file = tmp_path / "recipe.toml"
    durable.write(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full) if broken == "fsync" else monkeypatch.setattr(type(file), "replace", full)
    with pytest.raises(OSError, match="No space"):
        durable.write(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["recipe.toml"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, exists):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "file", tmp_path / "link"
    link.symlink_to(target)
    if exists:
        target.write_text("old")
    durable.write(link, "new")
    assert (link.readlink(), target.read_text()) == (target, "new")
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["file"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    """As a device is: nothing has to be renamed to it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text)
        with durable.stream(pipe) as file:
            file.write("for whoever reads")
        assert read.result(timeout=10) == "for whoever reads"
    assert pipe.is_fifo()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with durable.folder(tmp_path / "step-1") as temporary:
        (temporary / "weights").write_text("1")
        assert not (tmp_path / "step-1").exists()
    assert (tmp_path / "step-1" / "weights").read_text() == "1"

    with pytest.raises(RuntimeError), durable.folder(tmp_path / "step-2") as temporary:
        (temporary / "weights").write_text("2")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["step-1"]


def test_a_folder_replaces_one_that_is_there(tmp_path):
    for content in "12":
        with durable.folder(tmp_path / "step-1") as temporary:
            (temporary / content).write_text(content)
    assert os.listdir(tmp_path / "step-1") == ["2"]
    assert os.listdir(tmp_path) == ["step-1"]


def test_what_is_synced_before_the_rename(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    with durable.folder(tmp_path / "step-1") as temporary:
        (temporary / "weights").write_text("1")
    names = [path.removeprefix(f"{tmp_path}") for path in synced]
    assert names[0].endswith(".tmp/weights"), "the file's content"
    assert names[1].endswith(".tmp"), "the folder that names it"
    assert names[2] == "", "the folder in which the rename happened"


def test_sweep_removes_what_killed_writers_left(tmp_path):
    (tmp_path / ".step-3.123.tmp").mkdir()
    (tmp_path / ".step-3.123.tmp" / "weights").write_text("half")
    (tmp_path / ".last.123.tmp").write_text("half")
    (tmp_path / "step-2").mkdir()
    (tmp_path / ".link.tmp").symlink_to("step-2")
    durable.sweep(tmp_path, older_than=60)
    assert len(os.listdir(tmp_path)) == 4, "they may be another process's"
    os.utime(tmp_path / ".last.123.tmp", (1, 1))
    durable.sweep(tmp_path, older_than=60)
    assert sorted(os.listdir(tmp_path)) == [".link.tmp", ".step-3.123.tmp", "step-2"]
    durable.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["step-2"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = tmp_path / "step-1"
    with durable.folder(path) as temporary:
        (temporary / "weights").write_text("old")
    rename = type(path).rename

    def fails(self, target):
        if self.name.startswith(".step-1."):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", fails)
    with pytest.raises(OSError, match="Input/output"), durable.folder(path) as temporary:
        (temporary / "weights").write_text("new")
    assert (path / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["step-1"]


def test_a_claimed_folder_gets_the_first_free_name_with_its_content(tmp_path):
    seen = []

    def fill(path):
        (path / "content").write_text("new")
        seen.append(sorted(os.listdir(tmp_path)))

    (tmp_path / "a-1").mkdir()
    (tmp_path / "a-1" / "content").write_text("old")
    (tmp_path / "a-2").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a-3").symlink_to("elsewhere")
    assert durable.claim(tmp_path, ["a-1", "a-2", "a-3", "a-4"], fill) == tmp_path / "a-4"
    assert "a-4" not in seen[0], "the name comes after the content"
    assert (tmp_path / "a-4" / "content").read_text() == "new"
    assert (tmp_path / "a-1" / "content").read_text() == "old"
    with pytest.raises(FileExistsError):
        durable.claim(tmp_path, ["a-1"], fill)
    (tmp_path / "empty").mkdir()
    assert durable.claim(tmp_path, ["empty"], fill) == tmp_path / "empty"
    assert sorted(os.listdir(tmp_path)) == ["a-1", "a-2", "a-3", "a-4", "elsewhere", "empty"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_claim_that_fails_leaves_nothing(tmp_path, failure):
    def fill(path):
        (path / "content").write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        durable.claim(tmp_path, ["a-1"], fill)
    assert os.listdir(tmp_path) == []


def test_the_name_of_a_removed_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "content").touch()
    monkeypatch.setattr(shutil, "rmtree", lambda path: left.append((path.name, os.listdir(tmp_path))))
    left = []
    durable.remove(tmp_path / "run")
    assert left == [(left[0][0], [left[0][0]])]
    monkeypatch.undo()
    durable.sweep(tmp_path)
    assert os.listdir(tmp_path) == [], "a kill leaves what is swept away"
