"""The run folder: create, open, checkpoints, metrics; and the only place that rebuilds a model from one.

    runs/lenet_digits-1/
        recipe.toml      the resolved recipe, each line with where its value came from
        run.json         format version, command, versions, devices, data fingerprint and statistics, parameter count
        metrics.jsonl    append-only; a step that was trained twice stands twice, and readers keep the last line
        checkpoints/     step-N folders, and the pointers `best` and `last`

The folder appears with its first content in one step, and everything in it but `metrics.jsonl` is replaced in one
step, so a kill at any moment leaves either no run or one that resumes.
"""

import fcntl
import itertools
import json
import math
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import console, durable, file_system, models
from dlkit import data as datasets
from dlkit.errors import CheckpointError, DataError, DlkitError, UsageError, cannot_write, nearest
from dlkit.tasks import TASKS, Direction
from dlkit.train import checkpoints

if TYPE_CHECKING:
    import keras

    from dlkit.recipe import Recipe

FORMAT = 1
METRICS_SCHEMA = 1
DEFAULT_FOLDER = Path("runs")
SHIPPED_FOLDER = Path(__file__).parent / "shipped"
A_DAY = 24 * 3600.0

# What run.json holds in any case, and what it holds when the run can be resumed.
_REQUIRED = {"task": str, "data": dict, "model_arguments": dict}
_OPTIONAL = {
    "fingerprint": str, "attempt": int, "threads": int, "parameters": int, "sources": dict, "precision": str
}  # fmt: skip
_SECTIONS = ("model", "data", "train", "decode")

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
    def shown(self) -> str:
        """The folder in a command that can be pasted, in quotes where it needs them."""
        return shlex.quote(str(self.path))

    @property
    def task(self) -> str:
        """The task that the run was trained for."""
        return str(self.info["task"])

    @property
    def is_shipped(self) -> bool:
        """Whether the run comes with dlkit: it is for all, and never written to."""
        return self.path.resolve().parent == SHIPPED_FOLDER.resolve()

    @property
    def is_bundle(self) -> bool:
        """Whether this is what `dlkit.export.bundle` makes of a run: enough to use it, not to go on with it."""
        return "bundle_of" in self.info

    @property
    def precision(self) -> str:
        """In which precision the run's model computes: as in training, unless a bundle says another."""
        return str(self.info.get("precision") or self.recipe["train"]["precision"])

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints, oldest first."""
        return [checkpoints.name_of(step) for step in checkpoints.steps(self.path / "checkpoints")]

    def checkpoints_and_average(self) -> list[str]:
        """`checkpoints`, and what `average` has made of them."""
        return self.checkpoints() + [checkpoints.AVERAGE] * self.has_average

    def newest_checkpoints(self) -> list[str]:
        """Of `checkpoints` the newest `train.keep`: without the best where that is older and kept beside them."""
        return self.checkpoints()[-self.recipe["train"].get("keep", 0) :]  # all where the recipe does not say

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

    @property
    def has_average(self) -> bool:
        """Whether `average` has made a checkpoint of this run."""
        return (self.path / "checkpoints" / checkpoints.AVERAGE).is_dir()

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl in order, of each (kind, split, weights, step) the last one.

        A line that is cut by a kill, or is no record of a kind and a step, is left out.
        """
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().splitlines()
        except OSError:
            return []
        latest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not _is_record(record):
                continue
            key = (record["kind"], record.get("split"), record.get("weights"), record["step"])
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

    @property
    def monitor(self) -> tuple[str, Direction]:
        """The metric that chooses the best checkpoint, and which direction is better."""
        task = TASKS[self.task]
        named = self.recipe["train"].get("monitor")
        name = named if isinstance(named, str) and named in task.metrics else task.monitor
        return name, task.metrics[name]

    def monitored(self, name: str | None = None) -> dict[int, float]:
        """Step -> value of the monitored metric on the validation split, of the averaged weights when it keeps them.

        Args:
            name: another metric.
        """
        name = name or self.monitor[0]
        lines = [line for line in self.metrics() if line["kind"] == "evaluation" and line.get("split") == "validation"]
        averaged = [line for line in lines if line.get("weights") == "ema"]
        # While it trains, the line of the averaged weights may not be there yet: then the other has no say.
        chosen = averaged if averaged or _is_number(self.recipe["train"].get("ema")) else lines
        return {line["step"]: float(line[name]) for line in chosen if _is_number(line.get(name))}

    def update_info(self, **values: Any) -> "Run":
        """Writes `values` into run.json and returns the run with them."""
        info = {**self.info, **values}
        durable.write(self.path / "run.json", json.dumps(info, indent=1))
        return Run(self.path, self.recipe, info)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("step"), int)
        and all(isinstance(value.get(key), str | None) for key in ("split", "weights"))
    )


def create(
    folder: Path,
    recipe: "Recipe",
    info: Mapping[str, Any],
    *,
    name: str | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Run:
    """Makes a new run folder with what is known before training; it appears whole or not at all.

    Args:
        folder: where runs lie, such as `runs`.
        recipe: the resolved recipe; the run keeps absolute paths, so that it can be used from any folder.
        info: further content of run.json.
        name: the run's name; by default `<recipe>-<n>` with the first free n.
        prepare: writes further files, such as a tokenizer; called with the folder, which has a temporary name.

    Raises:
        dlkit.errors.UsageError: there is a run of that name, or it is no file name.
        dlkit.errors.DlkitError: the folder cannot be written.
    """
    recipe = anchored(recipe)
    created = datetime.now(UTC).isoformat()
    content = {"format": FORMAT, "created": created, "recipe": recipe.name, "sources": recipe.sources, **info}

    def fill(path: Path) -> None:
        (path / "checkpoints").mkdir()
        (path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        if prepare is not None:
            prepare(path)
        (path / "run.json").write_text(json.dumps(content, indent=1))

    if name is not None:
        check_name(folder, name)
    names = [name] if name is not None else (f"{stem(recipe.name)}-{number}" for number in itertools.count(1))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        durable.sweep(folder, older_than=A_DAY)
        path = durable.claim(folder, names, fill)
    except OSError as failure:
        if name is not None and isinstance(failure, FileExistsError) and folder.is_dir():
            raise _exists_already(folder / name) from None  # another process was faster
        raise cannot_write(folder, failure) from None
    return Run(path, recipe.to_dict(), content)


def anchored(recipe: "Recipe") -> "Recipe":
    """The recipe with its paths made absolute, so that it means the same in any folder."""
    data, initial = recipe.data, recipe.train.init_from
    files = {key: data.options[key] for key in ("validation_file", "test_file") if data.options.get(key)}
    options = data.options | {key: datasets.anchored(name) for key, name in files.items()}
    folder = data.dir and datasets.absolute(data.dir)
    data = data.model_copy(update={"name": datasets.anchored(data.name), "dir": folder, "options": options})
    if initial:
        path, checkpoint = split_operand(initial)
        initial = "@".join(filter(None, [str(path.absolute()), checkpoint]))
    return replace(recipe, data=data, train=recipe.train.model_copy(update={"init_from": initial}))


def check_data(run: Run) -> None:
    """Checks that the folder or the files that a run was trained on are still there.

    Raises:
        dlkit.errors.DataError: they are gone.
    """
    for path in datasets.paths(str(run.recipe["data"]["name"])):
        if not file_system.exists(file_system.expanded(path)):
            raise DataError(
                f"the data of {run.path} are gone: there is no {path}",
                f"put them back, or write their new place into {run.path / 'recipe.toml'} as data.name",
            )


def check_name(folder: Path, name: str) -> None:
    """Checks that a new run in `folder` may be called `name`.

    Raises:
        dlkit.errors.UsageError: it is no file name, or there is something of that name.
    """
    if not name or name.startswith(".") or _without_forbidden(name) != name or len(name.encode()) > 255:
        raise UsageError(f"not a name for a run: {name or '(empty)'}", "letters, digits, dots, dashes; no / and no @")
    path = folder / name
    if _exists(path) and not _is_empty(path):
        raise _exists_already(path)


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and next(path.iterdir(), None) is None
    except OSError:
        return False


def _exists_already(path: Path) -> UsageError:
    if (path / "run.json").exists():
        again = f"`--resume {shlex.quote(str(path))}`"
        return UsageError(f"run {path} exists", f"choose another --name, or go on with {again}")
    return UsageError(f"{path} exists and is no run", "choose another --name, or remove it")


def stem(name: str) -> str:
    """What runs of a recipe are called: `@` would read as a checkpoint, and a leading dot would hide the folder."""
    return _without_forbidden(name).lstrip(".") or "run"


def _without_forbidden(name: str) -> str:
    return "".join(
        "-" if character in "@/\\" or console.safe(character) != character else character for character in name
    )


def lock(run: Run) -> None:
    """Keeps other processes from training this run until this process ends, however it ends.

    Where the file system has no locks, it only warns.

    Raises:
        dlkit.errors.UsageError: another process trains it.
        dlkit.errors.DlkitError: the folder cannot be written.
    """
    if run.is_shipped:
        raise UsageError(
            f"{run.name} ships with dlkit and stays as it is",
            f"`--init-from {shlex.quote(run.name)}` begins a run of your own with it",
        )
    path = run.path.resolve()
    if path in _locks:
        return
    try:
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as failure:
        raise cannot_write(run.path, failure, full="free some space") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"run {run.path} is being trained by another process", "wait for it, or stop it") from None
    except OSError as failure:  # a file system without locks
        console.warn(f"{run.path} cannot be locked ({failure.strerror}): train it in one process at a time")
    _locks[path] = descriptor


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises for a name that is too long


def _find(text: str) -> Path | None:
    """The folder that is named by its path, or by its name in `runs` or among what ships; a run before what is none."""
    places = [Path(text), DEFAULT_FOLDER / text, SHIPPED_FOLDER / text]
    existing = [path for path in places if _exists(path)]
    return next((path for path in existing if _exists(path / "run.json")), existing[0] if existing else None)


def is_run(text: str) -> bool:
    """Whether an operand means a run or a checkpoint; the name of a model always means the model."""
    if text in models.targets():
        return False
    folders = (Path(), DEFAULT_FOLDER, SHIPPED_FOLDER)
    return "@" in text or "/" in text or any(_exists(folder / text / "run.json") for folder in folders)


def split_operand(text: str) -> tuple[Path, str | None]:
    """Divides `runs/x@best` into the folder and the checkpoint; the part from `@` on may be missing.

    What exists is never divided, so folders may have an `@` in their names.

    Raises:
        dlkit.errors.DataError: after the `@` of a run stands what cannot be a checkpoint.
    """
    whole = _find(text)
    if whole is not None:
        return whole, None
    folder, at, which = text.rpartition("@")
    if not at:
        return Path(text), None
    run = _find(folder)
    if re.fullmatch("best|last|average|step-[0-9]+", which):
        return run or Path(folder), which
    if run is not None and _exists(run / "run.json") and "/" not in which:
        raise _no_checkpoint(Run(run, {}, {}), which)
    return Path(text), None


def open_run(text: str | Path, *, whole: bool = False) -> Run:
    """Opens a run by its folder, or by its name when it lies in `runs`; a checkpoint after `@` is left aside.

    Args:
        text: `runs/x`, `x` or `runs/x@best`.
        whole: whether only a run will do: a checkpoint is refused.

    Raises:
        dlkit.errors.DataError: there is no run, or its files cannot be read.
        dlkit.errors.UsageError: a checkpoint is named where `whole` asks for a run.
    """
    path, checkpoint = split_operand(str(text))
    if whole and checkpoint is not None:
        hint = f"did you mean `{shlex.quote(str(path))}`?"
        raise UsageError(f"{text} is a checkpoint, and this is about whole runs", hint)
    if not (_exists(path) and path.is_dir()):
        others = [run.name for run in path.parent.glob("*")] if _exists(path.parent) else []
        match = nearest(path.name, others)
        hint = f"did you mean `{shlex.quote(str(path.parent / match))}`? " if match else ""
        raise DataError(f"no run {path}", hint + "`dlkit runs list` shows the runs")
    info = _read(path, "run.json", json.loads)
    _check(path, "run.json", info, {"format": int})
    if info["format"] > FORMAT:
        raise DataError(f"{path} was written by a newer dlkit (format {info['format']})", "upgrade dlkit to open it")
    _check(path, "run.json", info, _REQUIRED)
    _check(path, "run.json", info, {key: kind for key, kind in _OPTIONAL.items() if info.get(key) is not None})
    if info["task"] not in TASKS:
        raise _not_whole(path, "run.json", f"there is no task {info['task']}")
    recipe = _read(path, "recipe.toml", tomllib.loads)
    _check(path, "recipe.toml", recipe, dict.fromkeys(_SECTIONS, dict))
    for section in ("model", "data"):
        _check(path, "recipe.toml", recipe[section], {"name": str}, where=f"[{section}] ")
    of_training = {"seed": int, "precision": str} | ({"keep": int} if "keep" in recipe["train"] else {})
    _check(path, "recipe.toml", recipe["train"], of_training, where="[train] ")
    _check(path, "recipe.toml", recipe["decode"], {"max_len": int}, where="[decode] ")
    return Run(path, recipe, info)


def _read(run: Path, file: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse((run / file).read_text(encoding="utf-8"))
    except OSError as failure:
        raise _not_whole(run, file, (failure.strerror or str(failure)).lower()) from None
    except UnicodeDecodeError:
        raise _not_whole(run, file, "not a text in UTF-8") from None
    except (ValueError, RecursionError) as failure:
        raise _not_whole(run, file, str(failure)) from None


def _check(run: Path, file: str, content: Any, kinds: Mapping[str, type], where: str = "") -> None:
    """Checks that the dict `content` has the keys of `kinds`, each a value of its kind."""
    for key, kind in kinds.items():
        if not isinstance(content, dict) or key not in content:
            raise _not_whole(run, file, f"{where}{key} is missing")
        if not isinstance(content[key], kind) or isinstance(content[key], bool):
            raise _not_whole(run, file, f"{where}{key} is of the wrong type")


def _not_whole(run: Path, file: str, problem: str) -> DataError:
    return DataError(f"{run} is not a whole run folder: {file}: {problem}", "`dlkit runs list` shows the runs")


def list_runs(folder: Path = DEFAULT_FOLDER) -> list[Run]:
    """All runs of a folder, newest first; what is not a run is passed over."""
    found = []
    for path in folder.glob("[!.]*") if folder.is_dir() else []:
        try:
            found.append(open_run(path))
        except (DlkitError, OSError):
            continue
    return sorted(found, key=lambda run: str(run.info.get("created", "")), reverse=True)


def newest(task: str, folder: Path = DEFAULT_FOLDER) -> Run:
    """The run of `task` that was made last and has a checkpoint.

    Raises:
        dlkit.errors.DataError: there is none.
    """
    for run in list_runs(folder):
        if run.task == task and run.checkpoints():
            return run
    raise DataError(f"no trained run for {task.replace('_', ' ')} in {folder}", "train one, or name one with --model")


def shipped(task: str) -> Run | None:
    """The run of `task` that comes with dlkit, if one does."""
    return next((run for run in list_runs(SHIPPED_FOLDER) if run.task == task), None)


def remove(run: Run) -> None:
    """Deletes a run folder with all its checkpoints; of a link to one, the link.

    Raises:
        dlkit.errors.UsageError: another process trains it.
        dlkit.errors.DlkitError: it cannot be deleted.
    """
    lock(run)
    descriptor = _locks.pop(run.path.resolve())
    try:
        durable.remove(run.path)
    except OSError as failure:
        raise DlkitError(f"cannot delete {run.path}: {failure.strerror or failure}") from None
    finally:
        os.close(descriptor)


def find_checkpoint(run: Run, which: str | None = None) -> Path:
    """The folder of a checkpoint that is whole.

    Args:
        run: the run.
        which: `best`, `last`, `average` or `step-N`; None for the best, or the last when none is the best yet.

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
        made = existing if which != checkpoints.AVERAGE else [checkpoints.AVERAGE] * run.has_average
        name = which if which in made else None
    if name is None:
        raise _no_checkpoint(run, which)
    folder = run.path / "checkpoints"
    problem = checkpoints.damage(folder / name)
    if problem:
        if name == checkpoints.AVERAGE:
            anew = f"`dlkit average {run.shown}` makes it anew"
            raise CheckpointError(f"{folder / name} is damaged: {problem}", anew)
        whole = [other for other in reversed(existing) if other != name and not checkpoints.damage(folder / other)]
        hint = f"`{shlex.quote(f'{run.path}@{whole[0]}')}` is whole; " if whole else ""
        raise CheckpointError(
            f"checkpoint {folder / name} is damaged: {problem}",
            f"{hint}`dlkit train --resume {run.shown}` goes on from the last whole one",
        )
    return folder / name


def _no_checkpoint(run: Run, which: str | None) -> DataError:
    existing = run.checkpoints_and_average()
    known = ", ".join(["best", "last", *existing]) if existing else "none yet"
    hint = f"`dlkit average {run.shown}` makes it" if which == checkpoints.AVERAGE and existing else ""
    return DataError(f"{run.path} has no checkpoint {which or ''}".rstrip(), hint or f"its checkpoints: {known}")


def average(run: Run, last: int | None = None) -> tuple[Path, list[str]]:
    """Averages the weights of the newest checkpoints into one that is called `average`, and replaces an older one.

    A best checkpoint that a run keeps though it is older than the newest `train.keep` is not among them.

    Args:
        run: the run; it is locked, so it must not be in training.
        last: of how many checkpoints; None for all of the newest that the run keeps.

    Returns:
        The folder of the new checkpoint, and the names of those behind it, the oldest first.

    Raises:
        dlkit.errors.UsageError: the run does not keep so many, or is being trained.
        dlkit.errors.CheckpointError: one of them is damaged.
        dlkit.errors.DlkitError: the disk is full.
    """
    lock(run)
    newest = run.newest_checkpoints()
    if not newest:
        raise _no_checkpoint(run, None)
    if last is not None and last > len(newest):
        raise UsageError(
            f"{run.path} keeps its newest {len(newest)} checkpoints, and {last} are to be averaged",
            f"`--last {len(newest)}`; `--set train.keep={last}` keeps more in the next run",
        )
    names = newest[-(last or len(newest)) :]
    arrays = checkpoints.average([find_checkpoint(run, name) for name in names])
    path = run.path / "checkpoints" / checkpoints.AVERAGE
    state = {"step": checkpoints.step_of(names[-1]), "averaged": names}
    try:
        checkpoints.write(path, {"weights": arrays}, state)
    except OSError as failure:
        raise cannot_write(run.path, failure, full="free some space") from None
    return path, names


def best_whole(run: Run) -> Path:
    """The checkpoint that `best` points to; when that is damaged, with a warning the best of those that are whole.

    The best is the one with the best value of the monitored metric, of equals with the lowest loss; or the newest when
    none was evaluated or the recipe selects the last.

    Raises:
        dlkit.errors.CheckpointError: no checkpoint is whole.
    """
    folder = run.path / "checkpoints"
    best = run.pointer("best")
    problem = checkpoints.damage(folder / best) if best else "it is missing"
    if best and problem is None:
        return folder / best
    whole = [name for name in run.checkpoints() if name != best and not checkpoints.damage(folder / name)]
    if not whole:
        raise CheckpointError(f"{run.path} has no whole checkpoint", f"`dlkit train --resume {run.shown}` starts anew")
    values, losses, sign = run.monitored(), run.monitored("loss"), 1 if run.monitor[1] == "lower" else -1

    def rank(name: str) -> tuple[float, float]:
        step = checkpoints.step_of(name)
        return sign * values[step], losses.get(step, math.inf)

    evaluated = [name for name in whole if checkpoints.step_of(name) in values]
    by_value = evaluated and run.recipe["train"].get("select") != "last"
    name = min(evaluated, key=rank) if by_value else whole[-1]
    console.warn(f"the best checkpoint {folder / (best or 'best')} is damaged ({problem}): using {name}")
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


def _build(run: Run, precision: str | None = None) -> "keras.Model":
    from dlkit import runtime

    options = {key: value for key, value in run.recipe["model"].items() if key != "name"}
    runtime.import_tensorflow()
    with runtime.precision(precision or run.precision, pure=precision is not None):
        return models.build(str(run.recipe["model"]["name"]), **_tuples(run.info["model_arguments"]), **options)


def _tuples(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}


Weights = Literal["auto", "raw", "ema"]


def load_model(text: str | Path, *, weights: Weights = "auto", precision: str | None = None) -> "keras.Model":
    """Rebuilds the model of a run with the weights of a checkpoint.

    Args:
        text: `runs/x` (its best checkpoint), `runs/x@best`, `runs/x@last`, `runs/x@average` or `runs/x@step-1200`.
        weights: `raw` ones, their moving average `ema`, or `auto`: the average when the run keeps one.
        precision: what the model computes in, its weights rounded to it; None for what it was trained in.

    Raises:
        dlkit.errors.DlkitError: no such run or checkpoint, a damaged one, or one that does not fit the model.
    """
    from dlkit import runtime

    run = open_run(text)
    path = find_checkpoint(run, split_operand(str(text))[1])
    runtime.import_tensorflow()
    return load_checkpoint(run, path, weights=weights, precision=precision)[0]


def load_checkpoint(
    run: Run, path: Path, *, weights: Weights = "auto", precision: str | None = None
) -> "tuple[keras.Model, Weights]":
    """As `load_model`, for a checkpoint that `find_checkpoint` found; also says which weights were taken."""
    averaged = checkpoints.has(path, "ema")
    if weights == "ema" and not averaged:
        raise UsageError(f"{run.path} keeps no averaged weights", "train with `--ema 0.999`")
    taken: Weights = "ema" if averaged and weights != "raw" else "raw"
    model = _build(run, precision)
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
