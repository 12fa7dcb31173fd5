"""T5: an ensemble of nets on a curve: members, their mean, and the variance that averaging takes away."""

from typing import Annotated, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data.resampling import bootstrap
from dlkit.ensemble_metrics import ambiguity
from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import fit
from dlkit.layers.initializers import initializer
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count


def ensembles(
    *,
    members: Count = 10,
    points: Annotated[int, Field(ge=5)] = 30,
    noise: Annotated[float, Field(ge=0)] = 0.3,
    width: Count = 64,
    steps: Count = 1500,
    by: Literal["bootstrap", "seeds", "none"] = "bootstrap",
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """Small nets that learn a sine from a few noisy points, and their mean.

    Breiman 1996, Bagging predictors, section 4: the mean squared error of a member, on average, is that of the mean
    plus the variance E (f_D - mean f)^2 of the members. So the mean is never worse than they are on average.

    Args:
        members: nets.
        points: of the curve, to learn from.
        noise: standard deviation of their error.
        width: units of the two hidden layers.
        steps: updates of Adam on all points at once.
        by: how members come to differ: `bootstrap` draws each one's points with replacement and other weights, `seeds`
            other weights only, `none` nothing at all: then the verdict turns.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    x = np.sort(random.uniform(-1, 1, points))
    y = curve(x) + noise * random.standard_normal(points)
    where = np.linspace(-1, 1, 201)
    told = np.stack(
        [
            _learned(*_resampled(x, y, by, seed, at), where, width, steps, seed if by == "none" else seed + at)
            for at in range(members)
        ]
    )  # (members, places)
    truth = curve(where)
    mean = told.mean(0)
    errors = ((told - truth) ** 2).mean(1)
    of_mean, average, variance = ambiguity(told[..., np.newaxis], truth[:, np.newaxis])
    low, high = (mean + side * told.std(0) for side in (-1, 1))
    lines = [Line(f"member {at + 1}", where.tolist(), each.tolist()) for at, each in enumerate(told[:4])]
    return Finding(
        columns=["", "mean squared error"],
        rows=[
            ["members, mean", f"{average:.4f}"], ["members, best", f"{errors.min():.4f}"],
            ["mean of the members", f"{of_mean:.4f}"], ["variance of the members", f"{variance:.4f}"],
        ],
        right=["mean squared error"],
        verdicts=[
            Verdict(
                "the mean of the members errs less than they do on average, by at least a tenth",
                of_mean <= 0.9 * average, f"{of_mean:.4f} against {average:.4f}",
            ),
        ],
        charts=[
            Lines(
                f"{members} members by {by}; four are drawn", "x", "y",
                [
                    *lines,
                    Line(
                        "mean of all, and spread", where.tolist(), mean.tolist(), low=low.tolist(), high=high.tolist()
                    ),
                    Line("the curve", where.tolist(), truth.tolist(), is_theory=True),
                ],
            ),
        ],
        records=[
            {
                "errors": errors.tolist(), "error_of_mean": of_mean, "variance": variance,
                "points": [x.tolist(), y.tolist()],
            }
        ],
        notes=[
            f"{points} points of a sine with noise of {noise:g}; errors are from the curve itself",
            f"what averaging takes away, {average - of_mean:.4f}, is the variance of the members, {variance:.4f}",
        ],
    )  # fmt: skip


def curve(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is to be learned, of x from -1 to 1."""
    return np.sin(4 * x)


def _resampled(
    x: NDArray[np.float64], y: NDArray[np.float64], by: str, seed: int, member: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if by != "bootstrap":
        return x, y
    drawn = bootstrap(len(x), seed=seed, draw=member)
    return x[drawn], y[drawn]


def _learned(
    x: NDArray[np.float64], y: NDArray[np.float64], where: NDArray[np.float64], width: int, steps: int, seed: int
) -> NDArray[np.float64]:
    """What a net of two hidden layers that was trained on the points says at other places."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Dense(units, activation=kind, kernel_initializer=initializer("he"))
        for units, kind in ((width, "relu"), (width, "relu"), (1, None))
    ]
    net = keras.Sequential([keras.Input((1,)), *layers])
    inputs, targets = (tf.constant(each[:, np.newaxis], tf.float32) for each in (x, y))

    def loss(_: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(net(inputs) - targets))

    fit(net, loss, tf.range(steps), lr=0.01)  # each batch is all points
    return net(tf.constant(where[:, np.newaxis], tf.float32)).numpy()[:, 0].astype(np.float64)
