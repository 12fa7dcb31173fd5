"""T3: what a deep net makes of its input before any training, by how its weights were drawn."""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.errors import UsageError
from dlkit.experiments.finding import Finding, Verdict
from dlkit.layers.initializers import initializer
from dlkit.probe.look import on_log_axis
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count

Depth = Annotated[int, Field(ge=2, le=1000)]
Width = Annotated[int, Field(ge=2, le=16_384)]

SIZE = "root mean square of the pre-activations"
TINY = float(np.finfo(np.float32).tiny)  # below it a float32 loses digits


class Net(NamedTuple):
    """One way to draw and to fold."""

    init: str
    activation: str

    def __str__(self) -> str:
        return f"{self.init}, {self.activation}"


FOLDS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {"linear": tf.identity, "relu": tf.nn.relu, "tanh": tf.tanh}


def initialization(
    *,
    depth: Depth = 50,
    width: Width = 1024,
    rows: Count = 256,
    seeds: Count = 5,
    seed: Annotated[int, Field(ge=0)] = 0,
    for_relu: str = "he",
    scaled: str = "xavier",
    small: str = "gaussian:0.0001",
    orthogonal: str = "orthogonal",
) -> Finding:
    """How large the pre-activations of each layer are, in a deep net of dense layers that nobody has trained.

    He et al. 2015, section 2.2, and Glorot and Bengio 2010, section 4.2.1: with weights of variance g / fan_in a layer
    multiplies the mean square of what it gets by g, and ReLU halves it. Inputs are N(0, 1).

    Args:
        depth: layers.
        width: units of each layer.
        rows: inputs that the mean square is taken over.
        seeds: nets of each kind, of orthogonal matrices one; shown is the mean.
        seed: of the first.
        for_relu: how the weights below ReLU are drawn; with another variance than 2 / fan_in, such as that of `xavier`,
            the first verdict turns.
        scaled: how the weights of variance 1 / fan_in are drawn; with one of another variance, such as `he`, the next
            three turn.
        small: how the weights of the net that dies are drawn, `gaussian:SD`; with an SD above 1 / sqrt(width) it does
            not.
        orthogonal: how the matrices of a linear net are drawn, of the first of which the singular values are looked at,
            too; with `gaussian:SD` of another SD than 1 / sqrt(width) the last two verdicts turn.

    Raises:
        dlkit.errors.UsageError: there is no such initializer, or the small one is no `gaussian:SD`.
    """
    if not small.startswith("gaussian:"):
        raise UsageError(f"the small weights are drawn from N(0, sd^2), and {small} says no sd", "say gaussian:SD")
    for init in (for_relu, scaled, small, orthogonal):
        initializer(init)  # said before the first net
    nets = [Net(for_relu, "relu"), Net(scaled, "linear"), Net(scaled, "tanh"), Net(scaled, "relu")]
    nets += [Net(orthogonal, "linear"), Net(small, "linear")]  # last the one that a picture leaves out
    of_relu, linear, tanh, halving, rotating, silent = nets
    # One linear net of matrices that keep every length, however they are drawn; each takes a decomposition.
    counts = {net: 1 if net == Net("orthogonal", "linear") else seeds for net in nets}
    seen = {
        net: np.stack([_sizes(net, depth, width, rows, seed + at) for at in range(count)])
        for net, count in counts.items()
    }
    mean = {net: sizes.mean(0) for net, sizes in seen.items()}
    expected = _tanh_sizes(mean[tanh][0], depth)
    spread = float(small.partition(":")[2])
    shrinking, alive = _ratios(mean[silent])
    singular = np.linalg.svd(np.asarray(next(_weights(orthogonal, 1, width, seed))), compute_uv=False)
    verdicts = [
        _stays(f"{for_relu} keeps ReLU nets alive at every layer", mean[of_relu]),
        _stays(f"{scaled} keeps linear nets alive at every layer", mean[linear]),
        _within(
            f"{scaled} with tanh shrinks as q <- E[tanh(sqrt(q) z)^2] says",
            mean[tanh] / expected - 1, 0.1, "largest error",
        ),
        _within(
            f"{scaled} with ReLU halves the mean square at each layer",
            (mean[halving][1:] / mean[halving][:-1]) ** 2 / 0.5 - 1, 0.15, "largest error",
        ),
        _dies(
            f"{small} shrinks by sd * sqrt(fan_in) at each layer until nothing is left",
            shrinking / (spread * math.sqrt(width)) - 1, alive, mean[silent],
        ),
        _within(f"all singular values of {orthogonal} are 1", singular - 1, 1e-5, "largest deviation"),
        _stays(f"so {orthogonal} keeps linear nets alive at every layer", mean[rotating]),
    ]  # fmt: skip
    layers = list(range(1, depth + 1))
    lines = {
        net: Line(
            str(net), layers, on_log_axis(mean[net]), low=on_log_axis(sizes.min(0)), high=on_log_axis(sizes.max(0))
        )
        for net, sizes in seen.items()
    }
    theory = Line(f"{tanh}, calculated", layers, expected.tolist(), is_theory=True)
    alive_ones = [line for net, line in lines.items() if net != silent]
    shown = sorted({0, depth // 4, depth // 2, 3 * depth // 4, depth - 1})
    return Finding(
        columns=["net", *(f"layer {at + 1}" for at in shown)],
        rows=[[str(net), *(f"{sizes[at]:.3g}" for at in shown)] for net, sizes in mean.items()],
        right=[f"layer {at + 1}" for at in shown],
        verdicts=verdicts,
        charts=[
            Lines(
                f"{depth} dense layers of {width:,} units, untrained", "layer", SIZE, [*lines.values(), theory],
                logarithmic=True,
            ),
            Lines("without the one that dies", "layer", SIZE, [*alive_ones, theory], logarithmic=True),
        ],
        records=[
            {"init": net.init, "activation": net.activation, "rms": sizes.mean(0).tolist(), "seeds": len(sizes)}
            for net, sizes in seen.items()
        ],
        notes=[
            f"root mean square of the pre-activations, mean of {seeds} nets"
            + (", of orthogonal linear ones 1" if Net("orthogonal", "linear") in nets else "")
            + "; the bands are from the least to the greatest of them; inputs are N(0, 1)"
        ],
    )  # fmt: skip


def _weights(init: str, depth: int, width: int, seed: int) -> Iterator[tf.Tensor]:
    keras.utils.set_random_seed(seed)
    for _ in range(depth):
        yield initializer(init)((width, width), "float32")


def _sizes(net: Net, depth: int, width: int, rows: int, seed: int) -> NDArray[np.float64]:
    """Root mean square of the pre-activations of each layer, (depth,)."""
    x = tf.constant(np.random.default_rng(seed).standard_normal((rows, width)), tf.float32)
    found = []
    for weight in _weights(net.init, depth, width, seed):
        z = tf.matmul(x, weight)
        found.append(math.sqrt(float(tf.reduce_mean(tf.square(tf.cast(z, tf.float64))))))
        x = FOLDS[net.activation](z)
    return np.array(found)


def _tanh_sizes(first: float, depth: int) -> NDArray[np.float64]:
    """Square roots of q <- E[tanh(sqrt(q) z)^2], z of N(0, 1), from the first layer on, (depth,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(61)  # of exp(-z^2 / 2)
    weights = weights / weights.sum()
    q = [first**2]
    while len(q) < depth:
        q.append(float(weights @ np.tanh(math.sqrt(q[-1]) * points) ** 2))
    return np.sqrt(q)


def _ratios(sizes: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """By what each layer multiplies, as long as float32 can say it to all digits, and the number of such layers."""
    alive = int(np.argmax(sizes < 100 * TINY)) if (sizes < 100 * TINY).any() else len(sizes)
    kept = sizes[: max(alive, 2)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return kept[1:] / kept[:-1], alive


def _stays(claim: str, sizes: NDArray[np.float64]) -> Verdict:
    factors = sizes / sizes[0]
    worst = factors[np.argmax(np.abs(np.log(np.maximum(factors, TINY))))]
    return Verdict(f"{claim}, within a factor of 2", bool(0.5 <= worst <= 2), f"farthest: {worst:.3g} times the first")


def _within(claim: str, errors: NDArray[np.floating] | float, limit: float, what: str) -> Verdict:
    error = float(np.max(np.abs(errors)))
    return Verdict(f"{claim}, within {limit:g}", bool(error <= limit), f"{what}: {error:.2g}")


def _dies(claim: str, errors: NDArray[np.float64], alive: int, sizes: NDArray[np.float64]) -> Verdict:
    """Whether a net does so as calculated, within 0.05, and a millionth of its signal at most comes through."""
    error, left = float(np.max(np.abs(errors))), float(sizes[-1] / sizes[0])
    told = f"largest error over {alive} layers: {error:.2g}; {left:.2g} of the first layer's comes through"
    return Verdict(f"{claim}, within 0.05", error <= 0.05 and left <= 1e-6, told)
