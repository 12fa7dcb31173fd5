"""What a net costs: parameters, shapes, multiply-adds, memory and receptive field of every layer, without running it.

A multiply-add is the product of a weight and an input, or of two activations in attention, added to a sum: what He et
al. (2015, table 1) call FLOPs. Biases, norms, poolings and activation functions are left out. Here one multiply-add is
two FLOPs.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import keras
import numpy as np

from dlkit.errors import UsageError
from dlkit.probe.record import Call, Spec, calls, own_weights, parts, unallocated
from dlkit.probe.watching import has_graph

BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}  # of one activation
SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}  # values that an optimizer keeps for each weight: momentum; two moments

__all__ = ["Count", "Row", "Sees", "Summary", "TrainingMemory", "kind", "summarize", "unallocated"]

Sees = tuple[int, ...] | Literal["all"] | None


@dataclass(frozen=True)
class Count:
    """A number together with its arithmetic, a sum of products.

    Example:
        >>> count = Count(((11, 11, 3, 96), (96,)))
        >>> int(count), str(count)
        (34944, '11*11*3*96 + 96')
    """

    terms: tuple[tuple[int, ...], ...] = ()

    def __int__(self) -> int:
        return sum(math.prod(term) for term in self.terms)

    def __str__(self) -> str:
        return " + ".join("*".join(str(factor) for factor in term) for term in self.terms) or "0"


@dataclass(frozen=True)
class Row:
    """One layer, or several that `Summary.grouped` took together.

    Args:
        name: by place, such as `stage2_block1_conv2`; parts of a nested model stand behind its name and a slash.
        kind: the type, such as `conv 11/4` for a kernel of 11x11 with stride 4.
        output: shape without the batch.
        trainable: parameters that gradients change.
        statistics: parameters that they do not change: moving averages, and whatever is frozen.
        multiply_adds: for one example.
        activation_bytes: what training keeps of this layer for the backward pass, for one example; see `summarize`.
        sees: the receptive field on each spatial axis of the input; "all" behind a layer that looks everywhere; None
            where the net's code could not be followed.
        dense: for a convolution, the weights of a dense layer between the same input and output.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    trainable: Count = Count()
    statistics: Count = Count()
    multiply_adds: Count = Count()
    activation_bytes: int = 0
    sees: Sees = None
    dense: Count | None = None

    @property
    def parameters(self) -> int:
        """Trainable parameters and statistics together."""
        return int(self.trainable) + int(self.statistics)

    @property
    def flops(self) -> int:
        """Floating-point operations for one example: two a multiply-add."""
        return 2 * int(self.multiply_adds)


@dataclass(frozen=True)
class TrainingMemory:
    """What training holds in memory, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All four together."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Summary:
    """All layers of a net in order, and their totals.

    Args:
        model: the net's name.
        inputs: the shapes of its inputs without the batch.
        rows: one a call of a layer.
        precision: what it computes in: float32, bfloat16 or float64.
        notes: what is not exact or not known, in whole sentences.
    """

    model: str
    inputs: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    precision: str = "float32"
    notes: tuple[str, ...] = ()

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the output without the batch."""
        return next((row.output for row in reversed(self.rows) if row.output), ())

    @property
    def trainable(self) -> int:
        """Parameters that gradients change."""
        return sum(int(row.trainable) for row in self.rows)

    @property
    def statistics(self) -> int:
        """Parameters that gradients do not change."""
        return sum(int(row.statistics) for row in self.rows)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.trainable + self.statistics

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one example."""
        return sum(int(row.multiply_adds) for row in self.rows)

    @property
    def flops(self) -> int:
        """Floating-point operations for one example: two a multiply-add."""
        return 2 * self.multiply_adds

    @property
    def activation_bytes(self) -> int:
        """What training keeps for the backward pass, for one example."""
        return sum(row.activation_bytes for row in self.rows)

    @property
    def stem(self) -> str:
        """Kernel and stride of the first convolution, such as `7x7/2`; empty in a net without one."""
        for row in self.rows:
            if match := re.match(r"(?:conv|whitening) (\S+)/(\S+)", row.kind):
                kernel = match[1] if "x" in match[1] else f"{match[1]}x{match[1]}"
                return f"{kernel}/{match[2]}"
        return ""

    @property
    def sees(self) -> Sees:
        """The largest receptive field in front of the first layer that looks everywhere."""
        return max((row.sees for row in self.rows if isinstance(row.sees, tuple)), default=None)

    def most(self, what: Literal["parameters", "activation_bytes"], count: int = 3) -> list[tuple[str, float]]:
        """The layers that hold most of something, and the share of each."""
        total = sum(getattr(row, what) for row in self.rows)
        largest = sorted(self.rows, key=lambda row: -getattr(row, what))[:count]
        return [(row.name, getattr(row, what) / total) for row in largest if getattr(row, what)]

    def training_memory(self, *, batch_size: int, optimizer: str) -> TrainingMemory:
        """What a training step holds at a batch size: weights and statistics, gradients, optimizer state, activations.

        Weights, gradients and optimizer state are float64 under float64, else float32: bfloat16 is for activations.
        """
        size = 8 if self.precision == "float64" else 4
        return TrainingMemory(
            weights=size * self.parameters,
            gradients=size * self.trainable,
            optimizer=size * self.trainable * SLOTS[optimizer],
            activations=batch_size * self.activation_bytes,
        )

    def grouped(self, depth: int) -> "Summary":
        """The same net with the layers whose names agree in the first `depth` levels in one row.

        Levels are parted by `_` and, in nested models, by `/`: at depth 2 `stage2_block1_conv2` belongs to
        `stage2_block1`. Totals stay the same.
        """
        first_levels = re.compile(rf"[^_/]*(?:[_/]+[^_/]+){{0,{depth - 1}}}")
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            match = first_levels.match(row.name)
            groups.setdefault((match and match[0]) or row.name, []).append(row)
        return replace(self, rows=tuple(_merged(name, rows) for name, rows in groups.items()))


def _merged(name: str, rows: list[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    counting = [row for row in rows if int(row.multiply_adds)]
    return Row(
        name=name,
        kind=counting[0].kind if len(counting) == 1 else f"{len(rows)} layers",
        output=rows[-1].output,
        trainable=_sum(row.trainable for row in rows),
        statistics=_sum(row.statistics for row in rows),
        multiply_adds=_sum(row.multiply_adds for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        sees=rows[-1].sees,
        dense=counting[0].dense if len(counting) == 1 else None,
    )


def _sum(counts: Iterable[Count]) -> Count:
    """All terms together; equal ones stand as one product."""
    terms = Counter(term for count in counts for term in count.terms)
    return Count(tuple((times, *term) if times > 1 else term for term, times in terms.items()))


def summarize(model: keras.Model, inputs: Any = None, *, precision: str = "float32") -> Summary:
    """Counts what a model costs. Weights need no values: build it inside `unallocated()`.

    Activation memory is what the backward pass reads, each tensor once, in the bytes of the precision: a layer's output
    is kept when its own derivative is computed from it (ReLU, sigmoid, tanh, softmax, max pooling, dropout), or when
    that of a layer behind it is (as the input of convolutions, dense layers, norms, max pooling and products). Sums,
    averages, padding, slices and other views of the same numbers keep nothing. Recurrent layers also keep the gates and
    the state of every step; attention its queries, keys, values, weights and contexts. A layer that no rule covers
    keeps its input and its output.

    A layer of an unknown kind that has weights is asked, when it has a method `multiply_adds(input_shape,
    output_shape)` (shapes without the batch; a list of them where there are several): it answers for all of its parts,
    with the factors of each product, which are added up. One that keeps more for the backward pass than its input and
    output says how many numbers, in a method `values_inside(input_shapes, output_shapes)`, which gets lists. One that
    applies a net to each element of the first axis of its input, such as the frames of a clip, has the net in
    `net_of_each` instead. Of all others each weight matrix is taken to be used once at each output position, and a note
    says so.

    A model with code of its own may have a property `receptive_field`: how many positions of its input an output
    depends on. That is what its last layer sees.

    Args:
        model: a functional or sequential model, or any other with its inputs.
        inputs: nest of KerasTensors, the one argument that a model without a graph is called with.
        precision: float32, bfloat16 or float64.

    Raises:
        dlkit.errors.UsageError: the model does not fix the size of its input, or has no graph and no inputs are given.

    Example:
        >>> with unallocated():
        ...     model = dlkit.build("alexnet")
        >>> summarize(model).parameters
        62378344
    """
    if inputs is None and not has_graph(model):
        raise UsageError(f"cannot summarize {model.name}: it has no graph, and the shape of its input is not known")
    made = calls(model, inputs)
    for call in made:
        if any(None in spec.shape for spec in (*call.inputs, *call.outputs)):
            raise UsageError(f"cannot count {model.name}: the sizes that {call.name} works on are not fixed")
    memory = _memory(made, BYTES[precision])
    fields = _receptive_fields(made)
    producers = {spec: call for call in made for spec in call.outputs}
    counted: set[int] = set()
    rows: list[Row] = []
    notes: list[str] = []
    own: int | None = getattr(model, "receptive_field", None)
    if inputs is not None:
        note = f"{model.name}: receptive fields are not followed through code of its own"
        notes.append(note if own is None else f"{note}; it says that an output sees {own:,} positions of its input")
    for call, kept in zip(made, memory, strict=True):
        trainable, statistics = _parameters(call.layer, counted)
        multiply_adds, note = _multiply_adds(call)
        notes += [f"{call.name}: {note}"] if note else []
        rows.append(
            Row(
                name=call.name,
                kind=kind(call.layer),
                output=_known(call.outputs[0]),
                trainable=trainable,
                statistics=statistics,
                multiply_adds=multiply_adds,
                activation_bytes=kept,
                sees=_seen(fields.get(call.outputs[0])),
                dense=_as_dense(call, producers),
            )
        )
    if own is not None and rows[-1].sees is None:
        rows[-1] = replace(rows[-1], sees=(own,))
    for name, layer in [(model.name, model), *parts(model)]:
        trainable, statistics = _parameters(layer, counted)
        if int(trainable) or int(statistics):
            notes.append(f"{name}: what its own weights are used for could not be followed")
            rows.append(Row(name, kind(layer), (), trainable, statistics))
    shapes = [x.shape[1:] for x in keras.tree.flatten(model.inputs if inputs is None else inputs)]
    return Summary(model.name, tuple(tuple(shape) for shape in shapes), tuple(rows), precision, tuple(notes))


def _known(spec: Spec) -> tuple[int, ...]:
    return tuple(size or 0 for size in spec.shape)  # summarize has refused unknown sizes


# ---------------------------------------------------------------------------------------------------------- layer kinds

_SHORT = {
    "pooling": "pool", "normalization": "norm", "average": "avg", "re lu": "relu", "p relu": "prelu",
    "input layer": "input", "grouped conv": "conv",
}  # fmt: skip
_WEIGHTED = {"Dense", "BaseConv", "BaseDepthwiseConv", "BaseSeparableConv", "BaseConvTranspose", "EinsumDense"}
_NORMS = {
    "BatchNormalization",
    "BatchNorm",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "UnitNormalization",
}


def _classes(layer: keras.Operation) -> set[str]:
    """The names of a layer's class and of all that it extends, without 1D, 2D and 3D."""
    return {re.sub(r"\dD", "", cls.__name__) for cls in type(layer).__mro__}


def kind(layer: keras.Operation) -> str:
    """The type of a layer as people name it: `conv 3/1` is kernel and stride, `max pool 2/2` window and stride."""
    activation = _activation(layer)
    if "Activation" in _classes(layer):
        return activation
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", re.sub(r"\dD", "", type(layer).__name__))
    text = " ".join(words).lower()
    for long, short in _SHORT.items():
        text = text.replace(long, short)
    if window := _window(layer):
        sizes, strides, _ = window
        text += f" {_by(sizes)}/{_by(strides)}"
    if (groups := getattr(layer, "groups", 1)) != 1 and window:
        text += f", {groups} groups"
    if window and set(window[2]) != {1}:
        text += f", dilation {_by(window[2])}"
    if "Dropout" in _classes(layer):
        text += f" {layer.rate:g}"
    if _classes(layer) & _WEIGHTED and activation != "linear":
        text += f" + {activation}"
    return text


def _by(sizes: tuple[int, ...]) -> str:
    """`3` for equal sizes on all axes, else `3x5`."""
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(str(size) for size in sizes)


def _window(layer: keras.Operation) -> tuple[tuple[int, ...], ...] | None:
    """Kernel or pool size, strides and dilation of a layer that slides a window; None for all others."""
    sizes = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    if sizes is None:
        return None
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    others = [getattr(layer, name, 1) for name in ("strides", "dilation_rate")]
    return sizes, *((other,) * len(sizes) if isinstance(other, int) else tuple(other) for other in others)


def _activation(layer: keras.Operation) -> str:
    """The name of the activation function that a layer is or ends with."""
    name = type(layer).__name__.lower()
    if name in {"relu", "softmax", "sigmoid", "tanh", "gelu", "silu", "elu", "leakyrelu"}:
        return name
    return str(getattr(getattr(layer, "activation", None), "__name__", "linear"))


def _is_recurrent(layer: keras.Operation) -> bool:
    return any(weight.name == "recurrent_kernel" for weight in getattr(layer, "weights", ()))


# -------------------------------------------------------------------------------------------- parameters, multiply-adds


def _parameters(layer: keras.Operation, counted: set[int]) -> tuple[Count, Count]:
    """Trainable parameters and statistics of the weights that are not yet in `counted`."""
    if not isinstance(layer, keras.Layer):
        return Count(), Count()
    fresh = [weight for weight in own_weights(layer) if id(weight) not in counted]
    counted.update(id(weight) for weight in fresh)
    return _size(w for w in fresh if w.trainable), _size(w for w in fresh if not w.trainable)


def _size(weights: Iterable[keras.Variable]) -> Count:
    return _sum(Count((tuple(weight.shape) or (1,),)) for weight in weights)


def _multiply_adds(call: Call) -> tuple[Count, str]:
    """Multiply-adds of one call for one example, and a note when they are not exact."""
    layer, classes = call.layer, _classes(call.layer)
    output = _known(call.outputs[0])
    inputs = [_known(spec) for spec in call.inputs]
    kernels = _kernels(layer)
    places: tuple[int, ...] = output[:-1]  # where the same weights are used again
    note = ""
    if hasattr(layer, "multiply_adds"):
        return _asked(layer, inputs, [_known(spec) for spec in call.outputs]), ""
    if each := _of_each(layer):
        return Count(tuple((inputs[0][0], *term) for row in each.rows for term in row.multiply_adds.terms)), ""
    if "MultiHeadAttention" in classes:
        return _attention(layer, *inputs[:2]), ""
    if classes & {"Attention", "Dot", "Matmul", "Einsum"}:
        return Count(), "the products of its inputs are not counted"
    if classes & (_NORMS | {"PReLU"}) or ("Embedding" in classes and len(output) > len(inputs[0])):  # a look-up
        return Count(), ""
    if "EinsumDense" in classes:
        given, _, result = layer.equation.partition("->")
        places = output
        free = set(given.partition(",")[2]) - set(result)
        kernels = [tuple(n for letter, n in zip(given.partition(",")[2], kernels[0], strict=True) if letter in free)]
    elif "BaseConvTranspose" in classes:
        places = _places(layer, inputs[0])
    elif _is_recurrent(layer):
        places = inputs[0][:-1]
    elif "TimeDistributed" in classes and _classes(layer.layer) & _WEIGHTED:
        pass
    elif classes & _WEIGHTED:
        places = _places(layer, output)
    elif kernels:
        note = "its multiply-adds are an estimate, each weight used once at each output position"
    return Count(tuple((*places, *kernel) for kernel in kernels)), note


def _asked(layer: Any, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]]) -> Count:
    given, results = (shapes[0] if len(shapes) == 1 else shapes for shapes in (inputs, outputs))
    return Count(tuple(map(tuple, layer.multiply_adds(given, results))))


def _of_each(layer: Any) -> Summary | None:
    """What the net costs that a layer applies to each element of its input; None for a layer without one."""
    net = getattr(layer, "net_of_each", None)
    return None if net is None else summarize(net)


def _attention(layer: Any, queries: tuple[int, ...], values: tuple[int, ...]) -> Count:
    """Four projections, then for each head every query times every key and every weight times every value."""
    (wanted, _), (known, _) = queries, values  # numbers of positions
    projections = [(wanted, layer.query_dense), (known, layer.key_dense), (known, layer.value_dense)]
    value_dim = layer.value_dense.kernel.shape[-1]
    return Count(
        (
            *((places, *dense.kernel.shape) for places, dense in [*projections, (wanted, layer.output_dense)]),
            (layer.num_heads, wanted, known, layer.key_dim),
            (layer.num_heads, wanted, known, value_dim),
        )
    )


def _kernels(layer: keras.Operation) -> list[tuple[int, ...]]:
    """The shapes of the weights that inputs are multiplied with: all but vectors and biases."""
    weights = getattr(layer, "weights", ())
    return [tuple(w.shape) for w in weights if len(w.shape) > 1 and not w.name.endswith("bias")]


def _places(layer: keras.Operation, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a shape that are not channels."""
    return shape[1:] if getattr(layer, "data_format", "") == "channels_first" else shape[:-1]


def _as_dense(call: Call, producers: dict[Spec, Call]) -> Count | None:
    """The weights of a dense layer in place of a convolution; zeros that were padded before it need none."""
    if not (_window(call.layer) and _kernels(call.layer)):
        return None
    given = call.inputs[0]
    while (before := producers.get(given)) and _classes(before.layer) & {"ZeroPadding", "Pad"}:
        given = before.inputs[0]
    return Count(((*_known(given), *_known(call.outputs[0])),))


# -------------------------------------------------------------------------------------------------------------- memory

_VIEWS = {"Flatten", "Reshape", "Identity", "Squeeze", "ExpandDims"}
_KEEP_NOTHING = {
    *("InputLayer", "Add", "Subtract", "Average", "Concatenate", "Sum", "Mean", "Split", "GetItem", "Permute"),
    *(
        "Transpose",
        "Pad",
        "ZeroPadding",
        "Cropping",
        "UpSampling",
        "AveragePooling",
        "GlobalAveragePooling",
        "Shortcut",
    ),
}
_READ_THEIR_OUTPUT = {"relu", "relu6", "sigmoid", "tanh", "softmax"}


def _memory(made: list[Call], size: int) -> list[int]:
    """What the backward pass keeps of each call's tensors, in bytes; `size` is that of a floating-point number."""
    origin: dict[Spec, Spec] = {}  # of a view, the tensor that it shows
    kept: dict[Spec, int] = {}  # the call that each kept tensor is counted at: the one that makes it, or reads it first
    inside = [0] * len(made)
    for index, call in enumerate(made):
        for spec in call.outputs:
            if _is_view(call.layer):
                origin[spec] = origin.get(call.inputs[0], call.inputs[0])
        reads_input, reads_output = _reads(call.layer)
        for spec in (*call.inputs * reads_input, *call.outputs * reads_output):
            kept.setdefault(origin.get(spec, spec), index)
        inside[index] = size * _values_inside(call)
    makers: dict[Spec, int] = {}
    for index, call in enumerate(made):
        for spec in call.outputs:
            makers.setdefault(spec, index)  # a layer can pass on what it got
    for spec, reader in kept.items():
        width = size if "float" in spec.dtype else np.dtype(spec.dtype).itemsize
        inside[makers.get(spec, reader)] += width * math.prod(_known(spec))
    return inside


def _is_view(layer: keras.Operation) -> bool:
    classes = _classes(layer)
    idle = ("Dropout" in classes and layer.rate == 0) or ("Activation" in classes and _activation(layer) == "linear")
    return idle or bool(classes & _VIEWS)


def _reads(layer: keras.Operation) -> tuple[bool, bool]:
    """Whether the derivative of a layer is computed from its input, and whether from its output."""
    classes, activation = _classes(layer), _activation(layer)
    if _is_view(layer) or classes & _KEEP_NOTHING:
        return False, False
    if classes & _WEIGHTED:
        return True, activation != "linear"
    if each := _of_each(layer):  # what its net reads: all elements together are the layer's own input and output
        return each.rows[0].activation_bytes > 0, _reads(layer.net_of_each.layers[-1])[1]
    if classes & (_NORMS | {"Embedding", "Multiply"}) or _is_recurrent(layer):
        return True, False
    if "Dropout" in classes or activation in _READ_THEIR_OUTPUT:
        return False, True
    return True, activation == "linear"


def _values_inside(call: Call) -> int:
    """Numbers that are kept for the backward pass and are no layer's output."""
    layer = call.layer
    if hasattr(layer, "values_inside"):
        return int(layer.values_inside([_known(spec) for spec in call.inputs], [_known(spec) for spec in call.outputs]))
    if each := _of_each(layer):
        whole = _known(call.inputs[0])[0] * each.activation_bytes // BYTES[each.precision]
        tensors = zip(_reads(layer), (call.inputs[0], call.outputs[0]), strict=True)
        return whole - sum(math.prod(_known(spec)) for is_read, spec in tensors if is_read)
    if _is_recurrent(layer):
        recurrent = [w.shape for w in layer.weights if w.name == "recurrent_kernel"]
        return _known(call.inputs[0])[0] * sum(units + gates for units, gates in recurrent)
    if "MultiHeadAttention" in _classes(layer):
        (queries, _), (keys, _) = _known(call.inputs[0]), _known(call.inputs[1])
        value_dim = layer.value_dense.kernel.shape[-1]
        per_head = (queries + keys) * (layer.key_dim + value_dim) + queries * keys
        return layer.num_heads * per_head
    if _classes(layer) & _WEIGHTED and _activation(layer) not in {"linear", *_READ_THEIR_OUTPUT}:
        return math.prod(_known(call.outputs[0]))
    return 0


# ---------------------------------------------------------------------------------------------------- receptive fields

_LOOK_EVERYWHERE = {
    *("Flatten", "Reshape", "GlobalAveragePooling", "GlobalMaxPooling", "Mean", "Sum", "GroupNormalization"),
    *("MultiHeadAttention", "Attention", "AdditiveAttention", "Dot", "Matmul", "Einsum"),
}


@dataclass(frozen=True)
class _Field:
    """The window of the input that one position sees, and how far the window moves from one position to the next."""

    size: tuple[Fraction, ...]
    step: tuple[Fraction, ...]


def _receptive_fields(made: list[Call]) -> dict[Spec, _Field | Literal["all"]]:
    """The receptive field of every tensor that can be followed back to the input.

    A window of k with dilation d widens the field by (k - 1) * d * step, and its stride multiplies the step. Where
    branches meet, the widest counts.
    """
    fields: dict[Spec, _Field | Literal["all"]] = {}
    for call in made:
        given = [fields.get(spec) for spec in call.inputs]
        if not call.inputs:
            result: _Field | Literal["all"] | None = _pointwise(call.outputs[0])
        elif _looks_everywhere(call) or "all" in given:
            result = "all"
        elif len(known := [field for field in given if isinstance(field, _Field)]) == len(given):
            result = _behind(call, _widest(known))
        else:
            result = None
        if result:
            fields.update(dict.fromkeys(call.outputs, result))
    return fields


def _pointwise(spec: Spec) -> _Field:
    axes = len(spec.shape) - ("float" in spec.dtype)  # the last axis is channels; ids have none
    return _Field((Fraction(1),) * axes, (Fraction(1),) * axes)


def _looks_everywhere(call: Call) -> bool:
    classes = _classes(call.layer)
    on_features = "Dense" in classes and len(call.inputs[0].shape) == 1
    return on_features or bool(classes & _LOOK_EVERYWHERE) or _is_recurrent(call.layer)


def _widest(fields: list[_Field]) -> _Field:
    return _Field(
        tuple(max(sizes) for sizes in zip(*(field.size for field in fields), strict=False)),
        tuple(max(steps) for steps in zip(*(field.step for field in fields), strict=False)),
    )


def _behind(call: Call, field: _Field) -> _Field:
    """The field behind one layer that `field` stands in front of."""
    layer, classes = call.layer, _classes(call.layer)
    if "UpSampling" in classes:
        sizes = layer.size if isinstance(layer.size, tuple) else (layer.size,)
        return replace(field, step=tuple(step / size for step, size in zip(field.step, sizes, strict=True)))
    if window := _window(layer):
        kernels, strides, dilations = window
        if "BaseConvTranspose" in classes:
            kernels = tuple(math.ceil(kernel / stride) for kernel, stride in zip(kernels, strides, strict=True))
        axes = zip(field.size, field.step, kernels, dilations, strict=True)
        size = tuple(size + (kernel - 1) * dilation * step for size, step, kernel, dilation in axes)
        factors = [Fraction(1, stride) if "BaseConvTranspose" in classes else Fraction(stride) for stride in strides]
    elif classes & {"ZeroPadding", "Pad", "Cropping"}:
        return field
    else:  # a position sees one position; where fewer come out, the others are skipped
        size = field.size
        places = zip(_places(layer, _known(call.inputs[0])), _places(layer, _known(call.outputs[0])), strict=False)
        factors = [Fraction(max(1, round(before / after))) for before, after in places]
    return _Field(size, tuple(step * factor for step, factor in zip(field.step, factors, strict=False)))


def _seen(field: _Field | Literal["all"] | None) -> Sees:
    return tuple(math.ceil(size) for size in field.size) if isinstance(field, _Field) else field
