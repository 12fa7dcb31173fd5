import json

import numpy as np
import pytest

from dlkit.errors import CheckpointError
from dlkit.train import checkpoints

WEIGHTS = {"conv1/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "conv1/bias": np.ones(4, np.float32)}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "step-7"
    checkpoints.write(path, {"weights": WEIGHTS, "optimizer": {"m/conv1/bias": np.zeros(4)}}, {"step": 7, "best": 0.5})
    return path


def test_what_is_written_is_read(written):
    assert checkpoints.damage(written) is None
    read = checkpoints.read(written, "weights")
    assert read.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(read[name], array)
    assert checkpoints.read_state(written) == {"step": 7, "best": 0.5}
    assert checkpoints.has(written, "optimizer")
    assert not checkpoints.has(written, "ema")


def test_a_transposed_array_is_written_as_it_reads(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    checkpoints.write(tmp_path / "step-1", {"weights": {"w": array}}, {})
    np.testing.assert_array_equal(checkpoints.read(tmp_path / "step-1", "weights")["w"], [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_every_flipped_bit_is_noticed(written, file):
    content = bytearray((written / file).read_bytes())
    for position in {0, len(content) // 2, len(content) - 1}:
        flipped = content.copy()
        flipped[position] ^= 1
        (written / file).write_bytes(flipped)
        assert checkpoints.damage(written) == f"{file} does not match its checksum"


def test_a_truncated_a_missing_and_a_nameless_file_are_noticed(written):
    file = written / "weights.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-10])
    assert checkpoints.damage(written) == f"weights.safetensors has {size - 10} of {size} bytes"
    file.unlink()
    assert checkpoints.damage(written) == "weights.safetensors is missing"


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (None, "missing"),
        ("{", "not readable"),
        ("[]", "not readable"),
        ("{}", "incomplete"),
        ('{"a": 1}', "not readable"),
    ],
)
def test_a_broken_manifest_is_noticed(written, manifest, says):
    if manifest is None:
        (written / "manifest.json").unlink()
    else:
        (written / "manifest.json").write_text(manifest)
    assert says in checkpoints.damage(written)


def test_a_manifest_cannot_name_files_elsewhere(written):
    manifest = json.loads((written / "manifest.json").read_text())
    manifest["../../etc/passwd"] = {"bytes": 1, "sha256": "0"}
    (written / "manifest.json").write_text(json.dumps(manifest))
    assert "is missing" in checkpoints.damage(written)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"a": (2, 3)}, "b is missing"),
        ({"a": (2, 3), "b": (5,)}, "b is 5, not 4"),
        ({"a": (3, 2), "b": (5,)}, r"a is 3x2, not 2x3 \(1 more\)"),
        ({"a": (2, 3), "b": (4,), "c": ()}, "c is not part of it"),
    ],
)
def test_names_and_shapes_are_compared_one_by_one(found, says):
    arrays = {name: np.zeros(shape) for name, shape in found.items()}
    with pytest.raises(CheckpointError, match=says):
        checkpoints.check_names({"a": (2, 3), "b": (4,)}, arrays, what="weights", where="runs/x")
    fitting = {"a": np.zeros((2, 3)), "b": np.zeros(4)}
    checkpoints.check_names({"a": (2, 3), "b": (4,)}, fitting, what="weights", where="runs/x")


def test_steps_are_numbers_not_texts(tmp_path):
    for name in ["step-9", "step-10", "step-x", "other", ".step-11.1.tmp"]:
        (tmp_path / name).mkdir()
    (tmp_path / "step-12").write_text("a file")
    assert checkpoints.steps(tmp_path) == [9, 10]


def test_a_file_that_is_no_safetensors_is_refused(written):
    (written / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoints.read(written, "weights")
