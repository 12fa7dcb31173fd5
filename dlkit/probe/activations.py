"""Activations over many examples: how large they are, how many are zero, which ReLU units are never on, and more."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.batching import Batch
from dlkit.errors import DataError, UsageError
from dlkit.layers.activations import relu_squared
from dlkit.layers.norms import BatchNorm
from dlkit.layers.recurrent import GRU, LSTM, Recurrent
from dlkit.probe.features import computing_layers, shape_text, watched
from dlkit.probe.views import IMAGES, Subject, View
from dlkit.probe.watching import Seen, inner_layers, is_flat, watching
from dlkit.summary import kind
from dlkit.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Sums = dict[str, NDArray]

# A unit is saturated where the slope of its non-linearity is less than this share of the greatest slope.
FLAT = 0.1


@dataclass(frozen=True)
class LayerActivations:
    """The outputs of one layer over a set of examples.

    Args:
        layer: the layer's name; of a gate of a recurrent layer, behind it the gate's.
        shape: of the output for one example; None for a length that differs.
        mean: over all examples, positions and channels.
        std: likewise, the standard deviation.
        zeros: the share of outputs that are exactly 0.
        units: the number of channels, or of features of a dense layer.
        dead: how many units were never above 0, at any position of any example; None where the layer has no ReLU.
        kind: of layer, such as `conv 3/1` or `batch norm`.
        saturated: the share of outputs of a sigmoid or tanh at which its slope is less than a tenth of its greatest,
            which is 1/4 of a sigmoid and 1 of a tanh; None for other layers.
        mean_gap: of batch norm, how far the means of these inputs are from the running ones, in running standard
            deviations, on average over the channels; None for other layers.
        variance_ratio: of batch norm, the variance of these inputs over the running one, geometric mean over channels.
    """

    layer: str
    shape: tuple[int | None, ...]
    mean: float
    std: float
    zeros: float
    units: int
    dead: int | None
    kind: str = ""
    saturated: float | None = None
    mean_gap: float | None = None
    variance_ratio: float | None = None


def activations(
    model: keras.Model, batches: Iterable[NDArray[np.float32]], names: Sequence[str]
) -> list[LayerActivations]:
    """Measures the outputs of the named layers over batches of images, as at test time.

    Sums are kept in float64 and no outputs are, so the number of images does not matter to memory.

    Args:
        model: a functional model.
        batches: arrays (n, height, width, channels), standardized.
        names: names of layers.

    Raises:
        dlkit.errors.DataError: there are no images.
    """
    layers = {name: model.get_layer(name) for name in names}
    norms = [name for name, layer in layers.items() if _is_batch_norm(layer)]
    net = watched(model, names, inputs_of=norms)

    @tf.function(reduce_retracing=True)
    def measure(images: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        outputs, inputs = net(images, training=False)
        return {
            name: _sums(output, has_slope=_slope(layers[name])) | (_moments(inputs[name]) if name in inputs else {})
            for name, output in outputs.items()
        }

    totals = _Totals()
    for batch in batches:
        totals.add(measure(tf.convert_to_tensor(batch)))
    return [_summary(name, layers[name], tuple(layers[name].output.shape[1:]), totals[name]) for name in names]


def activations_of_calls(
    model: keras.Model, task: Task, batches: Iterable[Batch], names: Sequence[str] | None = None
) -> list[LayerActivations]:
    """The same for any model of a task: what its layers give while the task's loss is computed, as at test time.

    Of an LSTM and a GRU the gates are measured, too. Layers that are called more than once count with all calls, and
    layers that are not called are left out.

    Args:
        model: any.
        task: its task.
        batches: of the task, without padding.
        names: of `inner_layers`; None for all.

    Raises:
        dlkit.errors.DataError: there are no examples.
    """
    totals, kept = _Totals(), dict(inner_layers(model))
    shapes: dict[str, tuple[int | None, ...]] = {}

    def measure(seen: Seen) -> None:
        if (names is not None and seen.name not in names) or seen.output is None or not tf.size(seen.output):
            return  # of a text of one word the pairs are nothing
        totals.add({seen.name: _sums(seen.output, has_slope=_slope(seen.layer))})
        if _is_batch_norm(seen.layer):
            totals.add_to(seen.name, _moments(seen.given))
        _note_shape(shapes, seen.name, seen.output)
        for gate, values in gates(seen).items():
            name = f"{seen.name} {gate}"
            totals.add({name: _sums(values, has_slope="tanh" if gate == "candidate" else "sigmoid")})
            _note_shape(shapes, name, values)
            kept.setdefault(name, seen.layer)

    with watching(model, measure):
        for batch in batches:
            tensors = {key: tf.convert_to_tensor(array) for key, array in batch.items()}
            task.loss_sums(model, tensors, training=False, smoothing=0.0)
    if not totals.by_name:
        raise DataError("no examples to look at")
    return [
        _summary(name, kept[name], shapes[name], sums, kind_="gate" if " " in name else None)
        for name, sums in totals.by_name.items()
    ]


class _Totals:
    """Sums of each layer over batches."""

    def __init__(self) -> None:
        self.by_name: dict[str, Sums] = {}

    def add(self, measured: Mapping[str, Mapping[str, tf.Tensor]]) -> None:
        for name, sums in measured.items():
            self.add_to(name, sums)

    def add_to(self, name: str, sums: Mapping[str, tf.Tensor]) -> None:
        own = self.by_name.setdefault(name, {})
        for key, value in sums.items():
            own[key] = own.get(key, 0) + _wide(value)

    def __getitem__(self, name: str) -> Sums:
        if name not in self.by_name:
            raise DataError("no images to look at")
        return self.by_name[name]


def _wide(value: tf.Tensor) -> NDArray:
    """In 64 bits: a whole split has more outputs than 32 bits count."""
    array = np.asarray(value)
    return array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float64)


def _note_shape(shapes: dict[str, tuple[int | None, ...]], name: str, output: tf.Tensor) -> None:
    shape = tuple(output.shape[1:])
    before = shapes.get(name, shape)
    shapes[name] = (
        tuple(one if one == other else None for one, other in zip(before, shape, strict=True))
        if len(before) == len(shape)
        else shape
    )


def _sums(output: tf.Tensor, *, has_slope: str | None = None) -> dict[str, tf.Tensor]:
    values = tf.cast(output, tf.float64)
    over_channels = list(range(values.shape.rank - 1))
    sums = {
        "count": tf.size(values, out_type=tf.int64),
        "values": tf.reduce_sum(values),
        "squares": tf.reduce_sum(values * values),
        "zeros": tf.math.count_nonzero(tf.equal(values, 0)),
        "times_on": tf.math.count_nonzero(values > 0, axis=over_channels),  # (channels,)
    }
    if has_slope is not None:
        slopes = 1 - values**2 if has_slope == "tanh" else 4 * values * (1 - values)  # as shares of the greatest
        sums["flat"] = tf.math.count_nonzero(slopes < FLAT)
    return sums


def _moments(given: tf.Tensor) -> dict[str, tf.Tensor]:
    """Sums over the inputs of a batch norm, by channel."""
    values = tf.cast(given, tf.float64)
    axes = list(range(values.shape.rank - 1))
    rows = tf.size(values, out_type=tf.int64) // tf.shape(values, out_type=tf.int64)[-1]
    return {
        "rows": rows,
        "by_channel": tf.reduce_sum(values, axes),
        "squares_by_channel": tf.reduce_sum(values * values, axes),
    }


def _summary(
    name: str, layer: keras.layers.Layer, shape: tuple[int | None, ...], sums: Sums, kind_: str | None = None
) -> LayerActivations:
    mean = float(sums["values"] / sums["count"])
    variance = float(sums["squares"] / sums["count"]) - mean**2
    gap = ratio = None
    if "rows" in sums:
        means = sums["by_channel"] / sums["rows"]
        variances = np.maximum(sums["squares_by_channel"] / sums["rows"] - means**2, 0)
        running_mean, running = (np.asarray(x, np.float64) for x in (layer.moving_mean, layer.moving_variance))
        # The epsilon of the layer keeps a channel without any spread from counting without end.
        gap = float(np.mean(np.abs(means - running_mean) / np.sqrt(running + layer.epsilon)))
        ratio = float(np.exp(np.mean(np.log((variances + layer.epsilon) / (running + layer.epsilon)))))
    return LayerActivations(
        layer=name,
        shape=tuple(None if side is None else int(side) for side in shape),
        mean=mean,
        std=max(0.0, variance) ** 0.5,
        zeros=float(sums["zeros"] / sums["count"]),
        units=len(sums["times_on"]),
        dead=int(np.sum(sums["times_on"] == 0)) if kind_ is None and has_relu(layer) else None,
        kind=kind_ or kind(layer),
        saturated=float(sums["flat"] / sums["count"]) if "flat" in sums else None,
        mean_gap=gap,
        variance_ratio=ratio,
    )


def _is_batch_norm(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, BatchNorm | keras.layers.BatchNormalization)


def has_relu(layer: keras.layers.Layer) -> bool:
    """Whether what comes out of a layer has passed a ReLU."""
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    return getattr(layer, "activation", None) in {keras.activations.relu, relu_squared}


def _slope(layer: keras.layers.Layer) -> str | None:
    """The non-linearity that what comes out of a layer has passed, if it is one that flattens out on both sides."""
    own = getattr(layer, "activation", None)
    named = {keras.activations.tanh: "tanh", keras.activations.sigmoid: "sigmoid"}
    return next((name for function, name in named.items() if own is function), None)


def gates(seen: Seen) -> dict[str, tf.Tensor]:
    """The gates of an LSTM or a GRU, each (batch, time, units), computed again from a call without padding.

    Returns:
        Gate -> its values; nothing for other layers.
    """
    layer = seen.layer
    return layer.gate_values(*recurrent_products(seen)) if isinstance(layer, LSTM | GRU) else {}


def recurrent_products(seen: Seen) -> tuple[tf.Tensor, tf.Tensor]:
    """Of a call of a recurrent layer x W + b and h U of all steps, each (batch, time, gates)."""
    layer = seen.layer
    assert isinstance(layer, Recurrent)
    inputs, outputs = seen.given, seen.output
    assert inputs is not None
    assert outputs is not None
    first = seen.kwargs.get("initial_state")
    if first is None:
        first = layer.zero_state(tf.shape(inputs)[0])
    h = tf.cast(tf.nest.flatten(first)[0], outputs.dtype)[:, tf.newaxis]
    before = tf.concat([outputs[:, 1:], h], 1) if seen.kwargs.get("reverse") else tf.concat([h, outputs[:, :-1]], 1)
    kernel, recurrent, bias = (
        tf.convert_to_tensor(weight) for weight in (layer.kernel, layer.recurrent_kernel, layer.bias)
    )
    return tf.tensordot(inputs, kernel, 1) + bias, tf.tensordot(before, recurrent, 1)


def view(subject: Subject) -> View:
    """The view `activations`."""
    layers = list(_measured(subject))
    over = subject.over

    def draw() -> "Figure":
        from dlkit.probe import pictures

        return pictures.activations(layers, title=f"{subject.operand}: activations {over}")

    has = {
        "dead": any(one.dead is not None for one in layers),
        "saturated": any(one.saturated is not None for one in layers),
        "batch": any(one.mean_gap is not None for one in layers),
    }
    columns = ["layer", "type", "shape", "mean", "sd", "zeros"] + [key for key in ("dead", "saturated") if has[key]]
    columns += ["mean off by", "variance"] if has["batch"] else []
    notes = [f"{over}; weights: {subject.weights}"]
    if has["dead"]:
        notes.append("a ReLU unit (a channel) is dead when it is not on at any position of any of them")
    if has["saturated"]:
        notes.append("saturated: outputs of a sigmoid or tanh where its slope is less than a tenth of its greatest")
    if has["batch"]:
        notes.append(
            "mean off by, variance: what comes into a batch norm against its running statistics, in their standard"
            " deviations and as a ratio; 0 and 1 where they agree"
        )
    return View(
        columns=columns,
        right=columns[3:],
        rows=[_row(one, columns) for one in layers],
        records=[asdict(one) for one in layers],
        notes=notes,
        draw=draw,
        facts={"split": subject.split_name, "examples": subject.examples},
    )


def _measured(subject: Subject) -> Iterator[LayerActivations]:
    model = subject.model
    if subject.task_name in IMAGES and is_flat(model):
        names = subject.chosen([layer.name for layer in computing_layers(model)])
        yield from activations(model, subject.batches(), names)
        return
    names = subject.chosen([name for name, _ in inner_layers(model)])
    found = activations_of_calls(model, subject.task, subject.unpadded(), names)
    if not found:
        raise UsageError(f"{subject.operand} calls none of these layers", "without --layer the view lists all")
    yield from found


def _row(one: LayerActivations, columns: Sequence[str]) -> list[Any]:
    def share(value: float | None) -> str | None:
        return None if value is None else f"{100 * value:.1f} %"

    cells: dict[str, Any] = {
        "layer": one.layer,
        "type": one.kind,
        "shape": shape_text(one.shape),
        "mean": f"{one.mean:.3g}",
        "sd": f"{one.std:.3g}",
        "zeros": share(one.zeros),
        "dead": None if one.dead is None else f"{one.dead} of {one.units}",
        "saturated": share(one.saturated),
        "mean off by": None if one.mean_gap is None else f"{one.mean_gap:.2g} sd",
        "variance": None if one.variance_ratio is None else f"{one.variance_ratio:.3g}",
    }
    return [cells[column] for column in columns]
