"""Saturation, batch norms against their data, gates, and models that are no graph of layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dlkit
from dlkit.layers.norms import BatchNorm
from dlkit.probe.activations import activations, activations_of_calls
from dlkit.probe.examples_by_length import together
from dlkit.probe.watching import inner_layers
from dlkit.tasks import TASKS
from dlkit.tasks.task import Sums, open_task
from dlkit.tasks.text_classification import TextClassification


class Task:
    """A task whose loss is of no interest."""

    def loss_sums(self, model, batch, *, training, smoothing):
        assert not training
        return Sums(tf.reduce_sum(model(batch["inputs"])), tf.constant(1.0))


def test_saturation_by_hand():
    """4 s (1 - s) < 0.1 beyond |x| = 3.64 for a sigmoid, 1 - t^2 < 0.1 beyond |x| = 1.82 for a tanh."""
    inputs = keras.Input((5,))
    model = keras.Model(
        inputs,
        [
            keras.layers.Activation("sigmoid", name="sigmoid")(inputs),
            keras.layers.Activation("tanh", name="tanh")(inputs),
            keras.layers.Activation("relu", name="relu")(inputs),
        ],
    )
    values = np.array([[-3.7, -3.6, 0.0, 1.81, 1.83]], np.float32)
    sigmoid, tanh, relu = activations(model, [values], ["sigmoid", "tanh", "relu"])
    assert (sigmoid.saturated, tanh.saturated, relu.saturated) == (1 / 5, 3 / 5, None)


@pytest.mark.parametrize("kind", [BatchNorm, keras.layers.BatchNormalization])
def test_running_statistics_against_those_of_the_data(kind):
    """Channel 1 holds 1 and 5, mean 3 and variance 4; channel 2 holds 0 and 2, mean 1 and variance 1."""
    inputs, norm = keras.Input((2,)), kind(epsilon=0.0, name="norm")
    model = keras.Model(inputs, norm(inputs))
    norm.set_weights([np.ones(2), np.zeros(2), np.array([1.0, 1.0]), np.array([16.0, 1.0])])
    batches = [np.array([[1.0, 0.0]], np.float32), np.array([[5.0, 2.0]], np.float32)]
    (found,) = activations(model, batches, ["norm"])
    assert found.mean_gap == pytest.approx((2 / 4 + 0) / 2)
    assert found.variance_ratio == pytest.approx(np.sqrt(4 / 16 * 1))
    (called,) = activations_of_calls(model, Task(), [{"inputs": batch} for batch in batches])
    assert called == found


def test_the_gates_of_an_lstm_from_its_equations():
    model = dlkit.build("lstm", features=2, outputs=1, width=3, forget_bias=2.0)
    x = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    found = {one.layer: one for one in activations_of_calls(model, Task(), [{"inputs": x}])}
    kernel, recurrent, bias = (np.asarray(w) for w in model.stack.levels[0][0].weights)
    h = c = np.zeros((4, 3))
    kept = []
    for t in range(6):
        f, i, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        f, i, o = (1 / (1 + np.exp(-z)) for z in (f, i, o))
        kept.append((f, i, np.tanh(g), o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    gates = np.array(kept)  # (time, gate, rows, units)
    for at, name in enumerate(("forget gate", "input gate", "candidate", "output gate")):
        one = found[f"stack_lstm1 {name}"]
        assert one.mean == pytest.approx(gates[:, at].mean(), rel=1e-5)
        assert one.std == pytest.approx(gates[:, at].std(), rel=1e-4)
        slope = 1 - gates[:, at] ** 2 if name == "candidate" else 4 * gates[:, at] * (1 - gates[:, at])
        assert one.saturated == pytest.approx((slope < 0.1).mean())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gates_of_a_gru_give_its_outputs(bidirectional):
    """h' = z h + (1 - z) c, at every step and in both directions."""
    from dlkit.probe.activations import gates, recurrent_products
    from dlkit.probe.watching import calls_of

    model = dlkit.build("gru", features=2, outputs=1, width=4, bidirectional=bidirectional)
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 5, 2)).astype(np.float32))
    seen = [one for one in calls_of(model, lambda: model(x))[0] if "gru" in one.name]
    assert len(seen) == 1 + bidirectional
    for one in seen:
        parts, after = gates(one), np.asarray(one.output)
        backward = one.name.endswith("backward")
        before = np.roll(after, -1 if backward else 1, axis=1)
        before[:, -1 if backward else 0] = 0
        z, candidate = (np.asarray(parts[name]) for name in ("update gate", "candidate"))
        np.testing.assert_allclose(z * before + (1 - z) * candidate, after, atol=1e-6)
        assert recurrent_products(one)[0].shape == (2, 5, 3 * after.shape[-1])


def test_layers_of_nets_inside_a_net():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="relu", name="dense")], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(inner(inputs)))
    assert [name for name, _ in inner_layers(model)] == ["inner/dense", "head"]
    inner.get_layer("dense").set_weights([np.eye(4)[:, :2], np.array([0.0, -9.0])])
    found = activations_of_calls(model, Task(), [{"inputs": np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)}])
    assert [(one.layer, one.shape, one.mean, one.dead) for one in found[:1]] == [("inner/dense", (2,), 0.5, 1)]


def test_examples_of_one_length_come_as_soon_as_there_are_enough():
    """Texts of 1, 2, 1, 3 and 2 words, two in a batch: what is full comes at once, the text of 3 words last."""
    lengths, asked = [1, 2, 1, 3, 2], []

    class Texts(TextClassification):
        def __init__(self):
            """Without a dataset."""

        def batch(self, split, indices, *, epoch):
            asked.extend(indices.tolist())
            (index,) = indices
            return {"ids": np.array([[index + 4] * lengths[index] + [0] * 3], np.int32)}

    batches = together(Texts(), "test", np.arange(5), most=2)
    assert next(batches)["ids"].tolist() == [[4], [6]]
    assert asked == [0, 1, 2]
    assert [batch["ids"].tolist() for batch in batches] == [[[5, 5], [8, 8]], [[7, 7, 7]]]


IMAGE = np.ones((1, 3, 3, 1), np.float32).tolist()
CUT = {
    # Task -> a batch of one row, and what is left of it.
    "translation": (
        {"source": [[5, 6, 2, 0]], "target_in": [[1, 7, 0]], "target_out": [[7, 2, 0]]},
        {"source": [[5, 6, 2]], "target_in": [[1, 7]], "target_out": [[7, 2]]},
    ),
    "captioning": (
        {"images": IMAGE, "target_in": [[1, 7, 0]], "target_out": [[7, 2, 0]]},
        {"images": IMAGE, "target_in": [[1, 7]], "target_out": [[7, 2]]},
    ),
    "language_modelling": (
        {"inputs": [[5, 6, 0]], "targets": [[6, 2, 0]]}, {"inputs": [[5, 6]], "targets": [[6, 2]]}
    ),
    "tagging": ({"ids": [[4, 5, 0]], "labels": [[0, 1, -1]]}, {"ids": [[4, 5]], "labels": [[0, 1]]}),
    "text_classification": ({"ids": [[0, 0, 0]], "labels": [1]}, {"ids": [[0]], "labels": [1]}),  # without a word
    "sequences": (
        {"inputs": [[[0.5], [0.25], [0.0]]], "lengths": [2], "targets": [[1.0]]},
        {"inputs": [[[0.5], [0.25]]], "lengths": [2], "targets": [[1.0]]},
    ),
    "image_classification": ({"images": IMAGE, "labels": [3]}, {"images": IMAGE, "labels": [3]}),
    "video_classification": ({"clips": [IMAGE], "labels": [3]}, {"clips": [IMAGE], "labels": [3]}),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_examples_are_cut_to_their_length(name):
    padded, wanted = CUT[name]
    task = open_task(name, {"name": "none that is opened"})
    cut = task.without_padding({key: np.array(values) for key, values in padded.items()})
    assert {key: array.tolist() for key, array in cut.items()} == wanted


@pytest.mark.parametrize("name", TASKS)
def test_a_task_knows_its_line_of_the_table(name):
    assert open_task(name, {"name": "none that is opened"}).about is TASKS[name]
