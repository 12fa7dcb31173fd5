"""A bundle: a run folder with no more than what using the run needs, small enough to be sent or shipped.

    DIR/
        recipe.toml       the run's
        run.json          without what only resuming and the record of the training need
        tokenizer.json    and other files of the task
        checkpoints/      one checkpoint: weights, in half precision by default, and the step; `best` points to it
        dlkit.json        says that it is an export

Wherever a run can stand, a bundle can; it cannot be resumed, having no state of an optimizer.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlkit import runs, runtime
from dlkit.errors import CheckpointError
from dlkit.export import place
from dlkit.train import checkpoints

if TYPE_CHECKING:
    import numpy as np

Storage = Literal["float16", "float32"]

# Of run.json: what makes up the run, and nothing of the machine or the process that trained it.
KEPT = (
    "format", "created", "recipe", "sources", "task", "data", "fingerprint", "model_arguments", "parameters",
    "versions", "result",
)  # fmt: skip


def write(text: str, folder: Path | None = None, *, storage: Storage = "float16") -> Path:
    """Writes a bundle of a run or a checkpoint; it appears whole or not at all.

    Args:
        text: `runs/x`, `runs/x@average`.
        folder: what the bundle is to be called; by default as `place.default` says. An earlier export is replaced.
        storage: the type of the floating-point weights in the file; the model computes in float32 in either case.

    Returns:
        The folder, which is a run.

    Raises:
        dlkit.errors.UsageError: something else than an export has the name.
        dlkit.errors.CheckpointError: a weight is too large for half precision, or the checkpoint is damaged.
        dlkit.errors.DlkitError: no such run, or the folder cannot be written.
    """
    run = runs.open_run(text)
    checkpoint = runs.find_checkpoint(run, runs.split_operand(text)[1])
    folder = folder or place.default(run, "bundle")
    place.check(folder)
    runtime.import_tensorflow()
    from dlkit.tasks.task import open_task

    group = "ema" if checkpoints.has(checkpoint, "ema") else "weights"
    arrays = {name: _stored(name, array, storage) for name, array in checkpoints.read(checkpoint, group).items()}
    step = int(checkpoints.read_state(checkpoint)["step"])
    info = {key: run.info[key] for key in KEPT if key in run.info}
    if info.get("result", {}).get("step") != step:
        info.pop("result", None)  # it is of another checkpoint
    info |= {"bundle_of": f"{run.name}@{checkpoint.name}", "precision": "float32"}
    task = open_task(run.task, run.recipe["data"], info=run.info["data"], folder=run.path)
    with place.filled(folder, run, checkpoint, storage=storage) as new:
        (new / "run.json").write_text(json.dumps(info, indent=1), encoding="utf-8")
        (new / "recipe.toml").write_bytes((run.path / "recipe.toml").read_bytes())
        task.save(new)
        name = checkpoints.name_of(step)
        (new / "checkpoints").mkdir()
        checkpoints.write(new / "checkpoints" / name, {"weights": arrays}, {"step": step})
        (new / "checkpoints" / "best").write_text(f"{name}\n", encoding="utf-8")
    return folder


def _stored(name: str, array: "np.ndarray", storage: Storage) -> "np.ndarray":
    import numpy as np

    if array.dtype.kind != "f":
        return array
    if storage == "float16" and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise CheckpointError(
            f"{name} holds values too large for half precision", "`--quantization float32` keeps them"
        )
    return array.astype(storage)
