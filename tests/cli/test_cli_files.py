"""Where pictures and pages go, and that no file of the user is written over."""

import errno
from pathlib import Path

import pytest

from dlkit import durable, runs
from dlkit.cli import files
from dlkit.errors import DlkitError, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder, and in it a run that may be written to."""
    (tmp_path / "runs" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


RUN = runs.Run(Path("runs/x"), {}, {})


def test_without_a_name_it_is_the_next_one_that_is_free():
    names = []
    for _ in range(3):
        names.append(str(files.new_file(None, "ensemble")))
        Path(names[-1]).write_bytes(b"mine")
    assert names == ["ensemble.png", "ensemble-2.png", "ensemble-3.png"]
    Path("ensemble-4.png").symlink_to("nowhere")
    assert str(files.new_file(None, "ensemble")) == "ensemble-5.png", "a link to nothing is a file, too"
    assert str(files.new_file(None, "ensemble", suffix=".html")) == "ensemble.html"


def test_a_name_that_is_taken_or_has_no_folder_is_refused():
    Path("mine.html").write_text("precious")
    with pytest.raises(UsageError, match=r"^mine\.html exists$") as caught:
        files.new_file(Path("mine.html"), "x", suffix=".html")
    assert caught.value.hint == "name another file after --html, or remove this one"
    with pytest.raises(UsageError, match=r"cannot write no/a\.png: there is no folder no$"):
        files.new_file(Path("no/a.png"), "x")
    assert files.new_file(Path("runs/a.png"), "x") == Path("runs/a.png")
    files.check_new(None, "--png")


def test_the_picture_in_the_run_is_the_one_that_is_made_anew(monkeypatch):
    own = Path("runs/x/filters.png")
    own.write_bytes(b"old")
    assert files.picture_path(RUN, "filters", None) == own
    assert files.picture_path(RUN, "filters", own.absolute()) == own.absolute(), "also by its name"
    with pytest.raises(UsageError, match="exists"):
        files.picture_path(RUN, "features", own)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a run that is only to be read
    assert files.picture_path(RUN, "filters", None) == Path("x_filters.png")
    Path("x_filters.png").touch()
    assert files.picture_path(RUN, "filters", None) == Path("x_filters-2.png")


def test_of_what_is_no_run_the_name_stands_before_that_of_the_picture():
    assert files.picture_path("lenet", "gradcam", None, suffix=".html") == Path("lenet_gradcam.html")
    assert files.picture_path(None, "curves", None) == Path("curves.png")
    Path("curves.png").touch()
    assert files.picture_path(None, "curves", None) == Path("curves-2.png")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space, or write elsewhere"),
        (errno.EDQUOT, "free some space, or write elsewhere"),
        (errno.EACCES, "choose a place that you may write to"),
    ],
)
def test_a_page_that_cannot_be_written_ends_with_what_helps(monkeypatch, number, hint):
    def fail(*_):
        raise OSError(number, "the reason")

    monkeypatch.setattr(durable, "write", fail)
    with pytest.raises(DlkitError) as caught:
        files.write_page("<p>", Path("a.html"))
    told = caught.value
    assert (told.code, told.message, told.hint) == (1, "cannot write to a.html: the reason", hint)
