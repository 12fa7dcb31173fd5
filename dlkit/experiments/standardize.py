"""T1: inputs and, in regression, outputs train better when they are standardized."""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import Trained, train
from dlkit.probe.look import on_log_axis
from dlkit.probe.panels import Line, Lines
from dlkit.train.start import Prepared
from dlkit.values import Count, Positive

DIGITS, ADDING = "digits, inputs", "adding problem, outputs"


def standardize(
    *,
    inputs: bool = True,
    outputs: bool = True,
    offset: float = 100.0,
    steps: Count = 150,
    rates: Annotated[list[Positive], Field(min_length=1)] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1],  # noqa: B006
    seeds: Count = 2,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """A dense net on digits as they are, 0 to 255, and standardized; a recurrent net that tells numbers far from zero.

    LeCun, Bottou, Orr and Mueller 1998, Efficient BackProp, section 4.3. Each training has the best of the learning
    rates, so that scale alone is no excuse.

    Args:
        inputs: whether the digits are standardized on the better side; without, the verdict turns.
        outputs: whether the numbers to be told are; likewise.
        offset: what is added to them.
        steps: updates of plain gradient descent.
        rates: learning rates that each side may choose from.
        seeds: trainings at each rate; the mean counts.
        seed: of the first.
    """
    raw_sums = partial(_far_from_zero, offset=offset)
    sides: dict[tuple[str, str], Callable[[Prepared], None] | None] = {
        (DIGITS, "as they are"): _as_they_are,
        (DIGITS, "standardized"): None if inputs else _as_they_are,
        (ADDING, "as they are"): raw_sums,
        (ADDING, "standardized"): None if outputs else raw_sums,
    }
    found: dict[tuple[str, str], dict[float, list[Trained]]] = {}
    for (of, how), change in sides.items():
        found[of, how] = {rate: [_trained(of, rate, steps, seed + at, change) for at in range(seeds)] for rate in rates}
    measured = {
        side: {rate: _mean_error(side[0], runs, "validation") for rate, runs in each.items()}
        for side, each in found.items()
    }
    best = {side: min(each, key=each.__getitem__) for side, each in measured.items()}
    lowest = {side: _mean_error(side[0], found[side][best[side]], "test") for side in sides}
    verdicts = []
    for of, claim in ((DIGITS, "digits are learned faster"), (ADDING, "numbers far from zero are told better")):
        raw, standard = lowest[of, "as they are"], lowest[of, "standardized"]
        verdicts.append(
            Verdict(
                f"standardized, {claim}: the error is at most two thirds", _is_lower(standard, raw),
                f"{standard:.3g} against {raw:.3g} after {steps} updates, each with its best learning rate",
            )
        )  # fmt: skip
    curves = {side: np.mean([run.losses for run in found[side][best[side]]], 0) for side in sides if side[0] == DIGITS}

    def by_rate(wanted: str) -> list[Line]:
        return [
            Line(how, list(rates), [error if math.isfinite(error) else math.nan for error in each.values()])
            for (of, how), each in measured.items()
            if of == wanted
        ]

    broken = {
        f"{of} {how}": [f"{rate:g}" for rate, error in each.items() if not math.isfinite(error)]
        for (of, how), each in measured.items()
    }
    return Finding(
        columns=["data", "how", "best learning rate", "error"],
        rows=[[of, how, f"{best[of, how]:g}", f"{lowest[of, how]:.3g}"] for of, how in sides],
        right=["best learning rate", "error"],
        verdicts=verdicts,
        charts=[
            Lines(
                "digits, each with its best learning rate", "update", "training loss, nats",
                [Line(how, range(steps), on_log_axis(each)) for (_, how), each in curves.items()], logarithmic=True,
            ),
            Lines(
                "digits, every learning rate", "learning rate", "share of validation digits that are wrong",
                by_rate(DIGITS), log_x=True,
            ),
            Lines(
                "adding problem, every learning rate", "learning rate", "mean squared error of the sums, validation",
                by_rate(ADDING), log_x=True, logarithmic=True,
            ),
        ],
        records=[
            {"data": of, "how": how, "lr": rate, "error": error}
            for (of, how), each in measured.items() for rate, error in each.items()
        ],
        notes=[
            "error: share of test digits that are wrong, mean squared error of the sums",
            "the best learning rate is chosen on the validation part",
            *(
                f"{side}: no point at {', '.join(at)}, where training broke off" for side, at in broken.items() if at
            ),
        ],
    )  # fmt: skip


def _as_they_are(made: Prepared) -> None:
    """Undoes the standardization of images: they go in as numbers from 0 to 255."""
    made.task.info["mean"], made.task.info["std"] = [0.0], [1 / 255]


def _far_from_zero(made: Prepared, offset: float) -> None:
    """The sums have to be told as they are, `offset` higher: a mean of -offset, which is subtracted, adds it."""
    made.task.info["output_mean"], made.task.info["output_std"] = [-offset], [1.0]


def _trained(of: str, lr: float, steps: int, seed: int, change: Callable[[Prepared], None] | None) -> Trained:
    options: dict[str, Any] = {"train.lr": lr, "train.batch_size": 64, "train.steps": steps}
    if of == DIGITS:
        return train("mlp", "digits", options | {"model.hidden": [64]}, steps=steps, seed=seed, change=change)
    options |= {"data.length": 8, "data.train": 6400, "data.validation": 200, "data.test": 500, "model.width": 32}
    return train("gru", "synthetic:adding", options, steps=steps, seed=seed, change=change)


def _is_lower(standard: float, raw: float) -> bool:
    """Whether an error is at most two thirds of another; two trainings that both broke off say nothing."""
    return bool(math.isfinite(standard) and standard < raw and standard <= raw * 2 / 3)


def _mean_error(of: str, runs: list[Trained], split: str) -> float:
    return float(np.mean([_error(of, run, split) for run in runs]))


def _error(of: str, run: Trained, split: str) -> float:
    """Share of digits that are wrong, or the mean squared error of the sums; infinite when training broke off."""
    if not run.is_finished:
        return math.inf
    measured = run.evaluate(split)
    return 1 - measured["accuracy"] if of == DIGITS else measured["mse"]
