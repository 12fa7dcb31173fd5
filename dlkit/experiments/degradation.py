"""C7: deeper plain nets learn their training data worse, deeper residual nets better."""

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import console
from dlkit.experiments.finding import Finding, Verdict, deviation
from dlkit.experiments.training import Curves, train
from dlkit.probe.panels import Line, Lines
from dlkit.train.start import Prepared
from dlkit.values import Count, Positive

Depth = Literal[20, 32, 44, 56, 110]


def degradation(
    *,
    data: str = "cifar10",
    shallow: Depth = 20,
    deep: Depth = 56,
    steps: Count = 2400,
    batch_size: Count = 64,
    rates: Annotated[list[Positive], Field(min_length=1)] = [0.05, 0.1, 0.2],  # noqa: B006
    pilot: Count = 150,
    precision: Literal["float32", "bfloat16"] = "bfloat16",
    shortcuts: bool = True,
    seeds: Count = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """Plain and residual nets of two depths, all trained alike; compared is the error on what they train on.

    He et al. 2015, Deep residual learning, section 4.2 and figure 6. The learning rate is the one, of a few, at which
    the shallow plain net has the lowest training loss after a short training: nothing favours the residual nets.

    Args:
        data: images of 32x32, say.
        shallow: layers of the shallow nets.
        deep: layers of the deep ones.
        steps: updates of each net, by momentum with a one-cycle schedule, with crops and flips.
        batch_size: images of an update.
        rates: learning rates that are tried out.
        pilot: updates of each try.
        precision: of the multiplications.
        shortcuts: whether the residual nets have theirs; without, they are plain nets and their verdict turns. With
            `deep` as `shallow` both do.
        seeds: trainings of each net.
        seed: of the first.
    """
    common: dict[str, Any] = {
        "data.augment": ["crop_flip"], "train.batch_size": batch_size, "train.momentum": 0.9, "train.nesterov": True,
        "train.weight_decay": 1e-4, "train.schedule": "one_cycle", "train.warmup": 0.2, "train.precision": precision,
    }  # fmt: skip

    opened: Prepared | None = None  # the first net, with the data that all others share

    def run(net: str, lr: float, updates: int, number: int) -> Curves:
        nonlocal opened
        console.note(f"{net}, seed {number}, learning rate {lr:g}, {updates:,} updates")
        options = common | {"train.lr": lr, "train.steps": updates}
        trained = train(net, data, options, steps=updates, seed=number, like=opened)
        opened = opened or trained.prepared
        return trained.curves

    tried = {rate: run(f"plain{shallow}", rate, pilot, seed).last_loss for rate in rates} if len(rates) > 1 else {}
    lr = min(tried, key=tried.__getitem__) if tried else rates[0]
    nets = {"plain, shallow": f"plain{shallow}", "plain, deep": f"plain{deep}"}
    family, first = ("resnet", seed) if shortcuts else ("plain", seed + seeds)  # the same nets with other seeds
    nets |= {"residual, shallow": f"{family}{shallow}", "residual, deep": f"{family}{deep}"}
    found = {
        title: [run(net, lr, steps, at + (first if title.startswith("residual") else seed)) for at in range(seeds)]
        for title, net in nets.items()
    }
    # Not a number where a training broke off: nothing can be said of such nets then.
    errors = {title: np.array([1 - each.last_accuracy for each in runs]) for title, runs in found.items()}
    broken = sum(not each.is_finished for runs in found.values() for each in runs)
    again = "" if shortcuts else " again"
    labels = {title: net + (again if title.startswith("residual") else "") for title, net in nets.items()}
    curves = {title: np.mean([each.losses for each in runs], 0) for title, runs in found.items()}
    gap = {kind: errors[f"{kind}, deep"] - errors[f"{kind}, shallow"] for kind in ("plain", "residual")}
    spread = {
        kind: float(np.max([deviation(errors[f"{kind}, {depth}"]) for depth in ("shallow", "deep")])) for kind in gap
    }
    window = max(1, steps // 50)
    places = range(0, steps, window)
    wrong = {
        title: np.array([_smooth(100 * (1 - each.accuracies), window) for each in runs])
        for title, runs in found.items()
    }
    return Finding(
        columns=["net", "training error", "of the seeds", "training loss"],
        rows=[
            [
                net, _percent(errors[title].mean(), " %"), " ".join(_percent(each) for each in errors[title]),
                f"{np.mean([each.last_loss for each in found[title]]):.3f}",
            ]
            for title, net in nets.items()
        ],
        right=["training error", "training loss"],
        verdicts=[
            Verdict(
                "the deeper plain net has the higher training error, by more than the spread",
                bool(gap["plain"].mean() > spread["plain"]), _told(gap["plain"], spread["plain"]),
            ),
            Verdict(
                "the deeper residual net has the lower training error, by more than the spread",
                bool(-gap["residual"].mean() > spread["residual"]), _told(gap["residual"], spread["residual"]),
            ),
        ],
        charts=[
            Lines(
                f"{data}, mean of {seeds} trainings of each net", "update", "training loss, nats",
                [Line(labels[title], places, _smooth(each, window)) for title, each in curves.items()],
            ),
            Lines(
                "the error, whose last tenth is compared", "update", "training error, %",
                [
                    Line(labels[title], places, each.mean(0).tolist(), low=each.min(0).tolist(),
                         high=each.max(0).tolist())
                    for title, each in wrong.items()
                ],
            ),
        ],
        records=[
            {"net": net, "lr": lr, "errors": errors[title].tolist(), "losses": [r.last_loss for r in found[title]]}
            for title, net in nets.items()
        ],
        notes=[
            f"learning rate {lr:g}" + (f", the best of {len(tried)} on plain{shallow}" if tried else ""),
            "training error: of the batches of the last tenth of the training, with crops and flips",
            f"curves: mean of {window:,} updates at each point; the bands are from the best to the worst of the seeds",
            *([f"{broken} of {4 * seeds} trainings diverged"] if broken else []),
        ],
    )  # fmt: skip


def _percent(share: float, unit: str = "") -> str:
    return f"{100 * share:.1f}{unit}" if math.isfinite(share) else "diverged"


def _told(gaps: NDArray[np.float64], spread: float) -> str:
    if not np.isfinite(gaps).all():
        return "some diverged"
    gap = float(gaps.mean())
    told = f"{100 * abs(gap):.2f} points {'higher' if gap > 0 else 'lower'}, "
    if math.isnan(spread):
        return told + "one seed has no spread"
    return told + f"standard deviation over the seeds {100 * spread:.2f}"


def _smooth(values: NDArray[np.float64], window: int) -> list[float]:
    return [float(np.mean(values[at : at + window])) for at in range(0, len(values), window)]
