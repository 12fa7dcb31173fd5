"""Which layers a net calls, in order, and the shapes of what each gets and gives; nothing is computed."""

import functools
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state

from dlkit.probe.watching import WHOLE, each_call, has_graph, parts_of


@dataclass(frozen=True, eq=False)
class Spec:
    """A tensor's shape without the batch, and its type. Two calls that share a tensor share the object."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Args:
        name: the layer's name, after those of the layers that it lies in: `encoder/conv1`.
        layer: the layer, or a Keras operation without weights, such as a sum of two tensors.
        inputs: the tensors that it gets, masks apart.
        outputs: the tensors that it gives.
    """

    name: str
    layer: keras.Operation
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]


@contextmanager
def unallocated() -> Iterator[None]:
    """Models that are built inside have weights with shapes and without values: good to look at, not to compute with.

    Keras alone would give the weights their values when the next such scope ends, whoever opens it.

    Example:
        >>> with unallocated():
        ...     model = dlkit.build("vgg16")  # takes no 528 MiB
    """
    waiting = list(global_state.get_global_attribute("uninitialized_variables", []))
    with keras.StatelessScope(initialize_variables=False):
        try:
            yield
        finally:
            global_state.set_global_attribute("uninitialized_variables", waiting)


def calls(model: keras.Model, inputs: Any = None) -> list[Call]:
    """The calls of a model's layers, its submodels' layers included, in reading order.

    Args:
        model: a model with a graph (functional or sequential), or any other together with its inputs.
        inputs: nest of KerasTensors or TensorSpecs with the batch, when the model has no graph.

    Raises:
        ValueError: the model has no graph, and no inputs were given.
    """
    if inputs is not None:
        return recorded(model, inputs)
    if not has_graph(model):
        raise ValueError(f"model {model.name} has no graph of its own: say what it is called with")
    return _from_graph(model, {}, "")


def recorded(layer: keras.Layer, *args: Any, **kwargs: Any) -> list[Call]:
    """Traces one call of a layer or model in training, and returns the calls of all layers in it that have no parts.

    Args:
        layer: a model or a layer made of others.
        args: its arguments, with KerasTensors or TensorSpecs for tensors; an unknown batch is taken as 1.
        kwargs: likewise.

    Example:
        >>> recorded(model, (keras.KerasTensor((1, 10), "int32"), keras.KerasTensor((1, 11), "int32")))
    """
    return _traced(layer, args, kwargs, {}, "")[0]


def parts(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """All layers inside `layer` with their names, each once, and before what it is made of."""
    seen: set[int] = set()

    def inside(owner: keras.Layer, prefix: str) -> Iterator[tuple[str, keras.Layer]]:
        for part in parts_of(owner):
            if id(part) in seen:
                continue
            seen.add(id(part))
            yield prefix + part.name, part
            if not is_whole(part):
                yield from inside(part, f"{prefix}{part.name}/")

    return inside(layer, prefix)


def is_whole(layer: keras.Layer) -> bool:
    """Whether a layer counts as one: it has no parts, or it says itself what it costs with all its parts."""
    says = hasattr(layer, "multiply_adds") or hasattr(layer, "net_of_each")
    return isinstance(layer, WHOLE) or says or not parts_of(layer)


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The weights that belong to a layer itself; all of them when it counts as one."""
    if is_whole(layer):
        return list(layer.weights)
    inside = {id(weight) for _, part in parts(layer) for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def _from_graph(model: keras.Model, specs: dict[int, Spec], prefix: str) -> list[Call]:
    """The calls of a model with a graph; `specs` learns its tensors, and knows its inputs inside of another graph."""
    found: list[Call] = []
    for node in nodes_of(model):
        layer = node.operation
        if node.is_input and id(node.outputs[0]) in specs:
            continue  # the outer graph's tensor stands for it
        name = prefix + layer.name
        got = tuple(_of_keras(tensor, specs) for tensor in node.input_tensors)
        if has_graph(layer) and [s.shape for s in got] == [tuple(x.shape[1:]) for x in layer.inputs]:
            inner = {id(x): spec for x, spec in zip(layer.inputs, got, strict=True)}
            found += _from_graph(layer, inner, name + "/")
            given = [inner[id(x)] for x in layer.outputs]
        elif isinstance(layer, keras.Layer) and not is_whole(layer):
            inside, given = _traced(layer, node.arguments.args, node.arguments.kwargs, specs, name + "/")
            found += inside
        else:
            found.append(Call(name, layer, got, tuple(_of_keras(tensor, specs) for tensor in node.outputs)))
            continue
        specs.update({id(x): spec for x, spec in zip(node.outputs, given, strict=True)})
    return found


def nodes_of(model: keras.Model) -> list[Any]:
    """The nodes of a model's graph: each after those it needs, and a branch as a whole before the next one."""
    ordered: dict[Any, None] = {}
    limits = {id(tensor) for tensor in model.inputs}

    def visit(tensor: Any) -> None:
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if node in ordered or (id(tensor) in limits and not node.is_input):
            return
        for needed in node.input_tensors:
            visit(needed)
        ordered[node] = None

    for tensor in (*model.inputs, *model.outputs):
        visit(tensor)
    return list(ordered)


def _of_keras(tensor: Any, specs: dict[int, Spec]) -> Spec:
    if id(tensor) not in specs:
        specs[id(tensor)] = Spec(tuple(tensor.shape[1:]), str(tensor.dtype))
    return specs[id(tensor)]


def _traced(
    layer: keras.Layer, args: Any, kwargs: Any, specs: dict[int, Spec], prefix: str
) -> tuple[list[Call], list[Spec]]:
    """The calls inside `layer`, and what it gives; `specs` knows the tensors among its arguments that have a Spec."""
    found: list[Call] = []
    results: list[Spec] = []
    seen: dict[int, tuple[Any, Spec]] = {}  # a traced tensor's id -> the tensor, kept alive, and its Spec

    def specs_of(nest: Any) -> tuple[Spec, ...]:
        tensors = [x for x in keras.tree.flatten(nest) if tf.is_tensor(x)]
        for x in tensors:
            seen.setdefault(id(x), (x, Spec(tuple(x.shape[1:]), x.dtype.name)))
        return tuple(seen[id(x)][1] for x in tensors)

    def note(name: str, part: keras.Layer, args: tuple, kwargs: dict[str, Any], got: Any) -> None:
        given = [args, [value for key, value in kwargs.items() if not key.endswith("mask")]]
        found.append(Call(name, part, specs_of(given), specs_of(got)))

    def run(*tensors: Any) -> None:
        for symbol, tensor in zip(symbols, tensors, strict=True):
            if id(symbol) in specs:
                seen[id(tensor)] = (tensor, specs[id(symbol)])
        fill = iter(tensors)
        here = keras.tree.map_structure(lambda x: next(fill) if _is_symbol(x) else x, [args, kwargs])
        # Weights without values would be drawn anew at each use, in the graph: costly even if nothing is run.
        weights = [(weight, tf.compat.v1.placeholder(weight.dtype, weight.shape)) for weight in layer.variables]
        with keras.StatelessScope(weights, initialize_variables=False):
            results[:] = specs_of(layer(*here[0], **here[1]))

    if "training" in inspect.signature(layer.call).parameters:
        kwargs = {"training": True} | kwargs
    symbols = [x for x in keras.tree.flatten([args, kwargs]) if _is_symbol(x)]
    signature = [tf.TensorSpec((x.shape[0] or 1, *x.shape[1:]), x.dtype) for x in symbols]
    inside = list(parts(layer, prefix))
    with ExitStack() as stack:
        stack.enter_context(keras.StatelessScope())  # moving statistics stay as they are
        if not all(part.built or is_whole(part) for part in (layer, *(part for _, part in inside))):
            # A first call builds what is not built yet: Keras calls such a layer more than once to do so.
            tf.function(run, autograph=False).get_concrete_function(*signature)
        for name, part in inside:
            if is_whole(part):
                stack.enter_context(each_call(part, functools.partial(note, name, part)))
        tf.function(run, autograph=False).get_concrete_function(*signature)
    return found, results


def _is_symbol(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor | tf.TensorSpec)
