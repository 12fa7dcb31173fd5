"""T7: of as many trials, random ones find more than a grid where few keys matter."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import train
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count

LOW, HIGH = -5.0, 0.0  # decimal logarithms of learning rates
LIGHT, HEAVY = -6.0, -2.0  # of weight decays


def random_vs_grid(
    *,
    side: Annotated[int, Field(ge=2, le=6)] = 3,
    rates: Annotated[int, Field(ge=4, le=200)] = 21,
    decays: Annotated[int, Field(ge=2, le=20)] = 3,
    steps: Count = 60,
    repeats: Count = 1000,
    grid: Literal["both", "rate"] = "both",
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """Learning rate and weight decay of a dense net on the digits: in a short training one matters, the other hardly.

    Bergstra and Bengio 2012, Random search for hyper-parameter optimization, figure 1. The net is trained once at each
    of many pairs of values; each repetition then lays a grid of side x side at a random place over both ranges, or
    draws as many pairs at random, reads their losses off and takes the least. Compared are the means over the
    repetitions.

    Args:
        side: values of each key on the grid; trials are side squared.
        rates: learning rates from 1e-5 to 1 at which the net is trained.
        decays: weight decays from 1e-6 to 0.01, at each learning rate.
        steps: updates of each training, by AdamW.
        repeats: searches of each kind.
        grid: which keys the grid divides its trials over; with the learning rate alone it has as many values of what
            matters as random search, and the verdict turns.
        seed: of the searches.
    """
    exponents, decay_exponents = np.linspace(LOW, HIGH, rates), np.linspace(LIGHT, HEAVY, decays)
    errors = np.array([[_error(10.0**lr, 10.0**decay, steps) for lr in exponents] for decay in decay_exponents])
    random = np.random.default_rng(seed)
    trials = side**2
    distinct = side if grid == "both" else trials

    def best(lrs: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        nearest = np.abs(weights[:, np.newaxis] - decay_exponents).argmin(1)
        return min(float(np.interp(lr, exponents, errors[row])) for lr, row in zip(lrs, nearest, strict=True))

    def on_grid() -> float:
        if grid == "rate":
            return best(_lattice(random, LOW, HIGH, trials), random.uniform(LIGHT, HEAVY, trials))
        both = np.meshgrid(_lattice(random, LOW, HIGH, side), _lattice(random, LIGHT, HEAVY, side))
        return best(both[0].ravel(), both[1].ravel())

    of_grid = np.array([on_grid() for _ in range(repeats)])
    of_random = np.array(
        [best(random.uniform(LOW, HIGH, trials), random.uniform(LIGHT, HEAVY, trials)) for _ in range(repeats)]
    )
    medians = {"grid": float(np.median(of_grid)), "random": float(np.median(of_random))}
    means = {"grid": float(of_grid.mean()), "random": float(of_random.mean())}
    shares = np.linspace(0, 100, 101)
    return Finding(
        columns=["search", "trials", "learning rates", "median of the best", "mean of the best"],
        rows=[
            ["grid", trials, distinct, f"{medians['grid']:.3f}", f"{means['grid']:.3f}"],
            ["random", trials, trials, f"{medians['random']:.3f}", f"{means['random']:.3f}"],
        ],
        right=["trials", "learning rates", "median of the best", "mean of the best"],
        verdicts=[
            Verdict(
                f"random search ends lower than a grid of as many trials ({trials}), by at least a twentieth",
                means["random"] <= 0.95 * means["grid"], f"mean loss {means['random']:.3f} against {means['grid']:.3f}",
            )
        ],
        charts=[
            Lines(
                f"dense net on the digits, {steps} updates", "learning rate", "loss on validation digits, nats",
                [
                    Line(f"weight decay {10**decay:.0e}", (10**exponents).tolist(), row.tolist())
                    for decay, row in zip(decay_exponents, errors, strict=True)
                ], log_x=True, logarithmic=True,
            ),
            Lines(
                f"best of {trials} trials, {repeats:,} searches", "share of the searches, %",
                "loss of the best at most",
                [
                    Line(name, shares.tolist(), np.percentile(each, shares).tolist())
                    for name, each in (("grid", of_grid), ("random", of_random))
                ], logarithmic=True,
            ),
        ],
        records=[{"lr": (10**exponents).tolist(), "loss": errors.tolist(), "medians": medians, "means": means}],
        notes=[f"{errors.size} trainings; {repeats:,} searches of each kind read them off"],
    )  # fmt: skip


def _error(lr: float, decay: float, steps: int) -> float:
    options = {
        "model.hidden": [64], "train.optimizer": "adamw", "train.lr": lr, "train.weight_decay": decay,
        "train.batch_size": 64, "train.steps": steps,
    }  # fmt: skip
    loss = train("mlp", "digits", options, steps=steps, seed=0).evaluate("validation")["loss"]
    return min(loss, 100.0) if np.isfinite(loss) else 100.0


def _lattice(random: np.random.Generator, low: float, high: float, values: int) -> NDArray[np.float64]:
    """Evenly spaced places over a range, laid at random: as a grid that was not fitted to the answer."""
    cell = (high - low) / values
    return np.asarray(low + cell * (np.arange(values) + random.uniform()), np.float64)
