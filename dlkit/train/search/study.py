"""A search on the disk: its folder, its storage, which several processes share, and the results in it.

    runs/lenet_digits-search-1/
        search.json      what was asked for
        recipe.toml      what all trials have in common
        journal.log      Optuna's journal of the trials, unless `--storage` names another
        trial-0/         a run, as `dlkit train` makes it; beside it trial-0.log, what it said
        trials.csv       the results

Who works on a trial holds a lock on `.trial-0.lock`, and so does the process that trains it: it is free when both are
gone, however they ended, and then others take the trial up.
"""

import fcntl
import hashlib
import itertools
import json
import os
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from dlkit import console, durable, file_system
from dlkit.errors import DataError, DlkitError, UsageError, cannot_write
from dlkit.runs import check_name
from dlkit.tasks import Direction
from dlkit.train.search.space import Space, Value

FORMAT = 1
JOURNAL = "journal.log"
ONE_STUDY = "search"  # its name in a storage, unless --name gives one

Sampler = Literal["random", "grid", "tpe"]
Pruner = Literal["median", "halving", "none"]
State = Literal["running", "complete", "pruned", "failed"]
STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running", TrialState.WAITING: "running", TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a search was asked for; the same for all processes that work on it.

    Args:
        spaces: what the keys may be.
        trials: how many in all, over all processes and rounds.
        sampler: how values are chosen.
        prune: which trials are stopped early.
        first_look: evaluations on the validation split before a trial may be stopped.
        refine: finer rounds after the coarse one; the trials are shared out evenly.
        seed: of the values that are drawn.
        metric: what trials are compared by, on the validation split.
        direction: which values of it are better.
        recipe: what all trials have in common, as TOML.
        command: of `dlkit train`, what the user wrote that is not searched, without what makes trials short.
        key: tells this search from others; processes that begin the same at the same moment have the same.
    """

    spaces: tuple[Space, ...]
    trials: int
    sampler: Sampler = "random"
    prune: Pruner = "median"
    first_look: int = 1
    refine: int = 0
    seed: int = 0
    metric: str = "loss"
    direction: Direction = "lower"
    recipe: str = ""
    command: tuple[str, ...] = ()
    key: str = ""

    @property
    def sign(self) -> float:
        """What makes a loss of a score: 1 where lower is better, else -1."""
        return 1.0 if self.direction == "lower" else -1.0

    def round_of(self, place: int) -> int:
        """The round of a trial: 0 is the coarse one; those that do not divide evenly are of the last."""
        return min(place // max(1, self.trials // (self.refine + 1)), self.refine)

    def begin_of(self, number: int) -> int:
        """The place of the first trial of a round."""
        return number * max(1, self.trials // (self.refine + 1))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Plan":
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: it is none.
        """
        spaces = tuple(space_of(each) for each in content["spaces"])
        return cls(**{**content, "spaces": spaces, "command": tuple(content["command"])})


def space_of(content: Mapping[str, Any]) -> Space:
    """A space that was stored as JSON."""
    return Space(**{**content, "choices": tuple(content["choices"])})


@dataclass(frozen=True)
class Result:
    """A trial, as far as it has come.

    Args:
        number: names its run, `trial-<number>`.
        round: of `--refine`, from 0.
        state: "running" also when nobody works on it and it waits to be taken up.
        values: key -> value, of those keys that something reads.
        score: the best value of the metric on the validation split so far.
        evaluations: how often it was measured.
        reason: in one line why it failed.
        run: the folder of its run.
        figures: what else was measured, see `dlkit.train.search.effects`.
    """

    number: int
    round: int
    state: State
    values: dict[str, Value]
    score: float | None
    evaluations: int
    reason: str
    run: str
    figures: dict[str, float]


# ------------------------------------------------------------------------------------------------------------- results


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a search, without those that two processes began at once beyond its number."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get("surplus")]


def result_of(trial: FrozenTrial, plan: Plan, home: Path | None = None) -> Result:
    """What is known of one trial; its run is looked for in `home`, too, where the folder has been moved."""
    folder = folder_of(trial, home) or Path()
    seen = list(trial.intermediate_values.values())
    best = min(seen, key=lambda value: plan.sign * value, default=None)
    return Result(
        number=trial.number, round=plan.round_of(trial.user_attrs.get("place", trial.number)),
        state=STATES[trial.state], values=dict(trial.params), score=best if best is not None else _value(trial),
        evaluations=len(seen), reason=str(trial.user_attrs.get("reason", "")),
        run=str(run_path(folder, trial.number)),
        figures=dict(trial.user_attrs.get("figures", {})),
    )  # fmt: skip


def _value(trial: FrozenTrial) -> float | None:
    return trial.value if trial.state in {TrialState.COMPLETE, TrialState.PRUNED} else None


def folder_of(trial: FrozenTrial, home: Path | None = None) -> Path | None:
    """The folder that a trial lies in, which may have been moved to `home`; None as long as it has none."""
    told = trial.user_attrs.get("folder")
    if home is not None and told is not None and not Path(told).is_dir() and has_trial(home, trial.number):
        return home
    return None if told is None else Path(told)


def results(study: optuna.Study, plan: Plan, home: Path | None = None) -> list[Result]:
    """All trials in order."""
    return [result_of(trial, plan, home) for trial in trials_of(study)]


def best_of(found: Sequence[Result], plan: Plan) -> Result | None:
    """The best trial that was trained to its end; before there is one, None."""
    complete = [each for each in found if each.state == "complete" and each.score is not None]
    return min(complete, key=lambda each: plan.sign * (each.score or 0.0), default=None)


# ---------------------------------------------------------------------------------------------------------- the folder


def run_path(folder: Path, number: int) -> Path:
    """Where the run of a trial lies."""
    return folder / f"trial-{number}"


def _lock_of(folder: Path, number: int) -> Path:
    return folder / f".trial-{number}.lock"


def has_trial(folder: Path, number: int) -> bool:
    """Whether a trial lies in this folder here: another machine may have a folder of the same path.

    Who begins a trial takes its lock before telling others of the folder, and the lock's file stays.
    """
    return _lock_of(folder, number).exists()


def claim(folder: Path, number: int) -> int | None:
    """Takes a trial, unless another process, or one that it started, has it; the lock ends with its descriptor.

    Where the file system has no locks, it warns, once, and takes every trial.

    Returns:
        A file descriptor, to be handed on to the process that trains, or None.
    """
    descriptor = os.open(_lock_of(folder, number), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as failure:  # a file system without locks
        _warn_of_no_locks(folder, str(failure.strerror))
    return descriptor


@cache
def _warn_of_no_locks(folder: Path, reason: str) -> None:
    console.warn(f"{folder} has no locks ({reason}): two processes that search here would train the same trials")


def open_search(folder: Path, storage: str | None = None, *, trials: int | None = None) -> tuple[optuna.Study, Plan]:
    """Opens a search by its folder.

    Args:
        folder: of the search.
        storage: where its trials are, when the folder does not say because there is a password in it.
        trials: another number of trials in all, which is then kept.

    Raises:
        dlkit.errors.DataError: it is no search, or its storage is gone.
        dlkit.errors.UsageError: the number of trials cannot change.
    """
    file = folder / "search.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] > FORMAT:
            raise DataError(f"{folder} was written by a newer dlkit (format {content['format']})", "upgrade dlkit")
        plan = Plan.from_dict(content["plan"])
        kept, name = str(content["storage"]), str(content["study"])
    except OSError as failure:
        reason = str(failure.strerror).lower()
        raise DataError(
            f"no search {folder}: {file.name}: {reason}", "`dlkit search` names the folder that it makes"
        ) from None
    except (ValueError, KeyError, TypeError) as failure:
        raise DataError(f"{file} is damaged: {failure}", "begin the search anew") from None
    if "***" in kept and not storage:
        raise UsageError(f"{folder} does not keep the password of its storage", f"add `--storage {kept}` with it")
    place = storage or (str(folder / JOURNAL) if kept == JOURNAL else kept)
    if kept == JOURNAL and storage:
        raise UsageError(f"{folder} has its own journal", "leave --storage out")
    if not _is_url(place) and not file_system.exists(place):
        raise DataError(
            f"the journal of {folder} is gone: there is no {place}", "put it back, or begin the search anew"
        )
    if trials is not None and trials != plan.trials:
        plan = _of_more_trials(plan, trials)
        durable.write(file, json.dumps({**content, "plan": plan.to_dict()}, indent=1))
    study = _study(place, name, plan)
    if study.user_attrs.get("plan", {}).get("key") != plan.key:
        raise DataError(f"{place} does not hold the search of {folder}", "begin the search anew")
    return study, plan


def _of_more_trials(plan: Plan, trials: int) -> Plan:
    if plan.refine or plan.sampler == "grid":
        why = "the grid says how many" if plan.sampler == "grid" else "--refine has shared them out"
        raise UsageError(f"the number of trials, {plan.trials}, cannot change: {why}", "begin another search")
    return replace(plan, trials=trials)


def create(
    runs_dir: Path, plan: Plan, *, stem: str, name: str | None = None, storage: str | None = None
) -> tuple[optuna.Study, Plan, Path]:
    """Begins a search; where the storage holds it already, joins it.

    Args:
        runs_dir: where runs lie.
        plan: what is asked for.
        stem: what the folder is called, with a number after it.
        name: what it is called, without a number; the name of the search in a shared storage.
        storage: a file or a URL that several processes share; None for a journal in the folder.

    Returns:
        The study, its plan and its folder; a process that joins gets the plan with which the search was begun, with
        its own number of trials.

    Raises:
        dlkit.errors.UsageError: the name is taken, or the storage holds another search.
        dlkit.errors.DlkitError: the storage cannot be opened, or the folder cannot be written.
    """
    study, shared, joined = None, name or ONE_STUDY, None
    content = plan.to_dict() | ({} if plan.refine else {"trials": 0})
    plan = replace(plan, key=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32])
    if storage is not None:
        storage = storage if _is_url(storage) else str(file_system.expanded(storage).absolute())
        study = _study(storage, shared, plan)
        begun = study.user_attrs.get("plan")
        if begun is not None:
            plan, joined = _same(plan, Plan.from_dict(begun), storage), str(study.user_attrs["folder"])
    folder = _folder(runs_dir, plan, name=joined or name, stem=stem, storage=storage, study=shared)
    if study is None:
        study = _study(str(folder / JOURNAL), shared, plan)
    if joined is None:
        study.set_user_attr("folder", folder.name)
        study.set_user_attr("plan", plan.to_dict())
    return study, plan, folder


def _same(ours: Plan, begun: Plan, storage: str) -> Plan:
    """The plan of the search that the storage holds, when it is the one that was asked for.

    Raises:
        dlkit.errors.UsageError: it is another.
    """
    fixed = ["sampler", "prune", "first_look", "refine", "seed", "metric"] + ["trials"] * (begun.refine > 0)
    there = {key: getattr(begun, key) for key in fixed} | {space.key: str(space) for space in begun.spaces}
    here = {key: getattr(ours, key) for key in fixed} | {space.key: str(space) for space in ours.spaces}
    there |= _values(begun.recipe)
    here |= _values(ours.recipe)
    for key in [*there, *(key for key in here if key not in there)]:
        if there.get(key) != here.get(key):
            raise UsageError(
                f"{without_password(storage)} holds another search: its {key.replace('_', ' ')} is"
                f" {there.get(key, 'not given')}, here it is {here.get(key, 'not given')}",
                "join with the command that began it, or begin another one with --name or another --storage",
            )
    return replace(ours, key=begun.key)


def _values(recipe: str) -> dict[str, Any]:
    """The values of a recipe that have to be the same on all machines."""
    content = tomllib.loads(recipe)
    flat = {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}
    flat.pop("data.dir", None)
    return flat


def _folder(runs_dir: Path, plan: Plan, *, name: str | None, stem: str, storage: str | None, study: str) -> Path:
    """Makes the folder of a search, or finds the one that is there of the same search."""
    place = JOURNAL if storage is None else without_password(storage)
    content = {"format": FORMAT, "storage": place, "study": study, "plan": plan.to_dict()}

    def fill(path: Path) -> None:
        (path / "recipe.toml").write_text(plan.recipe, encoding="utf-8")
        (path / "search.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    def is_ours(path: Path) -> bool:
        try:
            return json.loads((path / "search.json").read_text())["plan"]["key"] == plan.key
        except (OSError, ValueError, KeyError, TypeError):
            return False

    if name is not None and storage is not None and is_ours(runs_dir / name):
        return runs_dir / name
    if name is not None and storage is None:
        check_name(runs_dir, name)
    numbered = (f"{stem}-search-{number}" for number in itertools.count(1))
    names = numbered if name is None else [name] if storage is None else itertools.chain([name], numbered)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        return durable.claim(runs_dir, names, fill)
    except OSError as failure:
        raise cannot_write(runs_dir, failure) from None


# --------------------------------------------------------------------------------------------------------- the storage


def _is_url(storage: str) -> bool:
    return "://" in storage


def without_password(storage: str) -> str:
    """A storage with `***` for the passwords in its URL, before the host and among the options (`?password=...`)."""
    if not _is_url(storage):
        return storage
    parts = urlsplit(storage)
    host = parts.netloc if parts.password is None else parts.netloc.replace(f":{parts.password}@", ":***@")
    options = parts.query.split("&")
    masked = [f"{key}=***" if "pass" in key.lower() and value else option
              for option in options for key, _, value in [option.partition("=")]]  # fmt: skip
    if host == parts.netloc and masked == options:
        return storage  # sqlite:////x would lose slashes
    return urlunsplit(parts._replace(netloc=host, query="&".join(masked)))


def _study(storage: str, name: str, plan: Plan) -> optuna.Study:
    """Opens the study of a storage, or begins it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction: Literal["minimize", "maximize"] = "minimize" if plan.direction == "lower" else "maximize"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.create_study(
                storage=_opened(storage),
                study_name=name,
                direction=direction,
                load_if_exists=True,
                pruner=_pruner(plan),
            )
    except Exception as failure:  # whatever a database or its driver has to say
        words = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
        reason = words.strip().splitlines()
        raise DlkitError(
            f"cannot use the storage {without_password(storage)}: {reason[0] if reason else type(failure).__name__}",
            "a storage is a file, or the URL of a database, such as postgresql://user@host/name",
        ) from None


def _opened(storage: str) -> BaseStorage:
    if storage.startswith(("redis://", "rediss://")):
        from optuna.storages.journal import JournalRedisBackend

        return JournalStorage(JournalRedisBackend(storage))
    if _is_url(storage):
        return RDBStorage(storage)
    return JournalStorage(JournalFileBackend(storage, lock_obj=_JournalLock(storage)))


class _JournalLock(JournalFileOpenLock):
    """Lets one process at a time write to a journal; the system drops it with its process, however that ends.

    Optuna's own locks are files, which outlive a kill in the middle of a line by half a minute. Before each line a
    process looks whether the last one, of any process, is whole.
    """

    def __init__(self, journal: str) -> None:
        self.journal, self.descriptor = journal, -1

    def acquire(self) -> bool:
        self.descriptor = os.open(self.journal, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            _mend(self.descriptor)
        except OSError:
            os.close(self.descriptor)
            raise
        return True

    def release(self) -> None:
        os.close(self.descriptor)


def _mend(journal: int) -> None:
    """Takes off the end of a journal a line that a kill, a power cut or a full disk has left incomplete.

    What is appended to it would be lost with it, and the journal unreadable.

    Args:
        journal: a descriptor of it, which holds the lock.
    """
    size = os.fstat(journal).st_size
    if not size or os.pread(journal, 1, size - 1) == b"\n":
        return
    with open(journal, "rb", closefd=False) as stream:
        whole = stream.read().rfind(b"\n") + 1
    os.ftruncate(journal, whole)


def _pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """Who says that a trial is not worth going on with.

    `median`: its best value so far is worse than the median of the others after as many evaluations (Golovin et al.
    2017, section 3.2.2). `halving`: asynchronous successive halving (Li et al. 2020): after the first look a trial goes
    on if it is among the best third of those that came so far, then the same after three times as long, and so on.
    """
    match plan.prune:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=plan.first_look)
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=plan.first_look, reduction_factor=3)
        case _:
            return optuna.pruners.NopPruner()
