"""T4 and R4: clipping keeps a recurrent net from exploding, and does not make it remember."""

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import Trained, train
from dlkit.probe.look import on_log_axis
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count, Positive

NOTHING = 1 / 6  # mean squared error of who always says the mean of the adding problem


def clipping(
    *,
    length: Annotated[int, Field(ge=4, le=1000)] = 80,
    width: Count = 64,
    spread: Positive = 0.2,
    steps: Count = 200,
    lr: Positive = 0.2,
    norm: Positive | None = 1.0,
    value: Positive | None = 0.01,
    seeds: Count = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """A plain recurrent net whose gradient explodes, on the adding problem, with and without clipping.

    Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, section 3.2. The
    recurrent matrix is drawn from N(0, spread^2): its largest eigenvalue is near spread * sqrt(width), above 1.

    Args:
        length: steps of a sequence; of 4 there is next to nothing to remember, and the last verdict turns.
        width: units of the state.
        spread: standard deviation of the recurrent matrix; at 1/sqrt(width) and below nothing explodes, and there is
            nothing to cure.
        steps: updates, each of 32 sequences, by plain gradient descent.
        lr: learning rate.
        norm: largest norm of a gradient; with none there is no clipping, and its verdict turns.
        value: largest entry of a gradient; likewise.
        seeds: trainings of each kind; shown is the median.
        seed: of the first.
    """
    ways: dict[str, dict[str, Any]] = {
        "no clipping": {},
        f"norm at most {norm:g}" if norm else "norm, without a bound": {"train.clip_norm": norm or "none"},
        f"entries at most {value:g}" if value else "entries, without a bound": {"train.clip_value": value or "none"},
    }
    common = {
        "model.width": width, "model.recurrent_init": f"gaussian:{spread:g}", "data.length": length, "data.train": 6400,
        "data.validation": 100, "data.test": 500, "train.lr": lr, "train.batch_size": 32, "train.steps": steps,
    }  # fmt: skip
    found = {
        way: [train("rnn", "synthetic:adding", common | of, steps=steps, seed=seed + at) for at in range(seeds)]
        for way, of in ways.items()
    }
    errors = {way: [_error(run) for run in runs] for way, runs in found.items()}
    middle = {way: float(np.median(each)) for way, each in errors.items()}
    norms = {way: np.median([run.norms for run in runs], 0) for way, runs in found.items()}
    free, *clipped = ways
    typical = float(np.median(norms[free][np.isfinite(norms[free])])) if np.isfinite(norms[free]).any() else math.inf
    largest = max(float(run.norms.max()) for run in found[free])
    best = min(middle[way] for way in clipped)
    verdicts = [
        Verdict(
            "without clipping the gradient explodes: the largest is more than 100 times the usual one, or not finite",
            largest > 100 * typical or not math.isfinite(largest),
            f"usual {typical:.2g}, largest {largest:.2g}",
        ),
        *(
            Verdict(
                f"with {way} training goes on where it fails without",
                middle[way] < 1.5 * NOTHING < middle[free],
                f"mean squared error {middle[way]:.3g} against {middle[free]:.3g}; the mean alone has {NOTHING:.3f}",
            )
            for way in clipped
        ),
        Verdict(
            "and it does not make the net remember: no clipped one is much better than the mean",
            0.5 * NOTHING < best < math.inf,
            f"best {best:.3g}" if math.isfinite(best) else "all of them broke off",
        ),
    ]  # fmt: skip
    return Finding(
        columns=["clipping", "largest gradient", "mean squared error", "finished"],
        rows=[
            [
                way, f"{max(float(run.norms.max()) for run in runs):.3g}", f"{middle[way]:.3g}",
                f"{sum(run.is_finished for run in runs)} of {seeds}",
            ]
            for way, runs in found.items()
        ],
        right=["largest gradient", "mean squared error", "finished"],
        verdicts=verdicts,
        charts=[
            Lines(
                f"plain recurrent net, {length} steps", "update", "norm of the gradient before clipping",
                [Line(way, range(steps), on_log_axis(each)) for way, each in norms.items()], logarithmic=True,
            )
        ],
        records=[
            {"clipping": way, "mse": errors[way], "largest": [float(run.norms.max()) for run in runs]}
            for way, runs in found.items()
        ],
        notes=[f"adding problem of {length} numbers, median of {seeds} trainings of each kind"],
    )  # fmt: skip


def _error(run: Trained) -> float:
    """Mean squared error on test sequences; infinite when training broke off."""
    return run.evaluate("test")["mse"] if run.is_finished else math.inf
