"""T7: of as many trials, random ones find more than a grid where few keys matter."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.experiments.finding import Chart, Finding, Line, Verdict
from dlkit.experiments.training import train

Count = Annotated[int, Field(ge=1)]
LOW, HIGH = -5.0, 0.0  # decimal logarithms of learning rates


def random_vs_grid(
    *,
    side: Annotated[int, Field(ge=2, le=6)] = 3,
    rates: Annotated[int, Field(ge=4, le=200)] = 41,
    steps: Count = 60,
    repeats: Count = 1000,
    grid: Literal["both", "rate"] = "both",
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """Learning rate and batch order of a dense net on the digits: one matters, the other does not.

    Bergstra and Bengio 2012, Random search for hyper-parameter optimization, figure 1. The net is trained once at each
    of many learning rates; each repetition then lays a grid of side x side at a random place over the range, or draws
    as many trials at random, and takes the best.

    Args:
        side: values of each key on the grid; trials are side squared.
        rates: learning rates from 1e-5 to 1 at which the net is trained.
        steps: updates of each training, by Adam.
        repeats: searches of each kind; compared are the medians.
        grid: which keys the grid divides its trials over; with the learning rate alone it has as many values of what
            matters as random search, and the verdict turns.
        seed: of the searches.
    """
    exponents = np.linspace(LOW, HIGH, rates)
    errors = np.array([_error(10.0**each, steps) for each in exponents])
    random = np.random.default_rng(seed)
    trials = side**2
    distinct = side if grid == "both" else trials
    of_grid = np.array([_best(exponents, errors, _lattice(random, distinct)) for _ in range(repeats)])
    of_random = np.array([_best(exponents, errors, random.uniform(LOW, HIGH, trials)) for _ in range(repeats)])
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
            Chart(
                f"dense net on the digits, {steps} updates", "learning rate", "loss on validation digits, nats",
                [Line("loss", (10**exponents).tolist(), errors.tolist())], log_x=True, log_y=True,
            ),
            Chart(
                f"best of {trials} trials, {repeats:,} searches", "share of the searches, %",
                "loss of the best at most",
                [
                    Line(name, shares.tolist(), np.percentile(each, shares).tolist())
                    for name, each in (("grid", of_grid), ("random", of_random))
                ], log_y=True,
            ),
        ],
        records=[{"lr": (10**exponents).tolist(), "loss": errors.tolist(), "medians": medians, "means": means}],
        notes=[f"{rates} trainings; {repeats:,} searches of each kind read them off"],
    )  # fmt: skip


def _error(lr: float, steps: int) -> float:
    options = {
        "model.hidden": [64], "train.optimizer": "adam", "train.lr": lr, "train.batch_size": 64, "train.steps": steps,
    }  # fmt: skip
    run = train("mlp", "digits", options, steps=steps, seed=0)
    loss = run.evaluate("validation" if "validation" in run.prepared.task.splits else "test")["loss"]
    return min(loss, 100.0) if np.isfinite(loss) else 100.0


def _lattice(random: np.random.Generator, values: int) -> NDArray[np.float64]:
    """Evenly spaced places over the range, laid at random: as a grid that was not fitted to the answer."""
    cell = (HIGH - LOW) / values
    return np.asarray(LOW + cell * (np.arange(values) + random.uniform()), np.float64)


def _best(exponents: NDArray[np.float64], errors: NDArray[np.float64], tried: NDArray[np.float64]) -> float:
    return float(np.interp(tried, exponents, errors).min())
