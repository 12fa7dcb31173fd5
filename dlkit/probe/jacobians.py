"""Jacobians of layers, of nets and of recurrent states across time, and how far back in time a loss looks.

A gradient that goes back through many layers, or many steps, is multiplied with a Jacobian at each. Where their
singular values lie below 1 it vanishes, where they lie above 1 it explodes (Bengio et al. 1994; Pascanu et al. 2013,
section 2); a residual block's dH/dx = dF/dx + I stays near the identity (He et al. 2016, Identity mappings, section 2).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.batching import Batch
from dlkit.errors import DataError
from dlkit.layers.recurrent import Recurrent
from dlkit.probe.scores import vectors_of
from dlkit.probe.watching import calls_of, numbered, taping
from dlkit.tasks.task import Task

Function = Callable[[tf.Tensor], tf.Tensor]

EXACT = 512  # from so many inputs and outputs on, singular values are estimated
ROOM = 2**28  # numbers that the rows of Jacobians of all layers may be, 1 GiB of float32
FEWEST = 8  # rows, however wide the layers are
PROBES = 8  # random directions for the mean square
ROUNDS = 30  # of the power iteration


def jacobian(function: Function, x: NDArray) -> NDArray:
    """The derivative of each output with respect to each input, at `x`.

    Args:
        function: from one example to another, TensorFlow from end to end.
        x: where, of any shape.

    Returns:
        (outputs, inputs), both flattened.

    Example:
        >>> jacobian(tf.tanh, np.zeros(2, np.float32))
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    point = tf.convert_to_tensor(x)

    @tf.function(autograph=False)
    def rows(point: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(point)
            y = tf.reshape(function(point), (-1,))
        # Row by row: to do all at once would take as much memory as there are outputs.
        return tape.jacobian(y, point, experimental_use_pfor=False, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    found = np.asarray(rows(point))
    return found.reshape(found.shape[0], -1)


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a Jacobian, in short.

    Args:
        largest: of them.
        mean_square: root of their mean square, over as many as the smaller side has.
        smallest: of them; None where they were estimated.
        inputs: numbers that go in.
        outputs: numbers that come out.
    """

    largest: float
    mean_square: float
    smallest: float | None
    inputs: int
    outputs: int


def spectrum(function: Function, x: NDArray, *, exact: int = EXACT, seed: int = 0) -> Spectrum:
    """The singular values of the Jacobian of a function.

    Up to `exact` inputs or outputs all are computed. Beyond, the largest by power iteration and the mean square from
    products with random directions, whose squares have the squared Frobenius norm as their expectation.

    Args:
        function: see `jacobian`.
        x: where.
        exact: see above.
        seed: of the directions.
    """
    point = tf.convert_to_tensor(x)
    outputs, inputs = int(np.prod(function(point).shape)), int(np.prod(x.shape))
    if min(inputs, outputs) <= exact:
        values = singular_values(_by_the_shorter_side(function, x, inputs, outputs))
        return Spectrum(
            float(values[0]), float(np.sqrt((values**2).mean())), float(values[-1]), inputs, outputs
        )  # fmt: skip
    back, forth = _products(function, point)
    draw = np.random.default_rng(seed)
    squares = []
    for _ in range(PROBES):
        direction = tf.constant(draw.normal(size=function(point).shape), point.dtype)
        squares.append(float(tf.reduce_sum(back(direction) ** 2)))
    direction = tf.constant(draw.normal(size=x.shape), point.dtype)
    largest = 0.0
    for _ in range(ROUNDS):
        norm = float(tf.norm(direction))
        if norm == 0:
            break
        image = forth(direction / norm)
        largest = float(tf.norm(image))
        direction = back(image)
    return Spectrum(largest, float(np.sqrt(np.mean(squares) / min(inputs, outputs))), None, inputs, outputs)


def singular_values(matrix: NDArray) -> NDArray[np.float64]:
    """The singular values of a matrix, the largest first, in float64."""
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def _by_the_shorter_side(function: Function, x: NDArray, inputs: int, outputs: int) -> NDArray:
    """The Jacobian, row by row or column by column, whichever are fewer."""
    if outputs <= inputs:
        return jacobian(function, x)
    back, _ = _products(function, tf.convert_to_tensor(x))
    # v -> J^T v is linear, and its own Jacobian is J^T.
    return jacobian(back, np.zeros(function(tf.convert_to_tensor(x)).shape, x.dtype)).T


def _products(function: Function, point: tf.Tensor) -> tuple[Function, Function]:
    """V -> J^T v and u -> J u."""

    @tf.function(autograph=False)
    def back(v: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(point)
            y = function(point)
        return tape.gradient(y, point, v, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    @tf.function(autograph=False)
    def forth(u: tf.Tensor) -> tf.Tensor:
        v = tf.zeros_like(function(point))
        with tf.GradientTape() as outer:
            outer.watch(v)
            product = back(v)
        return outer.gradient(product, v, u, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return back, forth


# --------------------------------------------------------------------------------------------------------------- layers


@dataclass(frozen=True)
class ToOutput:
    """How what a layer gives goes into what the net says.

    Args:
        layer: its name, and of a second call of it the number behind.
        values: the singular values of d logits / d output, the largest first.
        size: numbers that the layer gives.
        logits: how many logits were looked at, the most probable ones.
        of: how many there are.
    """

    layer: str
    values: NDArray[np.float64]
    size: int
    logits: int
    of: int

    @property
    def median(self) -> float:
        """Of those that are not 0: where there are more logits than the net is wide, some are. 0 where all are."""
        there = self.values[self.values > 1e-6 * self.values[0]]
        return float(np.median(there)) if len(there) else 0.0


def to_output(
    model: keras.Model, logits: Callable[[], tf.Tensor], *, most: int = 64, room: int = ROOM
) -> list[ToOutput]:
    """The Jacobian of a net's logits with respect to what each of its layers gives: the product of all behind it.

    Args:
        model: any.
        logits: runs it on one example and returns its logits, (outputs,).
        most: of more outputs than these the most probable are taken.
        room: as many fewer of them, down to `FEWEST`, as all Jacobians together have no more numbers than this.

    Returns:
        Of each call in order. A Jacobian that is 0 because it is too small for floating point is one, too: it has
        vanished. Calls that the logits do not depend on are left out, and so are those that give no number at all.
    """
    with tf.GradientTape(persistent=True) as tape:
        with taping(model, tape) as calls:
            told = logits()
        outputs = {name: seen.output for name, seen in zip(numbered(calls), calls, strict=True) if _size(seen.output)}
        fits = max(FEWEST, room // max(1, sum(_size(output) for output in outputs.values())))
        chosen = np.sort(np.argsort(-np.asarray(told))[: min(most, fits)])
        parts = [told[int(at)] for at in chosen]
    matrices: dict[str, NDArray] = {}
    for at, part in enumerate(parts):
        gradients = tape.gradient(part, outputs)
        for name, gradient in gradients.items():
            if gradient is None:  # there is no way to the logit
                continue
            row = np.asarray(tf.convert_to_tensor(gradient)).ravel()
            matrices.setdefault(name, np.zeros((len(parts), len(row)), row.dtype))[at] = row
    del tape
    return [
        ToOutput(name, singular_values(matrices.pop(name)), _size(output), len(parts), int(told.shape[0]))
        for name, output in outputs.items()
        if name in matrices
    ]


def _size(output: tf.Tensor) -> int:
    return int(np.prod(output.shape))


# ---------------------------------------------------------------------------------------------------------- across time


@dataclass(frozen=True)
class AcrossTime:
    """The Jacobians of the state of one recurrent layer, for one sequence.

    Args:
        layer: its name.
        size: numbers of the state; an LSTM's is h and c.
        each: (steps, size), the singular values of d state_t / d state_{t-1}, the largest first, at each step but the
            first.
        distances: numbers of steps.
        product: (distances, size), the singular values of d state_T / d state_{T-d}: of so many Jacobians multiplied.
    """

    layer: str
    size: int
    each: NDArray[np.float64]
    distances: NDArray[np.int64]
    product: NDArray[np.float64]


def state_jacobians(layer: Recurrent, inputs: NDArray, first: Any = None) -> NDArray[np.float64]:
    """D state_t / d state_{t-1} of a recurrent layer at each step, the state being one vector.

    Args:
        layer: built.
        inputs: (time, features), in the order in which the layer reads them.
        first: the state before the first input, of tensors (units,); None for zeros.

    Returns:
        (time, size, size); entry [t, i, j] is the derivative of number i after step t to number j before it.

    Example:
        >>> state_jacobians(lstm.stack.levels[0][0], inputs).shape  # inputs (100, 2), 64 units
        (100, 128, 128)
    """
    state = layer.zero_state(1) if first is None else tf.nest.map_structure(lambda leaf: leaf[tf.newaxis], first)
    leaves = len(tf.nest.flatten(state))
    size = layer.units * leaves

    @tf.function(autograph=False)
    def step(x: tf.Tensor, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The next state and its Jacobian: as many equal rows as the state has numbers, and of row i number i."""
        rows = tf.tile(vector[tf.newaxis], (size, 1))
        with tf.GradientTape() as tape:
            tape.watch(rows)
            before = tf.nest.pack_sequence_as(state, tf.split(rows, leaves, axis=-1))
            _, after = layer.step(tf.tile(x[tf.newaxis], (size, 1)), before)
            flat = tf.concat(tf.nest.flatten(after), -1)
            diagonal = tf.linalg.diag_part(flat)
        return flat[0], tape.gradient(diagonal, rows)

    vector = tf.concat(tf.nest.flatten(state), -1)[0]
    found = []
    for x in tf.convert_to_tensor(inputs):
        vector, derivative = step(x, vector)
        found.append(np.asarray(derivative, np.float64))
    return np.stack(found)


def across_time(name: str, layer: Recurrent, inputs: NDArray, first: Any = None, *, points: int = 24) -> AcrossTime:
    """The singular values of the Jacobians of a state, step by step and multiplied.

    Args:
        name: of the layer.
        layer: built.
        inputs: (time, features), in the order in which the layer reads them; two steps or more.
        first: see `state_jacobians`.
        points: numbers of steps for which the product is looked at, at most.
    """
    jacobians = state_jacobians(layer, inputs, first)[1:]  # at the first there is no step before
    if not len(jacobians):
        raise DataError(f"{name}: one step has no step before it", "look at a longer sequence")
    each = np.stack([singular_values(one) for one in jacobians])
    count = len(jacobians)
    distances = np.unique(np.geomspace(1, count, min(points, count)).round().astype(np.int64))
    product, values = np.eye(jacobians.shape[1]), []
    for distance in range(1, count + 1):
        product = product @ jacobians[-distance]
        if distance in distances:
            values.append(singular_values(product))
    return AcrossTime(name, jacobians.shape[1], each, distances, np.stack(values))


def recurrent_calls(model: keras.Model, run: Callable[[], Any]) -> list[tuple[str, Recurrent, NDArray, Any]]:
    """The recurrent layers that read whole sequences while `run` runs: of the first row name, layer, inputs, state.

    Inputs are in the order in which the layer reads them.
    """
    calls, _ = calls_of(model, run)
    found = []
    for name, seen in zip(numbered(calls), calls, strict=True):
        if isinstance(seen.layer, Recurrent) and seen.given is not None:
            inputs = np.asarray(seen.given)[0]
            first = seen.kwargs.get("initial_state")
            first = None if first is None else tf.nest.map_structure(lambda leaf: leaf[0], first)
            found.append((name, seen.layer, inputs[::-1] if seen.kwargs.get("reverse") else inputs, first))
    return found


# ------------------------------------------------------------------------------------------ from the loss to the inputs


def gradient_by_distance(task: Task, model: keras.Model, batches: Iterable[Batch]) -> NDArray[np.float64]:
    """How large the gradient of the last loss is with respect to each earlier input, by its distance from the end.

    Args:
        task: one with an input at each step: sequences, clips, or words, whose vectors then count as inputs.
        model: of that task.
        batches: of the task, without padding.

    Returns:
        (steps,): entry d is the Euclidean norm of d loss / d input_{T-d}, the mean over the sequences that are so long.

    Raises:
        dlkit.errors.DataError: there are no batches.
    """
    sums: NDArray[np.float64] = np.zeros(0)
    counts: NDArray[np.float64] = np.zeros(0)
    for batch in batches:
        norms = _input_norms(task, model, batch)[:, ::-1]  # (rows, steps), the last one first
        longer = max(0, norms.shape[1] - len(sums))
        sums, counts = (np.pad(array, (0, longer)) for array in (sums, counts))
        sums[: norms.shape[1]] += norms.sum(axis=0)
        counts[: norms.shape[1]] += len(norms)
    if not len(sums):
        raise DataError("no sequences to look at")
    return sums / counts


def _input_norms(task: Task, model: keras.Model, batch: Batch) -> NDArray[np.float64]:
    tensors = {key: tf.convert_to_tensor(array) for key, array in batch.items()}
    shown = tensors[task.about.shown]
    with tf.GradientTape() as tape:
        tape.watch([shown] if shown.dtype.is_floating else [])
        with taping(model, tape) as calls:
            loss = task.last_loss(model, tensors)
    inputs = shown if shown.dtype.is_floating else vectors_of(calls, np.asarray(shown))
    gradient = tape.gradient(loss, inputs, unconnected_gradients="zero")
    values = np.asarray(tf.convert_to_tensor(gradient), np.float64)[:, -shown.shape[1] :]
    return np.linalg.norm(values.reshape(*values.shape[:2], -1), axis=-1)
