"""The run folder: create, open, checkpoints, metrics; and the only place that rebuilds a model from one.

    runs/lenet_digits-1/
        recipe.toml      the resolved recipe, each line with where its value came from
        run.json         format version, command, versions, devices, data fingerprint and statistics, parameter count
        metrics.jsonl    append-only; a step that was trained twice stands twice, and readers keep the last line
        checkpoints/     step-N folders, and the pointers `best` and `last`

Everything but `metrics.jsonl` is replaced in one step, so a kill at any moment leaves a run that resumes.
"""

import fcntl
import json
import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import console, durable
from dlkit.errors import CheckpointError, DataError, DlkitError, UsageError, nearest
from dlkit.train import checkpoints

if TYPE_CHECKING:
    import keras

    from dlkit.recipe import Recipe

FORMAT = 1
METRICS_SCHEMA = 1
DEFAULT_FOLDER = Path("runs")
_locks: dict[Path, int] = {}  # file descriptors; the operating system drops a lock with its process


@dataclass(frozen=True)
class Run:
    """A run folder that exists.

    Args:
        path: the folder.
        recipe: the resolved recipe, section -> key -> value.
        info: the content of run.json.
    """

    path: Path
    recipe: dict[str, dict[str, Any]]
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def task(self) -> str:
        """The task that the run was trained for."""
        return str(self.info["task"])

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints, oldest first."""
        return [checkpoints.name_of(step) for step in checkpoints.steps(self.path / "checkpoints")]

    def pointer(self, name: str) -> str | None:
        """The checkpoint that `best` or `last` points to, or None when it points to none that exists."""
        try:
            target = (self.path / "checkpoints" / name).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return target if target in self.checkpoints() else None

    def point(self, name: str, checkpoint: str) -> None:
        """Makes `best` or `last` point to a checkpoint."""
        durable.write(self.path / "checkpoints" / name, checkpoint + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl in order, of each (kind, step) the last one; a line cut by a kill is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().splitlines()
        except OSError:
            return []
        latest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            key = (record.get("kind"), record.get("split"), record.get("weights"), record.get("step"))
            latest.pop(key, None)
            latest[key] = record
        return list(latest.values())

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl. Numbers that are not finite become null."""
        file = self.path / "metrics.jsonl"
        text = json.dumps(console.finite({"schema": METRICS_SCHEMA, **record}), allow_nan=False) + "\n"
        with file.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # an earlier process was killed in the middle of its line
                    text = "\n" + text
            stream.write(text.encode())

    def update_info(self, **values: Any) -> "Run":
        """Writes `values` into run.json and returns the run with them."""
        info = {**self.info, **values}
        durable.write(self.path / "run.json", json.dumps(info, indent=1))
        return Run(self.path, self.recipe, info)


def create(folder: Path, recipe: "Recipe", info: Mapping[str, Any], *, name: str | None = None) -> Run:
    """Claims a new run folder and writes what is known before training.

    Args:
        folder: where runs lie, such as `runs`.
        recipe: the resolved recipe.
        info: further content of run.json.
        name: the run's name; by default `<recipe>-<n>` with the first free n.

    Raises:
        dlkit.errors.UsageError: there is a run of that name, or it is no file name.
        dlkit.errors.DlkitError: the folder cannot be written.
    """
    if name is not None and (not name or name.startswith(".") or {"/", "\\", "@"} & set(name)):
        raise UsageError(f"not a name for a run: {name or '(empty)'}", "letters, digits, dots, dashes; no / and no @")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _claim(folder, recipe.name, name)
        (path / "checkpoints").mkdir()
        durable.write(path / "recipe.toml", recipe.to_toml())
        content = {"format": FORMAT, "recipe": recipe.name, "sources": recipe.sources, **info}
        durable.write(path / "run.json", json.dumps(content, indent=1))
    except OSError as failure:
        raise cannot_write(folder, failure) from None
    return Run(path, recipe.to_dict(), content)


def lock(run: Run) -> None:
    """Keeps other processes from training this run until this process ends, however it ends.

    Raises:
        dlkit.errors.UsageError: another process trains it.
    """
    path = run.path.resolve()
    if path in _locks:
        return
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(f"run {run.path} is being trained by another process", "wait for it, or stop it") from None
    _locks[path] = descriptor


def cannot_write(path: Path, failure: OSError) -> DlkitError:
    """The error for a folder that takes no more, whatever the reason."""
    reason = failure.strerror or str(failure)
    return DlkitError(f"cannot write to {path}: {reason}", "free some space, or choose another place with --runs-dir")


def _claim(folder: Path, stem: str, name: str | None) -> Path:
    # mkdir either makes the folder or fails: two processes never get the same run.
    if name is not None:
        try:
            (folder / name).mkdir()
        except FileExistsError:
            raise UsageError(
                f"run {folder / name} exists", f"choose another --name, or go on with `--resume {folder / name}`"
            ) from None
        return folder / name
    number = 1
    while True:
        path = folder / f"{stem}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def is_run(text: str) -> bool:
    """Whether an operand means a run or a checkpoint rather than the name of a model."""
    path = Path(text.rpartition("@")[0] or text)
    return "@" in text or "/" in text or (path / "run.json").exists() or (DEFAULT_FOLDER / path / "run.json").exists()


def split_operand(text: str) -> tuple[Path, str | None]:
    """Divides `runs/x@best` into the folder and the checkpoint; the part from `@` on may be missing."""
    path, at, which = text.rpartition("@")
    folder, checkpoint = (path, which) if at else (text, None)
    found = Path(folder)
    if not found.exists() and (DEFAULT_FOLDER / found).exists():
        found = DEFAULT_FOLDER / found
    return found, checkpoint


def open_run(text: str | Path) -> Run:
    """Opens a run by its folder, or by its name when it lies in `runs`; a checkpoint after `@` is left aside.

    Raises:
        dlkit.errors.DataError: there is no run, or its files cannot be read.
    """
    path, _ = split_operand(str(text))
    if not path.is_dir():
        others = [run.name for run in path.parent.glob("*")] if path.parent.is_dir() else []
        match = nearest(path.name, others)
        hint = f"did you mean `{path.parent / match}`? " if match else ""
        raise DataError(f"no run {path}", hint + "`dlkit runs list` shows the runs")
    try:
        info = json.loads((path / "run.json").read_bytes())
        recipe = tomllib.loads((path / "recipe.toml").read_text())
        version = int(info["format"])
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise DataError(f"{path} is not a whole run folder: {failure}", "`dlkit runs list` shows the runs") from None
    if version > FORMAT:
        raise DataError(f"{path} was written by a newer dlkit (format {version})", "upgrade dlkit to open it")
    return Run(path, recipe, info)


def list_runs(folder: Path = DEFAULT_FOLDER) -> list[Run]:
    """All runs of a folder, newest first; what is not a run is passed over."""
    found = []
    for path in folder.glob("*") if folder.is_dir() else []:
        try:
            found.append(open_run(path))
        except DlkitError:
            continue
    return sorted(found, key=lambda run: (run.path / "run.json").stat().st_mtime, reverse=True)


def newest(task: str, folder: Path = DEFAULT_FOLDER) -> Run:
    """The run of `task` that was written to last and has a checkpoint.

    Raises:
        dlkit.errors.DataError: there is none.
    """
    for run in list_runs(folder):
        if run.task == task and run.checkpoints():
            return run
    raise DataError(f"no trained run for {task.replace('_', ' ')} in {folder}", "train one, or name one with --model")


def remove(run: Run) -> None:
    """Deletes a run folder with all its checkpoints."""
    shutil.rmtree(run.path)


def find_checkpoint(run: Run, which: str | None = None) -> Path:
    """The folder of a checkpoint that is whole.

    Args:
        run: the run.
        which: `best`, `last` or `step-N`; None for the best, or the last when none is the best yet.

    Raises:
        dlkit.errors.DataError: the run has no such checkpoint.
        dlkit.errors.CheckpointError: it is damaged; the hint names one that is whole.
    """
    existing = run.checkpoints()
    if which in {None, "best", "last"}:
        name = run.pointer(which or "best") or (run.pointer("last") if which is None else None)
        if name is None and existing and which != "best":
            name = existing[-1]
    else:
        name = which if which in existing else None
    if name is None:
        known = ", ".join(["best", "last", *existing]) if existing else "none yet"
        raise DataError(f"{run.path} has no checkpoint {which or ''}".rstrip(), f"its checkpoints: {known}")
    folder = run.path / "checkpoints"
    problem = checkpoints.damage(folder / name)
    if problem:
        whole = [other for other in reversed(existing) if other != name and not checkpoints.damage(folder / other)]
        hint = f"`{run.path}@{whole[0]}` is whole; " if whole else ""
        raise CheckpointError(
            f"checkpoint {folder / name} is damaged: {problem}",
            f"{hint}`dlkit train --resume {run.path}` goes on from the last whole one",
        )
    return folder / name


def newest_whole(run: Run) -> Path | None:
    """The newest checkpoint that is whole, with a warning for each newer one that is damaged; None without any."""
    folder = run.path / "checkpoints"
    for name in reversed(run.checkpoints()):
        problem = checkpoints.damage(folder / name)
        if problem is None:
            return folder / name
        console.warn(f"checkpoint {folder / name} is damaged ({problem}): using the one before it")
    return None


def build_model(text: str | Path) -> "keras.Model":
    """Builds the architecture of a run with fresh weights."""
    run = open_run(text)
    return _build(run)


def _build(run: Run) -> "keras.Model":
    from dlkit import models

    options = {key: value for key, value in run.recipe["model"].items() if key != "name"}
    return models.build(str(run.recipe["model"]["name"]), **_tuples(run.info["model_arguments"]), **options)


def _tuples(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}


Weights = Literal["auto", "raw", "ema"]


def load_model(text: str | Path, *, weights: Weights = "auto") -> "keras.Model":
    """Rebuilds the model of a run with the weights of a checkpoint.

    Args:
        text: `runs/x` (its best checkpoint), `runs/x@best`, `runs/x@last` or `runs/x@step-1200`.
        weights: `raw` ones, their moving average `ema`, or `auto`: the average when the run keeps one.

    Raises:
        dlkit.errors.DlkitError: no such run or checkpoint, a damaged one, or one that does not fit the model.
    """
    from dlkit import runtime

    run = open_run(text)
    path = find_checkpoint(run, split_operand(str(text))[1])
    runtime.import_tensorflow()
    return load_checkpoint(run, path, weights=weights)[0]


def load_checkpoint(run: Run, path: Path, *, weights: Weights = "auto") -> "tuple[keras.Model, Weights]":
    """As `load_model`, for a checkpoint that `find_checkpoint` found; also says which weights were taken."""
    averaged = checkpoints.has(path, "ema")
    if weights == "ema" and not averaged:
        raise UsageError(f"{run.path} keeps no averaged weights", "train with `--ema 0.999`")
    taken: Weights = "ema" if averaged and weights != "raw" else "raw"
    model = _build(run)
    load_weights(model, checkpoints.read(path, "ema" if taken == "ema" else "weights"), where=str(path))
    return model, taken


def named_variables(model: "keras.Model") -> "dict[str, keras.Variable]":
    """The variables of a model by path, trainable ones and statistics, in the order of the model."""
    named: dict[str, keras.Variable] = {}
    for variable in model.weights:
        if variable.path in named:
            raise DlkitError(f"model {model.name} has two variables named {variable.path}", "name every layer")
        named[variable.path] = variable
    return named


def load_weights(model: "keras.Model", arrays: checkpoints.Arrays, *, where: str) -> None:
    """Assigns the arrays of a checkpoint to a model, after checking every name and shape.

    Raises:
        dlkit.errors.CheckpointError: they do not fit; the model is unchanged.
    """
    variables = named_variables(model)
    checkpoints.check_names(
        {name: tuple(variable.shape) for name, variable in variables.items()}, arrays, what="weights", where=where
    )
    for name, variable in variables.items():
        variable.assign(arrays[name])
