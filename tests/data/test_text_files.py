"""Files of text of all kinds: no reader takes more than the memory of the machine."""

import gzip

import pytest

from dlkit import data
from dlkit.data import text_files
from dlkit.errors import DataError

LINES = b"a\tb\n" * 250  # 1,000 bytes


@pytest.fixture(autouse=True)
def _memory_for_1000_bytes(monkeypatch):
    monkeypatch.setattr(text_files, "memory", lambda: text_files.BYTES_EACH * 1000)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("corpus", "x.txt"), ("pairs", "x.tsv"), ("labelled_texts", "x.tsv"), ("tagged_texts", "x.conll")],
)
def test_a_file_that_is_larger_than_the_memory_is_told(tmp_path, kind, name, packed):
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(LINES + b"c") if packed else LINES + b"c")
    with pytest.raises(DataError, match="is too large for the memory of this machine") as failure:
        data.load_kind(str(path), kind)
    assert failure.value.hint


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_fits_is_read(tmp_path, packed):
    path = tmp_path / ("x.txt" + ".gz" * packed)
    path.write_bytes(gzip.compress(LINES) if packed else LINES)
    assert text_files.read_text(path) == LINES.decode()


def test_where_the_system_tells_no_memory_everything_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "memory", lambda: None)
    (tmp_path / "x.txt").write_bytes(LINES * 10)
    assert text_files.read_content(tmp_path / "x.txt") == LINES * 10
