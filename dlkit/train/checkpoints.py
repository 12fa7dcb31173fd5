"""Checkpoints: one folder of safetensors files, a state and a manifest of checksums. Knows nothing of models.

    step-1200/                  or `average`, which has weights and a state only
        weights.safetensors     every variable of the model, by path
        optimizer.safetensors   its slots, `<slot>/<path>`
        ema.safetensors         averaged weights, when the run keeps them
        state.json              step, epoch, position in the epoch, what early stopping and plateau remember
        manifest.json           size and sha256 of each file above, written last

safetensors holds plain arrays: nothing in a checkpoint can run code.
"""

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import durable
from dlkit.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray"]

AVERAGE = "average"


def name_of(step: int) -> str:
    """The folder name of the checkpoint after `step` updates."""
    return f"step-{step}"


def step_of(name: str) -> int:
    """The number of updates behind the folder name of a checkpoint."""
    return int(name.removeprefix("step-"))


def steps(folder: Path) -> list[int]:
    """The steps of all checkpoints in `folder`, oldest first; damaged ones included."""
    found = [path.name for path in folder.glob("step-*") if path.is_dir()]
    return sorted(step_of(name) for name in found if re.fullmatch(r"step-[0-9]+", name))


def write(path: Path, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint folder in one step: after a kill it is either there and whole, or not there.

    Args:
        path: `.../checkpoints/step-N`.
        groups: "weights", "optimizer", "ema" -> arrays by name.
        state: JSON values.

    Raises:
        OSError: the disk is full, say; checkpoints that were there are untouched.
    """
    from safetensors.numpy import save

    with durable.folder(path) as temporary:
        manifest = {}

        def write_file(file: str, content: bytes) -> None:
            (temporary / file).write_bytes(content)
            manifest[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

        for group, arrays in groups.items():  # one after another: serialized, each takes its memory once more
            write_file(f"{group}.safetensors", save(_contiguous(arrays)))
        write_file("state.json", json.dumps(state, indent=1).encode())
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _contiguous(arrays: Arrays) -> "dict[str, np.ndarray]":
    import numpy as np

    # safetensors writes the buffer as it lies: a transposed view would be saved scrambled.
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def damage(path: Path) -> str | None:
    """Says what is wrong with the checkpoint at `path`, or None when every file matches its checksum."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files = {str(file): (int(entry["bytes"]), str(entry["sha256"])) for file, entry in manifest.items()}
    except OSError:
        return "manifest.json is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return "manifest.json is not readable"
    if not {"weights.safetensors", "state.json"} <= set(files):
        return "manifest.json is incomplete"
    for file, (size, digest) in files.items():
        try:
            with (path / Path(file).name).open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError:
            return f"{file} is missing"
        if found != digest:
            actual = (path / Path(file).name).stat().st_size
            return f"{file} " + (f"has {actual} of {size} bytes" if actual != size else "does not match its checksum")
    return None


def read(path: Path, group: str) -> "dict[str, np.ndarray]":
    """Reads one group of arrays of a checkpoint that `damage` found whole.

    Raises:
        dlkit.errors.CheckpointError: there is no such group, or the file is not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = path / f"{group}.safetensors"
    try:
        return load_file(file)
    except (OSError, SafetensorError, struct.error, ValueError) as failure:
        raise CheckpointError(f"cannot read {file}: {failure}") from None


def average(paths: Sequence[Path]) -> "dict[str, np.ndarray]":
    """The mean of the weights of several checkpoints, summed in float64 (Vaswani et al. 2017, section 6.1).

    Args:
        paths: checkpoints of one run that `damage` found whole, at least one.

    Raises:
        dlkit.errors.CheckpointError: one cannot be read, or has other weights than the first.
    """
    import numpy as np

    sums: dict[str, np.ndarray] = {}
    kinds: dict[str, np.dtype] = {}
    for path in paths:
        arrays = read(path, "weights")
        if not sums:
            kinds = {name: array.dtype for name, array in arrays.items()}
            sums = {name: np.zeros(array.shape, np.float64) for name, array in arrays.items()}
        check_names({name: each.shape for name, each in sums.items()}, arrays, what="weights", where=str(path))
        for name, array in arrays.items():
            sums[name] += array
    return {name: (each / len(paths)).astype(kinds[name]) for name, each in sums.items()}


def has(path: Path, group: str) -> bool:
    """Whether the checkpoint keeps `group`, such as "ema"."""
    return (path / f"{group}.safetensors").is_file()


def read_state(path: Path) -> dict[str, Any]:
    """Reads the state of a checkpoint that `damage` found whole.

    Raises:
        dlkit.errors.CheckpointError: it is not what `write` writes.
    """
    try:
        state = json.loads((path / "state.json").read_bytes())
    except (OSError, ValueError) as failure:
        raise CheckpointError(f"cannot read {path / 'state.json'}: {failure}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path / 'state.json'} is no state of a run")
    return state


def check_names(expected: Mapping[str, tuple[int, ...]], found: Arrays, *, what: str, where: str) -> None:
    """Compares the arrays of a checkpoint with what the model needs, key by key and shape by shape.

    Args:
        expected: shape by name.
        found: arrays by name.
        what: for the message, such as "weights" or "optimizer state".
        where: the checkpoint, for the message.

    Raises:
        dlkit.errors.CheckpointError: one is missing, left over, or of another shape; the message names the first.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    shaped = [name for name, shape in expected.items() if name in found and tuple(found[name].shape) != tuple(shape)]
    if not (missing or extra or shaped):
        return
    if missing:
        first = f"{missing[0]} is missing"
    elif shaped:
        first = f"{shaped[0]} is {_by(found[shaped[0]].shape)}, not {_by(expected[shaped[0]])}"
    else:
        first = f"{extra[0]} is not part of it"
    others = len(missing) + len(extra) + len(shaped) - 1
    raise CheckpointError(
        f"the {what} in {where} does not fit the model: {first}" + (f" ({others} more)" if others else ""),
        "it was written by another model; `dlkit runs show` names it, `--init-from` takes over what fits",
    )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "a scalar"
