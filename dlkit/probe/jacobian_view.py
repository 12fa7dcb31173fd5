"""The view `jacobian`: singular values of layers, or of recurrent states across time."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.layers.recurrent import GRU, LSTM, Recurrent
from dlkit.probe import jacobians
from dlkit.probe.features import computing_layers
from dlkit.probe.look import on_log_axis
from dlkit.probe.one_example import example
from dlkit.probe.record import nodes_of
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import (
    Seen,
    block_of,
    calls_of,
    calls_of_blocks,
    calls_of_nets,
    has_graph,
    inner_layers,
    is_flat,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 16  # whose gradients by distance are averaged


def view(subject: Subject) -> View:
    """The view `jacobian`."""
    is_recurrent = any(isinstance(layer, Recurrent) for _, layer in inner_layers(subject.model))
    return _of_time(subject) if is_recurrent else _of_layers(subject)


def _tensors(batch: dict[str, NDArray]) -> dict[str, tf.Tensor]:
    return {key: tf.convert_to_tensor(array) for key, array in batch.items()}


def _run(subject: Subject, batch: dict[str, NDArray]) -> Callable[[], Any]:
    return lambda: subject.task.loss_sums(subject.model, _tensors(batch), training=False, smoothing=0.0)


# ---------------------------------------------------------------------------------------------------------- across time


def by_distance(subject: Subject) -> dict[str, NDArray[np.float64]]:
    """The gradient of the last loss by distance, of a subject and of the models that it is compared with.

    Empty for tasks without one input a step.
    """
    if not subject.task_info.steps:
        if subject.against:
            raise UsageError(f"{subject.operand} has no gradient by distance to compare", "leave out --against")
        return {}
    found = {}
    for operand in (subject.operand, *subject.against):
        own = subject if operand == subject.operand else _other(subject, operand)
        count = subject.limit or EXAMPLES
        found[operand] = jacobians.gradient_by_distance(own.task, own.model, own.unpadded(count, most=count))
    return found


def _other(subject: Subject, operand: str) -> Subject:
    """Another model, on the same split; what a name is given counts for names alone."""
    other = replace(subject, operand=operand, against=(), layers=(), data=None, sets=(), seed=None)
    if other.run is None:
        # Widths and the like may be no options of the other model.
        of_data = [text for text in subject.sets if text.startswith("data.")]
        other = replace(other, data=subject.data, sets=of_data, seed=subject.seed)
    if other.task_name != subject.task_name:
        raise UsageError(
            f"{operand} is for another task than {subject.operand}", "--against compares models of one task"
        )
    return other


def forget_bias(layer: Recurrent) -> float | None:
    """The mean bias of the gate that keeps the state: an LSTM's forget gate, a GRU's update gate. Else None."""
    if not isinstance(layer, LSTM | GRU):
        return None
    return float(np.mean(np.asarray(layer.bias, np.float64)[: layer.units]))  # it is the first gate of both


def panel_by_distance(found: dict[str, NDArray[np.float64]]) -> Any:
    """A panel of gradients by distance."""
    from dlkit.probe.panels import Line, Lines

    lines = [Line(label, range(len(norms)), on_log_axis(norms)) for label, norms in found.items()]
    return Lines(
        "gradient of the last loss to each input", "steps before the last", "norm of d loss / d input",
        [line for line in lines if any(map(math.isfinite, line.y))] or [Line("no gradient at all", [0], [1])],
        logarithmic=True,
    )  # fmt: skip


def _of_time(subject: Subject) -> View:
    if not subject.task_info.steps:
        _one_alone(subject)
    one = example(subject)
    read = jacobians.recurrent_calls(subject.model, _run(subject, one.batch))
    long = {call[0]: call for call in read if len(call[2]) > 1}
    if not long:  # a decoder that looks before each step is called step by step
        return _of_layers(subject)
    found = [jacobians.across_time(*long[name]) for name in subject.chosen(list(long))]
    gradients = by_distance(subject)
    biases = {name: forget_bias(call[1]) for name, call in long.items()}
    no_gates = all(biases[each.layer] is None for each in found)
    columns = ["layer", "state", "steps", "largest", "median", "smallest", "all steps", "a step"]
    columns += [] if no_gates else ["forget bias"]

    def draw() -> "Figure":
        from dlkit.probe.panels import Line, Lines, figure

        first = found[0]
        steps = np.arange(1, len(first.each) + 1).tolist()
        kinds = {"largest": first.each[:, 0], "median": np.median(first.each, axis=1), "smallest": first.each[:, -1]}
        panels = [
            Lines(
                f"{first.layer}: d state after a step / d state before it", "step", "singular value",
                [Line(label, steps, values.tolist()) for label, values in kinds.items()], levels=[(1.0, "1")],
            ),
            Lines(
                "all steps between multiplied", "steps between the two states", "largest singular value",
                [Line(each.layer, each.distances.tolist(), on_log_axis(each.product[:, 0])) for each in found],
                logarithmic=True, levels=[(1.0, "1")],
            ),
        ]  # fmt: skip
        if gradients:
            panels.append(panel_by_distance(gradients))
        title = f"{subject.operand}: Jacobians of the state across time"
        return figure(panels, title=title, note=f"{one.called}; {subject.weights}", columns=len(panels))

    rows, records = [], []
    for each in found:
        bias = biases[each.layer]
        last, distance = float(each.product[-1, 0]), int(each.distances[-1])
        per_step = last ** (1 / distance)
        rows.append(
            (each.layer, each.size, distance, f"{each.each[:, 0].mean():.3g}", f"{np.median(each.each):.3g}",
             f"{each.each[:, -1].mean():.3g}", f"{last:.3g}", f"{per_step:.3g}",
             *([] if no_gates else [None if bias is None else f"{bias:.3g}"]))
        )  # fmt: skip
        records.append(
            {"layer": each.layer, "size": each.size, "steps": distance, "each": each.each.tolist(),
             "distances": each.distances.tolist(), "product": each.product.tolist(), "per_step": per_step,
             "forget_bias": bias}
        )  # fmt: skip
    notes = [
        f"{one.called}; weights: {subject.weights}",
        "singular values of d state / d state one step before, on average over the steps; of all steps multiplied the"
        " largest, and what that is a step",
    ]
    if not no_gates:
        notes.append(
            "forget bias: mean bias of the gate that keeps the state, an LSTM's forget gate or a GRU's update gate;"
            " alone it keeps 50 % a step at 0, 73 % at 1, 95 % at 3"
        )
    notes += [_in_words(label, norms) for label, norms in gradients.items()]
    return View(
        columns=columns,
        right=columns[1:],
        rows=rows,
        records=records,
        notes=notes,
        draw=draw,
        facts={
            "example": one.called,
            "gradient_by_distance": {label: norms.tolist() for label, norms in gradients.items()},
        },
    )


def _in_words(label: str, norms: NDArray[np.float64]) -> str:
    return (
        f"{label}: norm of the gradient of the last loss to the last input {norms[0]:.2g}, to the one {len(norms) - 1}"
        f" steps before it {norms[-1]:.2g}"
    )


# --------------------------------------------------------------------------------------------------------------- layers


def _of_layers(subject: Subject) -> View:
    _one_alone(subject)
    model, one = subject.model, example(subject)
    whole = {each.layer: each for each in jacobians.to_output(model, _logits(subject, one.batch))}
    of_images = is_flat(model) and "images" in one.batch
    own = _local(subject, one.batch) if of_images else _of_calls(subject, one.batch)
    names = subject.chosen(_in_order(own, whole))
    spectra = {name: jacobians.spectrum(*own[name]) for name in names if name in own}

    def draw() -> "Figure":
        from dlkit.probe.panels import Rows, figure

        panels = []
        if spectra:
            panels.append(
                Rows(
                    "each layer, or block: d output / d input", "singular value", list(spectra),
                    {
                        "largest": [each.largest for each in spectra.values()],
                        "root mean square": [each.mean_square for each in spectra.values()],
                        "smallest": [each.smallest for each in spectra.values()],
                    },
                    logarithmic=True,
                )
            )  # fmt: skip
        behind = [name for name in names if name in whole]
        panels.append(
            Rows(
                "all behind it: d logits / d output of the layer", "singular value", behind,
                {
                    "largest": [float(whole[name].values[0]) for name in behind],
                    "median": [whole[name].median for name in behind],
                },
                logarithmic=True,
            )
        )  # fmt: skip
        title = f"{subject.operand}: Jacobians of layers"
        return figure(panels, title=title, note=f"{one.called}; {subject.weights}")

    columns = ["layer", "size", "largest", "mean square", "smallest", "to logits", "median"]
    if not spectra:
        columns = [column for column in columns if column not in {"largest", "mean square", "smallest"}]
    notes = [f"{one.called}; weights: {subject.weights}"]
    if spectra:
        notes.append(
            "singular values of d output / d input of a layer, or of a block as a whole; mean square: the root of it;"
            " without a smallest one they are estimated"
        )
    if spectra and not of_images:
        notes.append(
            "input and output are those of all steps of the example at once, and what else a layer is given stays as it"
            " is. There are none of tables of words, of recurrent layers, of what is called more than once, such as at"
            " each step, and of what is not given the example as one, such as each of its frames by itself"
        )
    notes.append(
        "to logits: the largest one of d logits / d output, of all layers behind multiplied, and the median of those"
        " that are not 0; 0 where floating point shows no more of it"
    )
    if any(each.logits < each.of for each in whole.values()):
        first = next(iter(whole.values()))
        notes.append(f"logits: the {first.logits} most probable of {first.of:,}")
    return View(
        columns=columns,
        right=columns[1:],
        rows=[
            [cells[column] for column in columns]
            for cells in (_cells(name, spectra.get(name), whole.get(name)) for name in names)
        ],
        records=[
            {
                "layer": name,
                **(asdict(spectra[name]) if name in spectra else {}),
                "to_logits": whole[name].values.tolist() if name in whole else None,
            }
            for name in names
        ],
        notes=notes,
        draw=draw,
        facts={"example": one.called},
    )


def _one_alone(subject: Subject) -> None:
    """Refuses what belongs to the gradients by distance, where there are none."""
    if subject.against:
        raise UsageError(f"{subject.operand} has no state across time to compare", "leave out --against")
    if subject.limit is not None:
        raise UsageError(
            f"the Jacobians of {subject.operand} are those at one example", "leave out --limit; --index chooses it"
        )


def _cells(name: str, own: jacobians.Spectrum | None, whole: jacobians.ToOutput | None) -> dict[str, Any]:
    def text(value: float | None) -> str | None:
        return None if value is None else f"{value:.3g}"

    cells: dict[str, Any] = dict.fromkeys(("size", "largest", "mean square", "smallest", "to logits", "median"))
    if whole is not None:
        cells |= {"size": f"{whole.size}", "to logits": text(float(whole.values[0])), "median": text(whole.median)}
    if own is not None:
        cells |= {
            "size": f"{own.inputs} to {own.outputs}", "largest": text(own.largest),
            "mean square": text(own.mean_square), "smallest": text(own.smallest),
        }  # fmt: skip
    return {"layer": name, **cells}


def _in_order(own: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """Layers in the order of the net, each block behind the last of its layers."""
    blocks = [name for name in own if name not in whole]
    order = list(whole)
    for block in blocks:
        prefix = block.removesuffix(BLOCK)
        at = max((at for at, name in enumerate(order) if name.startswith(f"{prefix}_")), default=len(order) - 1)
        order.insert(at + 1, block)
    return order


BLOCK = " (whole)"


def _local(subject: Subject, batch: dict[str, NDArray]) -> dict[str, tuple[jacobians.Function, NDArray]]:
    """The layers of an image net with one input, and its blocks as wholes: name -> function and where to look."""
    model = subject.model
    layers = [layer for layer in computing_layers(model) if not isinstance(layer.input, list)]
    return _at(model, {layer.name: (layer.input, layer.output) for layer in layers} | _blocks(model), batch["images"])


def _blocks(net: keras.Model) -> dict[str, tuple[Any, Any]]:
    """The blocks of a graph of layers that have one input: name -> where they begin and end."""
    spans, by_block = {}, dict[str, list[Any]]()
    for node in nodes_of(net):  # of a net inside, what goes in and comes out there; its own tensors are others
        by_block.setdefault(block_of(node.operation.name), []).append(node)
    for prefix, inside in by_block.items():
        made = {id(tensor) for node in inside for tensor in node.outputs}
        entries = {id(x): x for node in inside for x in node.input_tensors if id(x) not in made}
        if prefix and len(inside) > 1 and len(entries) == 1:
            spans[prefix + BLOCK] = next(iter(entries.values())), inside[-1].outputs[0]
    return spans


def _at(net: keras.Model, spans: dict[str, tuple[Any, Any]], x: Any) -> dict[str, tuple[jacobians.Function, NDArray]]:
    """Parts of a net as functions of one example, and what each is given where the net is given `x`, one example."""
    points = keras.Model(net.input, {name: start for name, (start, _) in spans.items()})(x) if spans else {}
    return {
        name: (_on_one(keras.Model(start, end)), np.asarray(points[name])[0]) for name, (start, end) in spans.items()
    }


def _on_one(net: keras.Model) -> jacobians.Function:
    return lambda x: net(x[tf.newaxis], training=False)[0]


def _of_calls(subject: Subject, batch: dict[str, NDArray]) -> dict[str, tuple[jacobians.Function, NDArray]]:
    """The same of any model: its layers that are called once; its blocks, and those of nets inside it, as wholes.

    Those of a recurrent layer are its Jacobians across time, and who calls a layer at each step has as many as steps.
    """
    model, run = subject.model, _logits(subject, batch)
    calls, _ = calls_of(model, run)
    once = {name: seen for name, seen in _once(calls).items() if not isinstance(seen.layer, Recurrent)}
    once |= {name + BLOCK: seen for name, seen in _once(calls_of_blocks(model, run)).items()}
    found = {name: (_on_one_call(seen), np.asarray(seen.given)[0]) for name, seen in once.items() if _is_of_one(seen)}
    for name, seen in _once(calls_of_nets(model, run)).items():
        net: Any = seen.layer
        if has_graph(net) and len(net.inputs) == 1 and _is_of_one(seen):
            inside = _at(net, _blocks(net), seen.given)
            found |= {f"{name}/{block}".lstrip("/"): part for block, part in inside.items()}
    return found


def _once(calls: Sequence[Seen]) -> dict[str, Seen]:
    """Those that are the only call of their name."""
    times = Counter(seen.name for seen in calls)
    return {seen.name: seen for seen in calls if times[seen.name] == 1}


def _is_of_one(seen: Seen) -> bool:
    """Whether numbers of the one example go in, and come out."""
    ends = (seen.given, seen.output)
    return all(end is not None and end.shape[0] == 1 and end.shape.num_elements() for end in ends)


def _on_one_call(seen: Seen) -> jacobians.Function:
    return lambda x: seen.again(x[tf.newaxis])[0]


def _logits(subject: Subject, batch: dict[str, NDArray]) -> Callable[[], tf.Tensor]:
    """Runs the model on one example; of what is told at each step the last."""
    model, tensors = subject.model, _tensors(batch)

    def run() -> tf.Tensor:
        logits = subject.task.logits(model, tensors)
        return logits[0] if logits.shape.rank == 2 else logits[0, -1]

    return run
