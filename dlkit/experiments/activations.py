"""T8: why ReLU. The derivative of a sigmoid is at most 1/4, and products of many vanish."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import Trained, train
from dlkit.layers.activations import Activation
from dlkit.probe.gradients import gradients
from dlkit.probe.look import on_log_axis
from dlkit.probe.panels import Line, Lines
from dlkit.train.start import Prepared
from dlkit.values import Count


def activations(
    *,
    depth: Annotated[int, Field(ge=2, le=200)] = 12,
    width: Count = 64,
    steps: Count = 300,
    lr: Annotated[float, Field(gt=0)] = 0.001,
    seeds: Count = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
    good: Activation = "relu",
    bad: Activation = "sigmoid",
) -> Finding:
    """The gradient that reaches each layer of a deep dense net on the digits, and how well the net then trains.

    Glorot, Bordes and Bengio 2011, Deep sparse rectifier neural networks, section 3. Each net has the initialization
    that suits it: He for ReLU, Glorot for the other.

    Args:
        depth: hidden layers.
        width: units of each.
        steps: updates of Adam, each of 64 digits.
        lr: learning rate.
        seeds: nets of each kind; shown is the mean.
        seed: of the first.
        good: the activation that is to train; with `sigmoid` here, too, the first verdict and the last turn.
        bad: the one that is not to; with `relu` here, too, the other one and the last turn.
    """
    kinds = dict.fromkeys((good, bad))
    found = {kind: [_trained(kind, depth, width, steps, lr, seed + at) for at in range(seeds)] for kind in kinds}
    norms = {kind: np.mean([norm for norm, _ in runs], 0) for kind, runs in found.items()}
    losses = {kind: np.mean([run.losses for _, run in runs], 0) for kind, runs in found.items()}
    last = {kind: [run.last_loss for _, run in runs] for kind, runs in found.items()}
    reach = {kind: float(each[0] / each[-1]) for kind, each in norms.items()}
    guess = float(np.log(10))
    return Finding(
        columns=["activation", "gradient, first layer", "last layer", "first / last", "loss after training"],
        rows=[
            [kind, f"{each[0]:.2g}", f"{each[-1]:.2g}", f"{reach[kind]:.2g}", f"{np.mean(last[kind]):.3f}"]
            for kind, each in norms.items()
        ],
        right=["gradient, first layer", "last layer", "first / last", "loss after training"],
        verdicts=[
            Verdict(
                f"with {good} the gradient of the first layer is at least a tenth of the last one's",
                reach[good] >= 0.1, f"{reach[good]:.2g}",
            ),
            Verdict(
                f"with {bad} it vanishes on its way: less than a thousandth is left", reach[bad] <= 1e-3,
                f"{reach[bad]:.2g}",
            ),
            Verdict(
                f"so {good} trains where {bad} stays near a guess", max(last[good]) < 0.5 * guess < min(last[bad]),
                f"largest loss with {good} {max(last[good]):.3f}, smallest with {bad} {min(last[bad]):.3f}, a guess "
                f"has {guess:.2f}",
            ),
        ],
        charts=[
            Lines(
                "before training", "hidden layer", "norm of the gradient of its matrix",
                [Line(kind, range(1, depth + 1), on_log_axis(each)) for kind, each in norms.items()], logarithmic=True,
            ),
            Lines(
                "in training", "update", "loss, nats",
                [Line(kind, range(steps), each.tolist()) for kind, each in losses.items()],
            ),
        ],
        records=[
            {"activation": kind, "gradients": norms[kind].tolist(), "losses": last[kind]} for kind in found
        ],
        notes=[f"{depth} hidden layers of {width} units on the digits, mean of {seeds} nets of each kind"],
    )  # fmt: skip


def _trained(
    kind: str, depth: int, width: int, steps: int, lr: float, seed: int
) -> tuple[NDArray[np.float64], Trained]:
    """Norms of the gradients of the hidden layers' matrices before training, and what came of it."""
    before: list[NDArray[np.float64]] = []
    options = {
        "model.hidden": [width] * depth, "model.activation": kind, "model.init": "he" if kind == "relu" else "glorot",
        "train.lr": lr, "train.optimizer": "adam", "train.batch_size": 64, "train.steps": steps,
    }  # fmt: skip
    run = train(
        "mlp", "digits", options, steps=steps, seed=seed, change=lambda made: before.append(_gradients(made, depth))
    )
    return before[0], run


def _gradients(made: Prepared, depth: int) -> NDArray[np.float64]:
    batch = made.task.batch("train", np.arange(256), epoch=None)
    norms = {one.path: one.norm for one in gradients(made.task, made.model, batch).weights}
    return np.array([norms[f"dense{number}/kernel"] for number in range(1, depth + 1)])
