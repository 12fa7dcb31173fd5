"""T2: batch normalization allows larger learning rates."""

from typing import Annotated

import numpy as np
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import Trained, train
from dlkit.layers.norms import Norm
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count, Positive

ALMOST = 1 - 1e-9  # 0.3 is less than 3 * 0.1
CEILING = 10.0  # of the losses that are drawn


def batchnorm_lr(
    *,
    depth: Count = 6,
    width: Count = 64,
    rates: Annotated[list[Positive], Field(min_length=2)] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],  # noqa: B006
    steps: Count = 200,
    solved: Positive = 0.5,
    seeds: Count = 2,
    seed: Annotated[int, Field(ge=0)] = 0,
    norm: Norm = "batch",
) -> Finding:
    """A deep dense net on the digits at learning rate after learning rate, with and without batch norm.

    Ioffe and Szegedy 2015, Batch normalization, section 3.3.

    Args:
        depth: hidden layers.
        width: units of each.
        rates: learning rates, from small to large.
        steps: updates of plain gradient descent, each of 64 digits.
        solved: loss below which a training counts as one that works.
        seeds: trainings of each kind at each rate; the worst counts.
        seed: of the first.
        norm: the normalization that is to help; with `none` the verdict turns.
    """
    kinds = {"none": "no norm", norm: f"{norm} norm"} if norm != "none" else {"none": "no norm", "": "no norm, again"}
    grid = sorted(rates)
    found: dict[str, list[list[Trained]]] = {}
    for kind, title in kinds.items():
        first = seed if kind else seed + seeds
        found[title] = [
            [_trained(kind or "none", depth, width, rate, steps, first + at) for at in range(seeds)] for rate in grid
        ]
    losses = {title: [max(run.last_loss for run in runs) for runs in each] for title, each in found.items()}
    works = {
        title: [rate for rate, loss in zip(grid, each, strict=True) if loss < solved] for title, each in losses.items()
    }
    without, with_norm = (max(each, default=0.0) for each in works.values())
    is_cut = any(loss > CEILING for each in losses.values() for loss in each)
    return Finding(
        columns=["learning rate", *found],
        rows=[[f"{rate:g}", *(_cell(losses[title][at]) for title in found)] for at, rate in enumerate(grid)],
        right=["learning rate", *found],
        verdicts=[
            Verdict(
                f"with {list(found)[1]} the net trains at learning rates at least three times as large",
                with_norm >= ALMOST * 3 * without > 0,
                f"largest that works: {with_norm:g} against {without:g}" + ("" if without else ", which is none"),
            )
        ],
        charts=[
            Lines(
                f"{depth} hidden layers on the digits", "learning rate", f"loss after {steps} updates, nats",
                [Line(title, grid, [min(loss, CEILING) for loss in each]) for title, each in losses.items()],
                log_x=True, logarithmic=True,
                levels=[(CEILING, "so much or more, or diverged")] if is_cut else [],
            )
        ],
        records=[
            {"norm": title, "lr": rate, "loss": loss}
            for title, each in losses.items()
            for rate, loss in zip(grid, each, strict=True)
        ],
        notes=[
            f"worst loss of {seeds} trainings at each rate; above {CEILING:g}, and what diverges, is drawn as "
            f"{CEILING:g}"
        ],
    )  # fmt: skip


def _trained(norm: str, depth: int, width: int, lr: float, steps: int, seed: int) -> Trained:
    options = {
        "model.hidden": [width] * depth, "model.norm": norm, "train.lr": lr, "train.batch_size": 64,
        "train.steps": steps,
    }  # fmt: skip
    return train("mlp", "digits", options, steps=steps, seed=seed)


def _cell(loss: float) -> str:
    return f"{loss:.3f}" if np.isfinite(loss) else "diverged"
