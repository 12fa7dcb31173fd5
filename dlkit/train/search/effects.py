"""What a search says of its keys: which matter, which act early on the training error, and which on the gap.

Some hyperparameters act on the optimization: the learning rate, momentum, the initialization. What they do shows early,
in the training error. Others act on generalization: dropout, weight decay, the size of the model. What they do shows in
the gap between training and validation (CS182, lecture 7). A search has the numbers to tell them apart.

Only the first round of a search with `--refine` is looked at. Later rounds draw every key near the best trial, also
those that do nothing, and err less because of the keys that do something: over all rounds both would seem to act.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from dlkit.runs import Run
from dlkit.tasks import TASKS
from dlkit.train.search.space import Space
from dlkit.train.search.study import Plan, Result, result_of, trials_of

FEWEST = 4  # trials below which a correlation says nothing
FEWEST_COMPLETE = 10  # trials below which an importance does; it has no p to say so
SIGNIFICANT = 0.05
PERMUTATIONS = 999
PARTS = 3  # groups of trials that the values of a number are divided into


def figures_of(run: Run) -> dict[str, float]:
    """The numbers of a run that effects are looked for in.

    The error is one minus the monitored metric when training logs it and higher is better, that metric when lower is
    better, and the loss when training does not log it (BLEU).

    Returns:
        "early", the error on the training split, logged last before the first evaluation; "gap", the error on the
        validation split at the last evaluation less that in training before it; "epochs" so far. The error in training
        is a mean over the steps of the log's line, with dropout and augmentation as they are in training; what is not
        there yet is left out.
    """
    lines = run.metrics()
    trained = sorted((line for line in lines if line["kind"] == "train"), key=lambda line: line["step"])
    evaluated = [line for line in lines if line["kind"] == "evaluation" and line.get("split") == "validation"]
    averaged = [line for line in evaluated if line.get("weights") == "ema"]
    evaluated = sorted(averaged or evaluated, key=lambda line: line["step"])
    found: dict[str, float] = {}
    if trained and isinstance(trained[-1].get("epoch"), int | float):
        found["epochs"] = float(trained[-1]["epoch"])
    if not trained or not evaluated:
        return found
    monitor = run.monitor[0]
    name = monitor if isinstance(trained[-1].get(monitor), int | float) else "loss"
    higher = TASKS[run.task].metrics[name] == "higher"

    def error(records: Sequence[Mapping[str, object]]) -> float | None:
        value = records[-1].get(name) if records else None
        return None if not isinstance(value, int | float) else 1.0 - value if higher else float(value)

    early = error([line for line in trained if line["step"] <= evaluated[0]["step"]])
    late = error([line for line in trained if line["step"] <= evaluated[-1]["step"]])
    validation = error(evaluated)
    if early is not None:
        found["early"] = early
    if late is not None and validation is not None:
        found["gap"] = validation - late
    return found


@dataclass(frozen=True)
class Effect:
    """How strongly a key goes with a figure of the trials.

    Args:
        strength: the correlation ratio of the figure's ranks between groups of trials, from 0 to 1.
        chance: how often values that are dealt out to the trials at random do as well (a permutation test).
        correlation: of numbers Spearman's rank correlation, above 0 when greater values of the key come with greater
            figures; None of words. Near 0 beside a great strength the best values lie in the middle.
        trials: how many it was computed from.
    """

    strength: float
    chance: float
    correlation: float | None
    trials: int

    @property
    def is_significant(self) -> bool:
        """Whether chance does as well in less than one case of twenty."""
        return self.chance < SIGNIFICANT


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """The ranks of values, from 1; equal values share the mean of theirs."""
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]


def effect(values: Sequence[float | str], figures: Sequence[float], *, seed: int = 0) -> Effect | None:
    """How strongly a key's values go with a figure, and how easily chance comes by that.

    The trials are grouped by the value of the key: numbers, or texts of numbers, by thirds of the trials unless there
    are few different ones, words each for itself. The strength is the square root of the share of the variance of the
    figure's ranks that lies between the groups, as in the test of Kruskal and Wallis 1952: unlike a correlation it sees
    a key whose best values lie in the middle, as those of the learning rate do.

    Args:
        values: of the key, one a trial.
        figures: one a trial.
        seed: of the permutations.

    Returns:
        None when there are too few trials, or nothing varies.

    Example:
        >>> found = effect([1, 2, 3, 4, 5, 6], [9, 4, 1, 1, 4, 9])
        >>> round(found.strength, 2), round(found.correlation, 2)
        (1.0, 0.0)
    """
    if len(values) < FEWEST or len(set(values)) < 2 or len(set(figures)) < 2:
        return None
    numbers, target = _numbers(values), ranks(figures)
    members = np.stack(_groups(values, numbers)).astype(float)  # (groups, trials)
    sizes = members.sum(axis=1)

    def strength(outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        means = outcomes @ members.T / sizes  # (dealings, groups)
        between = ((means - target.mean()) ** 2) @ sizes
        return np.sqrt(between / np.sum((target - target.mean()) ** 2))

    measured = float(strength(target[None])[0])
    dealt = np.random.default_rng(seed).permuted(np.tile(target, (PERMUTATIONS, 1)), axis=1)
    chance = (int(np.sum(strength(dealt) >= measured - 1e-12)) + 1) / (PERMUTATIONS + 1)
    correlation = None if numbers is None else float(np.corrcoef(ranks(numbers), target)[0, 1])
    return Effect(measured, chance, correlation, len(values))


def _groups(values: Sequence[float | str], numbers: Sequence[float] | None) -> list[NDArray[np.bool_]]:
    """Which trials are in each group. Of numbers equal ones are never divided."""
    if numbers is not None and len(set(numbers)) > PARTS:
        part = np.floor((ranks(numbers) - 0.5) * PARTS / len(numbers))
        return [part == each for each in np.unique(part)]
    names = np.array([str(value) for value in values])
    return [names == each for each in dict.fromkeys(names)]


def _numbers(values: Sequence[float | str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


@dataclass(frozen=True)
class KeyEffects:
    """What a search says of one key.

    Args:
        key: of the recipe.
        importance: its share of what makes trials good, of all keys together 1; None with too few trials.
        early: its effect on the training error early in training, over the trials that were evaluated.
        gap: its effect on the gap between validation and training, over the trials that were trained to the end.
    """

    key: str
    importance: float | None
    early: Effect | None
    gap: Effect | None

    @property
    def acts_on(self) -> str:
        """In words, what it can be said to act on."""
        early, gap = (bool(each and each.is_significant) for each in (self.early, self.gap))
        return "both" if early and gap else "optimization" if early else "generalization" if gap else ""


def effects(spaces: Sequence[Space], found: Sequence[Result], importances: Mapping[str, float]) -> list[KeyEffects]:
    """What the trials of the first round say of each key."""
    first = [each for each in found if each.round == 0]

    def of(key: str, figure: str, states: set[str]) -> Effect | None:
        having = [each for each in first if each.state in states and key in each.values and figure in each.figures]
        return effect([each.values[key] for each in having], [each.figures[figure] for each in having])

    return [
        KeyEffects(
            space.key,
            importances.get(space.key),
            of(space.key, "early", {"complete", "pruned"}),
            of(space.key, "gap", {"complete"}),
        )
        for space in spaces
    ]


def importances(study: optuna.Study, plan: Plan) -> dict[str, float]:
    """The share of each key in what makes a trial one of the best third, by PED-ANOVA (Watanabe et al. 2023).

    How far the density of a key's values among the best third of the complete trials of the first round is from that
    among all of them (Pearson's divergence), divided by the sum over the keys. It needs no more than NumPy, and does
    not look at how keys act together, as fANOVA (Hutter et al. 2014) does, which needs scikit-learn.

    Returns:
        key -> importance; empty with fewer than `FEWEST_COMPLETE` complete trials.
    """
    complete = [
        trial for trial in trials_of(study)
        if trial.state == TrialState.COMPLETE and result_of(trial, plan).round == 0
    ]  # fmt: skip
    known = {key for trial in complete for key in trial.params}
    keys = [space.key for space in plan.spaces if space.key in known]
    if len(complete) < FEWEST_COMPLETE or not keys:
        return {}
    first = optuna.create_study(direction=study.direction)
    first.add_trials(complete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told above: what it says of few trials
        evaluator = PedAnovaImportanceEvaluator(target_quantile=1 / 3)
        return get_param_importances(first, evaluator=evaluator, params=keys)
