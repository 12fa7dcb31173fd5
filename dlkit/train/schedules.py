"""Learning rates: pure functions of the step, without TensorFlow.

With n = 1, 2, ... T the number of the update (the functions take step = n - 1), W the update at which warm-up ends
(1 without warm-up), p = (n - W) / (T + 1 - W) the share of the way from there to the end, and f = final_lr:

    n < W           n / W times what the schedule gives at n = W
    constant        lr
    step            lr gamma^k, with k the number of milestones <= (n - 1) / T
    cosine          lr (f + (1 - f) (1 + cos(pi p)) / 2)        Loshchilov & Hutter 2017, eq. 5, without restarts
    one_cycle       lr (f + (1 - f) (1 - p)), W = 0.3 T         Smith & Topin 2018, one triangle
    polynomial      lr (f + (1 - f) (1 - p)^power)
    inverse_sqrt    lr sqrt(W / n)
    noam            lr width^-0.5 min(n^-0.5, n W^-1.5)         Vaswani et al. 2017, section 5.3
    plateau         lr gamma^k, with k the number of times that the watched value stood still (class Plateau)

p would be 1 one update after the last, so that final_lr = 0 wastes none. one_cycle goes down in a straight line, as
Smith's cycles do; `cosine` with a warm-up of 0.3 is the variant that goes down in a cosine.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from dlkit.errors import CheckpointError, UsageError, unknown
from dlkit.tasks import Direction

SCHEDULES = ("constant", "step", "cosine", "one_cycle", "polynomial", "inverse_sqrt", "noam")


def schedule(
    name: str,
    *,
    lr: float,
    total_steps: int,
    warmup: float = 0,
    final_lr: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    power: float = 1.0,
    width: int | None = None,
) -> Callable[[int], float]:
    """The learning rate as a function of the step, which counts from 0; the formulas stand above.

    Args:
        name: constant, step, cosine, one_cycle, polynomial, inverse_sqrt or noam.
        lr: the rate at the peak; for noam a factor, 1 in the paper.
        total_steps: number of updates of the whole training.
        warmup: number of updates of a linear rise, or below 1 a share of `total_steps`. 0 is none (one_cycle: 0.3).
        final_lr: the end of cosine, one_cycle and polynomial, as a share of lr.
        milestones: shares of the training, rising, at each of which step multiplies the rate by gamma.
        gamma: factor of step.
        power: exponent of polynomial.
        width: the model's width (d_model), which noam needs.

    Raises:
        dlkit.errors.UsageError: an unknown name, a value out of range, or values that do not go together.

    Example:
        >>> rate = schedule("cosine", lr=0.1, total_steps=100)
        >>> rate(0), rate(50)
        (0.1, 0.049999999999999996)
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if name == "one_cycle":
        warmup, power = warmup or 0.3, 1.0
    peak_at = _warmup_end(lr, total_steps, warmup)
    _require(0 <= final_lr <= 1, f"final lr is a share of lr, from 0 to 1, and not {final_lr}")
    _require(0 < power < math.inf, f"power must be above 0, and is {power}")
    _require(0 < gamma <= 1, f"gamma must be above 0 and at most 1, and is {gamma}")
    _require(
        name not in {"inverse_sqrt", "noam"} or warmup > 0,
        f"schedule {name} needs a warm-up, which also sets how slowly the rate falls",
        "`--warmup 4000` is usual",
    )
    _require(
        name != "noam" or (width is not None and width >= 1),
        "schedule noam needs the width of the model, and this model has none",
        "use `--schedule inverse_sqrt`, which has the same form and takes its peak from --lr",
    )
    drops = _drops(milestones, total_steps, peak_at) if name == "step" else []

    def factor(n: int) -> float:
        """What lr is multiplied by from the end of warm-up on."""
        left = max(0.0, 1 - (n - peak_at) / (total_steps + 1 - peak_at))
        match name:
            case "step":
                return gamma ** sum(n > drop for drop in drops)
            case "cosine":
                return final_lr + (1 - final_lr) * (1 - math.cos(math.pi * left)) / 2
            case "one_cycle" | "polynomial":
                return final_lr + (1 - final_lr) * left**power
            case "inverse_sqrt":
                return math.sqrt(peak_at / n)
            case "noam":
                return 1 / math.sqrt((width or 1) * n)
        return 1.0

    def rate(step: int) -> float:
        n = step + 1
        return lr * factor(n) if n >= peak_at else lr * factor(peak_at) * n / peak_at

    return rate


def is_better(value: float, best: float | None, direction: Direction) -> bool:
    """Whether `value` beats the best so far; what is not a number beats nothing."""
    if not math.isfinite(value):
        return False
    return best is None or (value < best if direction == "lower" else value > best)


class Plateau:
    """Lowers the rate when a value stops getting better: a schedule with a memory.

    Args:
        lr: the rate at first.
        total_steps: number of updates of the whole training; only a warm-up given as a share looks at it.
        warmup: as in `schedule`.
        gamma: factor of each drop.
        patience: number of observations in a row without a new best after which the rate drops.
        direction: which values are better.

    Raises:
        dlkit.errors.UsageError: a value is out of range.
    """

    def __init__(
        self,
        *,
        lr: float,
        total_steps: int,
        warmup: float = 0,
        gamma: float = 0.1,
        patience: float = 5,
        direction: Direction = "lower",
    ) -> None:
        self._peak_at = _warmup_end(lr, total_steps, warmup)
        _require(0 < gamma <= 1, f"gamma must be above 0 and at most 1, and is {gamma}")
        _require(patience > 0, f"patience must be above 0, and is {patience}")
        self._lr, self._gamma, self._patience, self._direction = lr, gamma, patience, direction
        self._best: float | None = None
        self._waited = 0
        self._drops = 0

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        return self._lr * self._gamma**self._drops * min(1.0, (step + 1) / self._peak_at)

    def observe(self, value: float) -> None:
        """Looks at one evaluation. A value that is not a number is never an improvement."""
        if is_better(value, self._best, self._direction):
            self._best, self._waited = float(value), 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            self._drops, self._waited = self._drops + 1, 0

    @property
    def state(self) -> dict[str, float | None]:
        """What a checkpoint keeps, as JSON values."""
        return {"best": self._best, "waited": self._waited, "drops": self._drops}

    def restore(self, state: Mapping[str, float | None]) -> None:
        """Goes on from a `state`.

        Raises:
            dlkit.errors.CheckpointError: it is the state of something else.
        """
        waited, drops = state.get("waited"), state.get("drops")
        if state.keys() != self.state.keys() or waited is None or drops is None:
            raise CheckpointError("the state of the plateau schedule is not whole", "start from an earlier checkpoint")
        self._best, self._waited, self._drops = state["best"], int(waited), int(drops)


def _require(rule: bool, message: str, hint: str = "") -> None:
    if not rule:
        raise UsageError(message, hint)


def _warmup_end(lr: float, total_steps: int, warmup: float) -> int:
    """The number n of the first update at the full rate, from 1."""
    _require(0 < lr < math.inf, f"lr must be above 0, and is {lr}")
    _require(total_steps >= 1, f"training takes at least one step, and not {total_steps}")
    _require(
        warmup >= 0 and (warmup < 1 or float(warmup).is_integer()),
        f"warm-up is a number of steps or, below 1, a share of them, and not {warmup}",
    )
    steps = round(warmup * total_steps) if warmup < 1 else int(warmup)
    _require(
        steps <= total_steps,
        f"the warm-up of {steps:,} steps is longer than the training of {total_steps:,}",
        "below 1, --warmup is a share of the training: `--warmup 0.1`",
    )
    return max(1, steps)


def _drops(milestones: Sequence[float], total_steps: int, peak_at: int) -> list[int]:
    """Numbers of updates done when the rate drops."""
    shares = list(milestones)
    rising = all(a < b for a, b in zip([0.0, *shares], [*shares, 1.0], strict=True))
    _require(
        bool(shares) and rising, f"milestones are rising shares of the training, between 0 and 1, and not {shares}"
    )
    drops = [math.ceil(share * total_steps - 1e-9) for share in shares]  # 0.55 * 100 is a little above 55
    _require(
        drops[0] >= peak_at,
        f"the first milestone, {shares[0]:g} of {total_steps:,} steps, comes before the warm-up ends at {peak_at:,}",
    )
    return drops


def own_word_probability(name: str, *, rate: float, total_steps: int) -> Callable[[int], float]:
    """Scheduled sampling: how probably a decoder reads its own word, as a function of the step, which counts from 0.

    The shapes are those of Bengio et al. 2015, section 2.4, scaled to rise from 0 at the beginning to `rate` at the
    end. With x = step / (total_steps - 1):

        constant          rate
        linear            rate x
        exponential       rate (1 - k^x) / (1 - k), k = 0.01                        fast, then slow
        inverse_sigmoid   rate (s(x) - s(0)) / (s(1) - s(0)), s(x) = 1 / (1 + exp(12 (1/2 - x)))

    Args:
        name: constant, linear, exponential or inverse_sigmoid.
        rate: the largest probability.
        total_steps: number of updates of the whole training.

    Raises:
        dlkit.errors.UsageError: an unknown name.
    """

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(12 * (0.5 - x)))

    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda x: 1.0,
        "linear": lambda x: x,
        "exponential": lambda x: (1 - 0.01**x) / (1 - 0.01),
        "inverse_sigmoid": lambda x: (sigmoid(x) - sigmoid(0)) / (sigmoid(1) - sigmoid(0)),
    }
    if name not in shapes:
        raise unknown("schedule of own words", name, shapes)
    return lambda step: rate * shapes[name](min(1.0, step / max(1, total_steps - 1)))
