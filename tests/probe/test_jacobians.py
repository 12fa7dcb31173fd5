"""Jacobians against finite differences and arithmetic; gradients through time; limits for clipping."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from probe_pictures import assert_readable

import dlkit
from dlkit.layers.attention import bias_of
from dlkit.probe import panels
from dlkit.probe.gradients import gradients, suggested_limit
from dlkit.probe.jacobians import (
    across_time,
    gradient_by_distance,
    jacobian,
    singular_values,
    spectrum,
    state_jacobians,
    to_output,
)
from dlkit.probe.views import Subject, show
from dlkit.probe.watching import block_of, calls_of, calls_of_blocks
from dlkit.tasks.task import open_task
from dlkit.train.loop import high_norm

RANDOM = np.random.default_rng(0)


def differences(function, x, step=1e-3):
    """(outputs, inputs) by central differences, in float64."""
    columns = []
    for at in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        ends = [np.asarray(function(tf.constant(one)), np.float64).ravel() for one in moved]
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


def test_a_jacobian_is_what_finite_differences_say():
    kernel = RANDOM.normal(size=(3, 3, 2, 4))

    def function(x):
        return tf.tanh(tf.nn.conv2d(x[tf.newaxis], kernel, 1, "VALID"))[0]

    x = RANDOM.normal(size=(4, 5, 2))
    found = jacobian(function, x)
    assert found.shape == (2 * 3 * 4, 4 * 5 * 2)
    np.testing.assert_allclose(found, differences(function, x, step=1e-4), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_the_spectrum_of_a_matrix_exact_and_estimated(shape):
    """Of x -> M x the Jacobian is M, whichever of its sides is shorter."""
    left, right = (np.linalg.qr(RANDOM.normal(size=(side, side)))[0] for side in shape)
    values = np.array([9.0, 3.0, 2.0, 1.0, 0.5, 0.25])
    matrix = left[:, :6] * values @ right[:, :6].T
    x = RANDOM.normal(size=shape[1])
    exact = spectrum(lambda x: tf.linalg.matvec(matrix, x), x)
    assert (exact.inputs, exact.outputs) == shape[::-1]
    assert (exact.largest, exact.smallest) == pytest.approx((9, 0.25))
    assert exact.mean_square == pytest.approx(np.sqrt((values**2).mean()))
    guess = spectrum(lambda x: tf.linalg.matvec(matrix, x), x, exact=1)
    assert guess.largest == pytest.approx(9, rel=1e-6)
    assert guess.smallest is None
    assert 0.3 < guess.mean_square / exact.mean_square < 2


def test_a_residual_block_stays_near_the_identity():
    """dH/dx = dF/dx + I (lecture row C8): of a small F all singular values are near 1; of F alone they are small."""
    kernel = 0.01 * RANDOM.normal(size=(8, 8))
    x = RANDOM.normal(size=8)
    branch = lambda x: tf.tanh(tf.linalg.matvec(kernel, x))  # noqa: E731
    alone, block = spectrum(branch, x), spectrum(lambda x: x + branch(x), x)
    assert alone.largest < 0.1
    assert 0.9 < block.smallest < block.largest < 1.1


@pytest.mark.parametrize("init", ["he", pytest.param("gaussian:0.01", marks=pytest.mark.slow)])
def test_blocks_of_residual_nets_are_nearer_to_the_identity_than_those_of_plain_ones(init):
    """Row C8: at each block of the last two stages, on the logarithmic scale, by a factor of 1.5 on average."""

    def off(net):
        patterns = ["stage[23]_block[23] (whole)"]
        sets = ["data.size=8", "train.limit=1", f"model.init={init}"]
        found = show("jacobian", Subject(net, layers=patterns, sets=sets, seed=1)).records
        assert len(found) == 4
        return np.array([abs(np.log(record["mean_square"])) for record in found])

    residual, plain = off("resnet20"), off("plain20")
    assert (residual < plain).all()
    assert (plain - residual).mean() > np.log(1.5)


def test_the_product_of_all_layers_behind_one():
    """logits = V W x, linear: behind the first layer stands V, behind the input of the head nothing."""
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(4, use_bias=False, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, name="head")(hidden))
    v = model.get_layer("head").kernel.numpy()
    found = {one.layer: one for one in to_output(model, lambda: model(tf.ones((1, 5)))[0])}
    np.testing.assert_allclose(found["hidden"].values, singular_values(v), rtol=1e-5)
    np.testing.assert_allclose(found["head"].values, np.ones(3), rtol=1e-5)


def test_what_has_vanished_is_0_and_what_is_not_connected_is_left_out():
    """1e-30 twice is less than float32 has; what goes to another output has no Jacobian."""
    inputs = keras.Input((2,))
    small = {"use_bias": False, "kernel_initializer": keras.initializers.Constant(1e-30)}
    hidden = keras.layers.Dense(2, name="hidden", **small)(inputs)
    middle = keras.layers.Dense(2, name="middle", **small)(hidden)
    outputs = [keras.layers.Dense(3, name="head", **small)(middle), keras.layers.Dense(1, name="other")(hidden)]
    model = keras.Model(inputs, outputs)
    found = {one.layer: one for one in to_output(model, lambda: model(tf.ones((1, 2)))[0][0])}
    assert list(found) == ["hidden", "middle", "head"]
    assert found["hidden"].values.tolist() == [0, 0]
    assert [found[name].median for name in ("hidden", "head")] == [0, 1]
    assert found["middle"].median == pytest.approx(6**0.5 * 1e-30)  # of a 3x2 matrix of 1e-30


def test_zeros_have_a_place_on_a_logarithmic_axis():
    """They are drawn hollow at its left end, and the axis says so."""
    rows = panels.Rows("", "singular value", ["first", "last"], {"largest": [0.0, 0.5]}, logarithmic=True)
    (axes,) = panels.figure([rows], title="").axes
    hollow, full = (points.get_offsets().tolist() for points in axes.collections)
    assert (hollow, full) == ([[0, 0]], [[0.5, 1]])
    assert axes.collections[0].get_facecolor()[0].tolist() == [1, 1, 1, 1]
    assert axes.get_xlabel() == "singular value (hollow: 0)"


def test_the_legend_of_many_rows_stands_below_the_axis():
    series = {"root mean square": [0.5] * 160, "smallest": [0.25] * 160}
    rows = panels.Rows("", "singular value", [f"layer{at}" for at in range(160)], series)
    assert_readable(panels.figure([rows], title=""))


def test_each_call_of_a_layer_has_its_jacobian():
    """Behind the first call of x -> x S stands S V, behind the second V."""
    inputs = keras.Input((3,))
    shared = keras.layers.Dense(3, use_bias=False, name="shared")
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False, name="head")(shared(shared(inputs))))
    s, v = shared.kernel.numpy(), model.get_layer("head").kernel.numpy()
    found = {one.layer: one.values for one in to_output(model, lambda: model(tf.ones((1, 3)))[0])}
    assert list(found) == ["shared", "shared (2)", "head"]
    np.testing.assert_allclose(found["shared"], singular_values(s @ v), rtol=1e-4)
    np.testing.assert_allclose(found["shared (2)"], singular_values(v), rtol=1e-4)


def test_of_many_logits_as_many_are_looked_at_as_there_is_room_for():
    """Of 12 logits the 8 most probable: their columns of V."""
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(20, use_bias=False, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(12, use_bias=False, name="head")(hidden))
    v, logits = model.get_layer("head").kernel.numpy(), np.asarray(model(tf.ones((1, 5)))[0])
    found = {one.layer: one for one in to_output(model, lambda: model(tf.ones((1, 5)))[0], room=1)}
    assert [(one.logits, one.of, one.size) for one in found.values()] == [(8, 12, 20), (8, 12, 12)]
    np.testing.assert_allclose(found["hidden"].values, singular_values(v[:, np.argsort(-logits)[:8]]), rtol=1e-5)


def test_what_gives_nothing_has_no_jacobian():
    """A text of one word has no pairs of words."""
    view = show("jacobian", Subject("text_bag", text="a", sets=["model.pairs=50", "model.width=4", "data.train=64"]))
    assert [row[0] for row in view.rows] == ["embedding", "head"]


def test_a_block_whose_branches_give_nothing_is_the_identity():
    """x + f(x) with f = 0: all singular values of d output / d input are 1, of 3 tokens of 8 numbers; of f alone 0."""
    sets = ["model.width=8", "model.heads=2", "model.layers=2", "model.max_length=8", "data.block=8"]
    shown = ["block? (whole)", "block?_norm1", "block?_ffn?"]
    subject = Subject("gpt", text="the", layers=shown, sets=sets, seed=1)
    first, second = subject.model.blocks
    for weight in (first.self_attention.projections["output"][0], first.feed_forward.output.kernel):
        weight.assign(np.zeros(weight.shape))
    found = {record["layer"]: record for record in show("jacobian", subject).records}
    whole, other = found["block1 (whole)"], found["block2 (whole)"]
    assert (whole["inputs"], whole["outputs"]) == (24, 24)
    assert [whole[key] for key in ("smallest", "mean_square", "largest")] == pytest.approx([1, 1, 1], abs=1e-6)
    assert found["block1_ffn2"]["largest"] == 0
    assert other["largest"] - other["smallest"] > 0.01
    # What works on each token alone has the singular values of its matrix, those of each token.
    values = singular_values(np.asarray(second.feed_forward.hidden.kernel))
    ffn = found["block2_ffn1"]
    assert (ffn["inputs"], ffn["outputs"]) == (24, 96)
    assert [ffn["largest"], ffn["smallest"]] == pytest.approx([values[0], values[-1]], rel=1e-4)
    names = list(found)
    assert names.index("block1_ffn2") < names.index("block1 (whole)") < names.index("block2_norm1")


@pytest.fixture(scope="module")
def translator():
    """A small Transformer, and its last block as a function of its input, with that input; called by itself."""
    sets = ["data.train=64", "data.validation=4", "data.test=4", "model.ffn=8", "model.heads=2"]
    sets += ["model.width=8", "model.layers=1"]
    subject = Subject("transformer", layers=["decoder_block1 (whole)"], sets=sets, seed=1)
    model, (batch, _) = subject.model, subject.one_example()
    source, words = tf.constant(batch["source"]), tf.constant(batch["target_in"])
    encoded, real, _ = model._encode(source, training=False)
    (block,) = model.decoder
    memory, time = block.cross_attention.memory(encoded, real), tf.range(words.shape[1])
    causal = bias_of(time[:, tf.newaxis] >= time)
    x = model.target_positions(model.target_embedding(words))
    return subject, lambda x: block(tf.cast(x, tf.float32), memory, causal)[0], x


def test_a_block_of_attention_is_what_finite_differences_say(translator):
    """The singular values of the last block of a Transformer's decoder, whose memory stays as it is."""
    subject, block, x = translator
    (found,) = show("jacobian", subject).records
    values = singular_values(differences(block, np.asarray(x, np.float64), step=3e-3))
    assert found["inputs"] == found["outputs"] == len(values) == x.shape[1] * 8
    assert found["largest"] == pytest.approx(values[0], rel=0.01)
    assert found["mean_square"] == pytest.approx(np.sqrt((values**2).mean()), rel=0.01)


def test_a_call_again_with_something_else_is_a_call_with_that(translator):
    subject, block, x = translator
    batch, _ = subject.one_example()
    tensors = {key: tf.constant(array) for key, array in batch.items()}

    def run():
        return subject.task.logits(subject.model, tensors)

    last = calls_of_blocks(subject.model, run)[-1]
    assert last.name == "decoder_block1"
    np.testing.assert_allclose(last.given, x, atol=1e-6)
    other = tf.constant(RANDOM.normal(size=tuple(x.shape)).astype(np.float32))
    np.testing.assert_allclose(last.again(other), block(other), atol=1e-5)
    assert np.abs(block(other) - block(x)).max() > 0.1
    ffn = next(seen for seen in calls_of(subject.model, run)[0] if seen.name == "decoder_block1_ffn1")
    kernel, bias = (np.asarray(weight) for weight in subject.model.decoder[0].feed_forward.hidden.weights)
    np.testing.assert_allclose(ffn.again(other), np.asarray(other) @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("model", ["transformer", "tcn_lm"])
def test_a_call_again_gives_what_it_gave(model):
    sets = {"transformer": ["data.train=64", "data.validation=4", "data.test=4", "model.layers=1"], "tcn_lm": []}
    subject = Subject(model, sets=[*sets[model], "model.width=8"], seed=1)
    batch, _ = subject.one_example()
    tensors = {key: tf.constant(array) for key, array in batch.items()}

    def run():
        return subject.task.logits(subject.model, tensors)

    calls, _ = calls_of(subject.model, run)
    blocks = calls_of_blocks(subject.model, run)
    assert len(blocks) == {"transformer": 2, "tcn_lm": 5}[model]
    looked_at = [seen for seen in [*calls, *blocks] if seen.given is not None]
    assert len(looked_at) > len(blocks)
    for seen in looked_at:
        np.testing.assert_allclose(seen.again(seen.given), seen.output, atol=1e-5, err_msg=seen.name)
    # They are watched no longer.
    run()
    assert len(blocks) == {"transformer": 2, "tcn_lm": 5}[model]


def test_the_block_of_a_layer():
    names = ["stage2_block1_conv1", "decoder_block3_cross_attention", "block10_norm1", "stage2_pool", "block", "head"]
    assert [block_of(name) for name in names] == ["stage2_block1", "decoder_block3", "block10", "", "", ""]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_state_jacobians_are_what_finite_differences_say(cell):
    layer = dlkit.build(cell, features=2, outputs=1, width=3).stack.levels[0][0]
    inputs = RANDOM.normal(size=(4, 2)).astype(np.float32)
    found = state_jacobians(layer, inputs)
    vector = np.zeros(found.shape[1], np.float32)
    zero = layer.zero_state(1)

    def step(x, vector):
        leaves = tf.split(vector[tf.newaxis], len(tf.nest.flatten(zero)), axis=-1)
        _, after = layer.step(tf.constant(x)[tf.newaxis], tf.nest.pack_sequence_as(zero, leaves))
        return tf.concat(tf.nest.flatten(after), -1)[0]

    for x, derivative in zip(inputs, found, strict=True):
        by_differences = differences(lambda vector, x=x: step(x, vector), vector, step=1e-2)
        np.testing.assert_allclose(derivative, by_differences, atol=2e-4)
        vector = np.asarray(step(x, tf.constant(vector)))


def test_across_time_of_a_linear_recurrence():
    """h' = U^T h + W^T x: each Jacobian is U^T, and of d steps its d-th power."""
    net = dlkit.build("rnn", features=1, outputs=1, width=2, activation="linear")
    layer = net.stack.levels[0][0]
    layer.recurrent_kernel.assign([[0.5, 0.0], [0.0, 0.25]])
    found = across_time("rnn", layer, np.ones((5, 1), np.float32))
    np.testing.assert_allclose(found.each, [[0.5, 0.25]] * 4)
    assert found.distances.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(found.product[:, 0], 0.5 ** np.arange(1, 5))
    np.testing.assert_allclose(found.product[:, 1], 0.25 ** np.arange(1, 5))


@pytest.mark.parametrize(("model", "biases"), [("lstm", ["3", "3"]), ("gru", ["0", "0"]), ("rnn", None)])
def test_the_bias_of_the_gate_that_keeps_the_state(model, biases):
    """Of fresh weights as the recipe says; plain recurrent nets have no gates."""
    sets = ["data.train=8", "data.test=4", "data.length=6", "model.width=4", "model.layers=2"]
    view = show("jacobian", Subject(model, sets=[*sets, *(["model.forget_bias=3"] if model == "lstm" else [])]))
    assert (view.columns[-1] == "forget bias") == (biases is not None)
    if biases is not None:
        assert [row[-1] for row in view.rows] == biases
    assert [record["forget_bias"] for record in view.records] == [biases and float(biases[0])] * 2
    assert any("95 % at 3" in note for note in view.notes) == (biases is not None)


def adding(length, rows=8):
    task = open_task("sequences", {"name": "synthetic:adding", "length": length, "train": 50, "test": rows})
    return task, task.batch("test", np.arange(rows), epoch=None)


def test_gradient_by_distance_is_what_finite_differences_say():
    """Of one sequence: the norm over the two channels of each step."""
    task, batch = adding(5, rows=1)
    model = dlkit.build("gru", features=2, outputs=1, width=4)

    def loss(inputs):
        return task.last_loss(model, {"inputs": inputs, "targets": tf.constant(batch["targets"])})

    by_differences = differences(loss, batch["inputs"], step=1e-2).reshape(5, 2)
    found = gradient_by_distance(task, model, [batch])
    np.testing.assert_allclose(found, np.linalg.norm(by_differences, axis=1)[::-1], rtol=0.02, atol=1e-4)


def test_the_loss_of_the_last_step_of_labels_and_words():
    """A language model's last loss is the cross-entropy of its last word, by NumPy."""
    task = open_task("language_modelling", {"name": "shakespeare", "block": 6})
    model = dlkit.build("lstm_lm", vocabulary=task.info["vocabulary"], width=4)
    batch = task.batch("train", np.array([0, 50]), epoch=None)
    logits = np.asarray(model(batch["inputs"]), np.float64)[:, -1]
    by_hand = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(2), batch["targets"][:, -1]]
    tensors = {key: tf.constant(array) for key, array in batch.items()}
    assert float(task.last_loss(model, tensors)) == pytest.approx(by_hand.sum(), rel=1e-5)
    assert gradient_by_distance(task, model, [batch]).shape == (6,)


def test_plain_recurrent_nets_forget_and_open_forget_gates_remember():
    """At bias b a memory fades by sigmoid(b) a step along the cell, 0.95 at 3, and its gradient with it (row R4).

    Through the other gates the gradient of a small bias has further ways, none of which keeps it.
    """
    task, batch = adding(40, rows=4)

    def a_step_of(cell, **options):
        keras.utils.set_random_seed(0)
        norms = gradient_by_distance(task, dlkit.build(cell, features=2, outputs=1, width=8, **options), [batch])
        return (norms[30] / norms[5]) ** (1 / 25)

    a_step = {bias: a_step_of("lstm", forget_bias=bias) for bias in (0.0, 1.0, 3.0)}
    assert a_step[0] < 0.8
    assert a_step[0] < a_step[1] < a_step[3]
    assert a_step[3] == pytest.approx(1 / (1 + np.exp(-3)), abs=0.06)
    assert a_step_of("rnn") < a_step[3]


class Squares:
    """The task whose loss is the sum of (w x)^2 / 2 over rows."""

    def loss_sums(self, model, batch, *, training, smoothing):
        from dlkit.tasks.task import Sums

        assert training
        y = model(batch["x"], training=training)
        return Sums(tf.reduce_sum(y**2) / 2, tf.cast(tf.size(y), tf.float32))


def test_gradients_by_hand_and_the_model_stays_as_it_was():
    """d/dw of the mean of (w x)^2 / 2 is w times the mean of x^2: 3 * (1 + 4) / 2; the layer has no other weight."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="dense")(inputs))
    model.get_layer("dense").kernel.assign([[3.0]])
    found = gradients(Squares(), model, {"x": np.array([[1.0], [2.0]], np.float32)})
    (row,) = found.weights
    assert (row.layer, row.variable, row.shape) == ("dense", "kernel", (1, 1))
    assert (row.norm, row.largest, row.weight, row.layer_norm) == (7.5, 7.5, 3.0, 7.5)
    assert (found.norm, found.loss) == (7.5, 9 * 5 / 4)


def test_moving_statistics_are_put_back():
    task = open_task("image_classification", {"name": "digits"})
    model = dlkit.build("lenet", norm="batch", input_shape=(32, 32, 1), classes=10)
    before = [variable.numpy() for variable in model.variables]
    found = gradients(task, model, task.batch("train", np.arange(8), epoch=None))
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert found.norm == pytest.approx(np.sqrt(sum(one.norm**2 for one in found.weights)), rel=1e-5)
    by_layer = {layer: [one for one in found.weights if one.layer == layer] for layer in ("conv1", "head")}
    assert [one.variable for one in by_layer["head"]] == ["kernel", "bias"]
    for weights in by_layer.values():
        together = np.sqrt(sum(one.norm**2 for one in weights))
        assert [one.layer_norm for one in weights] == pytest.approx([together] * len(weights), rel=1e-5)


def test_a_limit_is_suggested_from_the_first_epochs():
    epochs = np.arange(1, 21) / 5  # four epochs; the last one is not looked at
    norms = np.concatenate([np.arange(1.0, 16.0), np.full(5, 1e6)])
    assert suggested_limit(epochs.tolist(), norms.tolist()) == 14  # 90 % of the way from 1 to 15: 13.6, in two digits
    assert suggested_limit([0.1] * 2, [1.0] * 2) is None
    assert suggested_limit([0.1, 0.2, 3.1], [1.0] * 3) is None
    assert suggested_limit([0.1] * 6, [1.0] * 5 + [float("nan")]) == 1.0


def test_a_limit_from_high_norms_leaves_most_updates_as_they_are():
    """Norms N(1, 0.3^2), 50 in an interval: a limit from means clips more than a third of them."""
    norms = np.random.default_rng(3).normal(1, 0.3, size=(20, 50))
    clipped = [
        (norms > suggested_limit([0.1] * 20, [summary(each) for each in norms])).mean()
        for summary in (high_norm, np.mean)
    ]
    assert 0.02 < clipped[0] < 0.1
    assert clipped[1] > 0.35


def test_what_most_norms_of_an_interval_lie_at_or_below():
    assert high_norm([3.0, 1.0, 2.0, 10.0, 4.0, 5.0, 9.0, 7.0, 6.0, 8.0]) == 9
    assert high_norm([2.0]) == 2
    assert np.isnan(high_norm([1.0, float("nan")]))
