"""The loop of a search: which trial comes next, with which values, when one is stopped, and what is told of it."""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from dlkit.errors import DlkitError
from dlkit.train.search.space import Space, Value, grid_points, narrowed
from dlkit.train.search.study import (
    Plan,
    Result,
    best_of,
    claim,
    folder_of,
    has_trial,
    result_of,
    results,
    space_of,
    trials_of,
)

POLL = 0.5  # seconds between looks at the trials
ORPHAN = 60.0  # seconds after which a trial without a folder is nobody's
ALIKE = 5  # so many first trials that fail alike are enough to see that all will


@dataclass(frozen=True)
class Outcome:
    """How the training of a trial ended.

    Args:
        how: at its end, because it was asked to stop, or by a failure.
        reason: in one line why it failed.
        perhaps_common: whether that may lie in what all trials have in common: usage or data, rather than divergence.
    """

    how: Literal["finished", "stopped", "failed"]
    reason: str = ""
    perhaps_common: bool = False


class Job(Protocol):
    """The training of one trial."""

    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on."""

    def scores(self) -> list[float]:
        """The metric at each evaluation so far."""

    def was_measured(self) -> bool:
        """Whether the metric was measured at all; what is not finite is no score."""

    def at_its_end(self) -> bool:
        """Whether nothing is left to train, so that stopping it would save nothing."""

    def figures(self) -> dict[str, float]:
        """What else was measured."""

    def stop(self) -> None:
        """Asks it to save and to end; called again, it ends at once."""


class Trainer(Protocol):
    """Who trains the trials; the tests put a function here."""

    def begin(self, number: int, values: Mapping[str, Value], folder: Path, lock: int) -> Job:
        """Begins a trial, or goes on with it where it was interrupted.

        Args:
            number: of the trial.
            values: key -> value.
            folder: of the search.
            lock: a descriptor that the process that trains has to keep open.
        """


class Display(Protocol):
    """What shows a search while it runs."""

    def show(self, found: Sequence[Result]) -> None:
        """The trials, whenever one began, was evaluated or ended."""

    def waiting(self, numbers: Sequence[int]) -> None:
        """Nothing is to be done here until these trials, which other processes train, have ended."""


class _Chosen(BaseSampler):
    """Hands a trial the values that were chosen for it: so one may draw from a part of the space that Optuna knows."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.values[param_name]


@dataclass
class _Running:
    trial: optuna.Trial
    values: dict[str, Value]
    job: Job
    lock: int
    reported: int
    pruned: bool = False
    asked: bool = False

    def ask(self) -> None:
        """Asks it to save and to end, once: the job takes a second time for haste."""
        if not self.asked:
            self.asked = True
            self.job.stop()


class Search:
    """Works on a search until its trials are done; several processes may do so on one storage.

    Args:
        study: from `dlkit.train.search.study`.
        plan: what was asked for.
        trainer: who trains.
        folder: of this process: its new trials lie there.
        jobs: trials at a time.
        display: who shows it.
        read: leaves those values out that nothing reads, such as the momentum of adam.
        poll: seconds between looks at the trials.
    """

    def __init__(
        self,
        study: optuna.Study,
        plan: Plan,
        trainer: Trainer,
        folder: Path,
        *,
        display: Display,
        jobs: int = 1,
        read: Callable[[Mapping[str, Value]], dict[str, Value]] = dict,
        poll: float = POLL,
    ) -> None:
        self.study, self.plan, self.trainer, self.folder = study, plan, trainer, folder.absolute()
        self.display, self.jobs, self.read, self.poll = display, jobs, read, poll
        self.chosen = _Chosen()
        study.sampler = self.chosen
        self.running: list[_Running] = []
        self.ended: list[tuple[Outcome, dict[str, Value]]] = []

    def run(self, asked: Callable[[], int] = lambda: 0, *, seconds: float = float("inf")) -> str:
        """Trains until the end, and says why it ended: "done", "time is up" or "interrupted".

        Args:
            asked: how many signals have come to stop it; after the first, trials save what they have, after the second
                they end at once. They wait to be taken up.
            seconds: after which it stops in the same way.

        Raises:
            dlkit.errors.DlkitError: the first trials all fail for the same reason, and share no value of a key.
        """
        over, reason = time.monotonic() + seconds, ""
        signals = 0
        try:
            while True:
                changed = self._look()
                if not reason and (asked() or time.monotonic() >= over):
                    reason = "interrupted" if asked() else "time is up"
                    signals = asked()
                    for each in self.running:
                        each.ask()
                if asked() > max(signals, 1):
                    signals = asked()
                    for each in self.running:
                        each.job.stop()
                if not reason:
                    self._check_failures()
                    changed |= self._fill()
                if changed:
                    self.display.show(results(self.study, self.plan, self.folder))
                if not self.running and (reason or self._is_done()):
                    return reason or "done"
                if not changed:
                    time.sleep(self.poll)
        finally:
            for each in self.running:  # something unforeseen: nothing is left behind
                each.job.stop()
                each.job.stop()
                os.close(each.lock)

    # ------------------------------------------------------------------------------------------ the trials in progress

    def _look(self) -> bool:
        """Takes note of what the trials have come to; says whether anything is new."""
        changed = False
        for each in list(self.running):
            outcome = each.job.outcome()  # before the scores, so that none is missed
            scores = each.job.scores()
            try:
                for step in range(each.reported, len(scores)):
                    each.trial.report(scores[step], step + 1)
            except UpdateFinishedTrialError:  # others have ended it meanwhile
                each.pruned = True
                each.ask()
            fresh = len(scores) > each.reported
            each.reported = max(each.reported, len(scores))
            changed |= fresh or outcome is not None
            if outcome is not None:
                self._end(each, outcome, scores)
            elif fresh and not each.asked and not each.job.at_its_end() and each.trial.should_prune():
                each.pruned = True
                each.ask()
        return changed

    def _end(self, each: _Running, outcome: Outcome, scores: Sequence[float]) -> None:
        """Tells what became of a trial. One that was interrupted stays as it is, to be taken up."""
        trial = each.trial
        self.running.remove(each)
        try:
            if outcome.how == "finished" and not scores:
                measured, metric = each.job.was_measured(), self.plan.metric
                reason = f"its {metric} was never " + ("finite" if measured else "measured on a validation split")
                outcome = Outcome("failed", reason, perhaps_common=not measured)
            if outcome.how == "stopped" and not each.pruned:
                return
            self.ended.append((outcome, each.values))
            trial.set_user_attr("figures", each.job.figures())
            if outcome.how == "finished":
                best = min(scores, key=lambda value: self.plan.sign * value)
                self.study.tell(trial, best, skip_if_finished=True)
            elif outcome.how == "stopped":
                self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                trial.set_user_attr("reason", outcome.reason)
                self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        except UpdateFinishedTrialError:
            pass  # others have ended it meanwhile, and what they told stays
        finally:
            os.close(each.lock)

    def _check_failures(self) -> None:
        """Stops a search whose trials cannot but fail.

        Where all had the same value of a key, as those of a grid have, that value may be to blame: every space has
        others, so it goes on until one of them has been tried.

        Raises:
            dlkit.errors.DlkitError: the first ones of this process failed for one reason, which all may have.
        """
        outcomes = {outcome for outcome, _ in self.ended}
        if len(self.ended) < ALIKE or len(outcomes) > 1:
            return
        (outcome,) = outcomes
        values = [values for _, values in self.ended]
        shared = any(key in values[0] and len({each.get(key) for each in values}) == 1 for key in values[0])
        if shared or not outcome.perhaps_common:
            return
        raise DlkitError(
            f"the first {len(values)} trials have all failed: {outcome.reason}",
            f"the logs `{self.folder}/trial-*.log` have all that was said",
        )

    # ----------------------------------------------------------------------------------------------------- new trials

    def _fill(self) -> bool:
        """Begins trials while there is room for them; says whether it has begun any."""
        began = False
        while len(self.running) < self.jobs and (self._take_up() or self._begin()):
            began = True
        return began

    def _is_done(self) -> bool:
        """Whether all trials have ended that this process can see, those of others among them."""
        trials = trials_of(self.study)
        others = [trial.number for trial in trials if not trial.state.is_finished() and self._sees(trial)]
        if others:
            self.display.waiting(others)
        return not others and len(trials) >= self.plan.trials

    def _folder_of(self, trial: FrozenTrial) -> Path | None:
        """The folder on this machine, or shared with it, that a trial lies in; None where there is none.

        One that has none yet may just have been begun by another process; after a time it is nobody's.
        """
        folder = folder_of(trial, self.folder)
        if folder is not None:
            return folder if has_trial(folder, trial.number) else None
        age = time.time() - (trial.datetime_start.timestamp() if trial.datetime_start else 0)
        return self.folder if age > ORPHAN else None

    def _sees(self, trial: FrozenTrial) -> bool:
        """Whether a trial lies on this machine, or is shared with it: else it is for another to go on with."""
        here = trial.user_attrs.get("host", socket.gethostname()) == socket.gethostname()
        return (here and "folder" not in trial.user_attrs) or self._folder_of(trial) is not None

    def _take_up(self) -> bool:
        """Goes on with a trial that nobody works on any more, if there is one."""
        ours = {each.trial.number for each in self.running}
        for trial in trials_of(self.study):
            folder = self._folder_of(trial)
            if trial.state.is_finished() or trial.number in ours or folder is None:
                continue
            lock = claim(folder, trial.number)
            if lock is None:
                continue
            now = next(each for each in trials_of(self.study) if each.number == trial.number)
            taken = "folder" in now.user_attrs and "folder" not in trial.user_attrs  # elsewhere, at the same moment
            if now.state.is_finished() or taken:  # by the process that had it until now
                os.close(lock)
                continue
            asked = optuna.Trial(self.study, now._trial_id)
            # A kill just after it was begun leaves a trial without a place.
            number = now.user_attrs["place"] if "place" in now.user_attrs else self._place_among_all(asked)
            if number is None:
                os.close(lock)
                continue
            self._start(asked, now, number, folder, lock)
            return True
        return False

    def _place_among_all(self, asked: optuna.Trial) -> int | None:
        """The place of a new trial in the plan; None when others were faster: one too many, which is told."""
        place = sum(each.number < asked.number for each in trials_of(self.study))
        if place < self.plan.trials:
            return place
        with suppress(UpdateFinishedTrialError):  # by others, who told the same
            asked.set_user_attr("surplus", True)
            self.study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)
        return None

    def _begin(self) -> bool:
        """Begins a new trial, if there is one to begin now."""
        plan, trials = self.plan, trials_of(self.study)
        if len(trials) >= plan.trials or not self._is_ready(plan.round_of(len(trials)), trials):
            return False
        asked = self.study.ask()
        trial = next(each for each in trials_of(self.study) if each.number == asked.number)
        place = self._place_among_all(asked)
        if place is None:
            return False
        lock = claim(self.folder, asked.number)
        if lock is None:
            return False
        self._start(asked, trial, place, self.folder, lock)
        return True

    def _is_ready(self, number: int, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a round may begin: the trials before it have ended, but for those that other machines train."""
        return not number or all(
            trial.state.is_finished() or not self._sees(trial) for trial in trials[: self.plan.begin_of(number)]
        )

    def _start(self, trial: optuna.Trial, frozen: FrozenTrial, place: int, folder: Path, lock: int) -> None:
        trial.set_user_attr("place", place)
        trial.set_user_attr("host", socket.gethostname())
        trial.set_user_attr("folder", str(folder))
        values = self._values(trial, frozen, place)
        job = self.trainer.begin(trial.number, values, folder, lock)
        self.running.append(_Running(trial, values, job, lock, len(frozen.intermediate_values)))

    # ------------------------------------------------------------------------------------------------ the values of one

    def _values(self, trial: optuna.Trial, frozen: FrozenTrial, place: int) -> dict[str, Value]:
        """The values of a trial, which the storage has from now on. But for TPE they follow from seed and place."""
        if "values" not in frozen.user_attrs:
            self.chosen.values = self._choose(frozen, place)
            for space in self.plan.spaces:
                if space.key in self.chosen.values:
                    _suggest(trial, space)
            trial.set_user_attr("values", self.chosen.values)
            return self.chosen.values
        return dict(frozen.user_attrs["values"])

    def _choose(self, frozen: FrozenTrial, place: int) -> dict[str, Value]:
        plan = self.plan
        if plan.sampler == "grid":
            return grid_points(plan.spaces, self.read)[place]
        spaces = self._spaces(plan.round_of(place))
        seed = int(np.random.SeedSequence((plan.seed, place)).generate_state(1)[0])
        if plan.sampler == "tpe":
            first = max(3, min(10, plan.trials // 3))
            sampler: BaseSampler = TPESampler(seed=seed, n_startup_trials=first)
        else:
            sampler = RandomSampler(seed=seed)
        drawn = {
            space.key: space.rounded(sampler.sample_independent(self.study, frozen, space.key, _distribution(space)))
            for space in spaces
        }
        return self.read(drawn)

    def _spaces(self, number: int) -> list[Space]:
        """The spaces of a round. Who needs them first narrows them, and the storage keeps them for all."""
        if not number:
            return list(self.plan.spaces)
        name = f"spaces of round {number}"
        if name not in self.study.user_attrs:
            before = [
                result_of(trial, self.plan)
                for trial in trials_of(self.study)[: self.plan.begin_of(number)]
                if trial.state == TrialState.COMPLETE
            ]
            scored = [(each.values, self.plan.sign * each.score) for each in before if each.score is not None]
            spaces = narrowed(self.plan.spaces, scored, number)
            self.study.set_user_attr(name, [asdict(space) for space in spaces])
        return [space_of(content) for content in self.study.user_attrs[name]]

    @property
    def best(self) -> Result | None:
        """The best trial so far."""
        return best_of(results(self.study, self.plan), self.plan)


def _distribution(space: Space) -> BaseDistribution:
    match space.kind:
        case "choice":
            return CategoricalDistribution(space.choices)
        case "int":
            return IntDistribution(int(space.low), int(space.high), log=space.log)
        case _:
            return FloatDistribution(space.low, space.high, log=space.log)


def _suggest(trial: optuna.Trial, space: Space) -> Value | None:
    """Tells Optuna of the value of a key, always with the whole space: parts of it would not be comparable."""
    match space.kind:
        case "choice":
            return trial.suggest_categorical(space.key, space.choices)
        case "int":
            return trial.suggest_int(space.key, int(space.low), int(space.high), log=space.log)
        case _:
            return trial.suggest_float(space.key, space.low, space.high, log=space.log)
