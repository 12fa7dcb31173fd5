"""What experiments measure, against arithmetic."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import recipe
from dlkit.data import tokenizer
from dlkit.experiments import (
    attention_cost,
    batchnorm_lr,
    dense_vs_conv,
    dropout,
    ensembles,
    initialization,
    random_vs_grid,
    training,
    vanishing,
)
from dlkit.models import transformer
from dlkit.train import start


def test_the_size_of_tanh_nets_follows_the_paper_s_map():
    """q <- E[tanh(sqrt(q) z)^2], by a million draws."""
    z = np.random.default_rng(0).standard_normal(1_000_000)
    q = [1.3**2]
    for _ in range(3):
        q.append(np.mean(np.tanh(math.sqrt(q[-1]) * z) ** 2))
    np.testing.assert_allclose(initialization._tanh_sizes(1.3, 4), np.sqrt(q), rtol=2e-3)


def test_ratios_stop_where_float32_has_no_digits_left():
    ratios, alive = initialization._ratios(np.array([1e-20, 1e-30, 1e-37, 0.0]))
    np.testing.assert_allclose(ratios, [1e-10])
    assert alive == 2


def test_the_gradient_of_a_linear_recurrent_net_is_a_geometric_series():
    """h_t = u h_{t-1} + w x_t and y = v h_T, so that |d (y - t)^2 / d x_{T-k}| = 2 |y - t| |v| |u|^k |w|."""
    flags = {
        "model.width": 1, "model.activation": "linear", "data.length": 6, "data.train": 50, "data.test": 40,
        "train.precision": "float64",
    }  # fmt: skip
    made = start.prepare(recipe.resolve("rnn", "synthetic:adding", flags=flags))
    by_name = {weight.path.rpartition("/")[2]: weight for weight in made.model.stack.weights}
    u = 0.7
    (recurrent,) = [weight for weight in by_name.values() if tuple(weight.shape) == (1, 1)]
    (inputs,) = [weight for weight in by_name.values() if tuple(weight.shape) == (2, 1)]
    recurrent.assign([[u]])
    inputs.assign([[0.3], [-0.4]])  # of norm 1/2
    made.model.head.kernel.assign([[2.0]])
    batch = made.task.batch("test", np.arange(vanishing.ROWS), epoch=None)
    said = made.model(batch["inputs"]).numpy()[:, 0]
    info = made.task.info
    wanted = (batch["targets"][:, 0] - info["output_mean"][0]) / info["output_std"][0]
    last = np.mean(2 * np.abs(said - wanted)) * 2.0 * 0.5
    np.testing.assert_allclose(vanishing.by_step(made), last * u ** np.arange(6), rtol=1e-5)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("seq2seq", {"model.width": 4}),
        ("seq2seq_attention", {"model.width": 4}),
        ("transformer", {"model.width": 4, "model.ffn": 4, "model.heads": 2, "model.layers": 1, "model.tied": "all"}),
    ],
)
def test_the_gradient_by_word_is_what_finite_differences_say(net, options, monkeypatch):
    """Of the loss of the word before the end token, to the vector of each source word; its loss by NumPy."""
    sizes = {"data.length": 4, "data.train": 40, "data.validation": 4, "data.test": 4, "train.precision": "float64"}
    made = training.prepared(net, "synthetic:reverse", sizes | options, seed=0)
    task, model = made.task, made.model
    lengths = [len(text.split()) for text in task.texts("train").source]
    rows = [row for row, length in enumerate(lengths) if length == 4]
    assert 4 < len(rows) <= vanishing.ROWS
    batch = task.batch("train", np.array(rows), epoch=None)
    assert (batch["target_out"][:, 4] == tokenizer.END).all()
    vectors, moved = type(model.source_embedding).call, np.zeros((5, 4))

    def call(layer, ids):  # a table that both sides share is asked for the target, too
        given = vectors(layer, ids)
        return given + moved if np.array_equal(ids, batch["source"]) else given

    def losses():
        logits = np.asarray(model((batch["source"], batch["target_in"]), training=False))[:, 3]
        right = logits[np.arange(len(rows)), batch["target_out"][:, 3]]
        return np.log(np.exp(logits).sum(axis=1)) - right

    by_differences = np.zeros((len(rows), 4, 4))
    with monkeypatch.context() as patch:
        patch.setattr(model.source_embedding, "call", lambda ids: call(model.source_embedding, ids))
        for word, feature in np.ndindex(4, 4):
            ends = []
            for step in (1e-4, -1e-4):
                moved = np.zeros((5, 4))
                moved[word, feature] = step
                ends.append(losses())
            by_differences[:, word, feature] = (ends[0] - ends[1]) / 2e-4
    wanted = np.linalg.norm(by_differences, axis=-1).mean(axis=0)
    assert wanted.min() > 0
    np.testing.assert_allclose(vanishing.by_word(made, 4), wanted, rtol=1e-4)


@pytest.mark.parametrize(("attention", "second"), [(True, "seq2seq with attention"), (False, "seq2seq again")])
def test_translators_stand_in_the_table_by_their_distance(attention, second, monkeypatch):
    """With 8 words: the first one lies 8 steps before the last word that is said, the last one 15."""
    fading = {"seq2seq": 0.5, "seq2seq_attention": 0.9, "transformer": 1.0}
    made = []

    def translator(net, words, seed):
        made.append((net, seed))
        return net

    monkeypatch.setattr(vanishing, "_made", lambda *_: None)
    monkeypatch.setattr(vanishing, "by_step", lambda _: np.ones(20))
    monkeypatch.setattr(vanishing, "_after_training", lambda *_: np.ones(20))
    monkeypatch.setattr(vanishing, "_translator", translator)
    monkeypatch.setattr(vanishing, "by_word", lambda net, words: fading[net] ** np.arange(words))
    found = vanishing.vanishing(length=20, seeds=2, words=8, attention=attention)
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["rnn"][0] == "0 to 19"
    assert rows["seq2seq"] == ["8 to 15", "1", "0.25", "0.062", "0.0078"]
    assert list(rows)[-3:] == ["seq2seq", second, "Transformer"]
    by_word = found.charts[1]
    assert [line.label for line in by_word.lines] == ["seq2seq", second, "Transformer"]
    assert [list(line.x) for line in by_word.lines] == [list(range(8, 16))] * 3
    assert found.verdicts[2].holds == attention
    assert second in found.verdicts[2].numbers
    assert len(set(made)) == 6, "without attention the second one has other weights than the first"


def test_a_block_multiplies_as_its_layers_say():
    """The formula of the paper's table against the counts of the layers themselves."""
    time, width, ffn = 20, 24, 50
    settings = transformer.Settings(layers=1, decoder_layers=0, width=width, ffn=ffn, heads=4, dropout=0.0)
    block = transformer.EncoderBlock("block", settings)
    products = block.self_attention.multiply_adds([(time, width)], [(time, width), (4, time, time)])
    counted = sum(math.prod(each) for each in products) + 2 * time * width * ffn
    assert sum(attention_cost.multiply_adds(time, width, ffn).values()) == counted


def test_a_digit_stands_on_a_canvas_of_its_background():
    digit = np.zeros((1, 8, 8, 1), np.float32)
    digit[0, 0, 0], digit[0, 7, 7] = 5, -1
    for shift in (0, 3):
        canvas = dense_vs_conv.on_canvas(digit, shift)
        assert canvas.shape == (1, 16, 16, 1)
        np.testing.assert_array_equal(canvas[:, 4:12, 4 + shift : 12 + shift], digit)
        assert canvas.sum() == digit.sum() - (16 * 16 - 8 * 8)


def test_without_sharing_a_convolution_is_its_dense_matrix_at_one_place_alone():
    """Nothing but the sharing is switched: the place that keeps the kernels still says what the convolution says."""
    assert dense_vs_conv._expansion_errors(0, shared=True).max() < 1e-12
    errors = dense_vs_conv._expansion_errors(0, shared=False).max(axis=-1)
    (rows, columns) = np.nonzero(errors < 1e-12)
    assert (rows.tolist(), columns.tolist()) == ([3], [3])
    assert np.partition(errors.ravel(), 1)[1] > 0.01


def test_a_bootstrap_sample_is_drawn_with_replacement():
    x = np.arange(1000.0)
    drawn, _ = ensembles._resampled(x, x, "bootstrap", 0, 0)
    assert len(drawn) == 1000
    assert len(np.unique(drawn)) == pytest.approx(1000 * (1 - 1 / math.e), abs=40)
    other, _ = ensembles._resampled(x, x, "bootstrap", 0, 1)
    assert not np.array_equal(drawn, other)
    assert ensembles._resampled(x, x, "seeds", 0, 0)[0] is x


def test_a_lattice_is_even_and_lies_at_random():
    random = np.random.default_rng(0)
    one, other = random_vs_grid._lattice(random, -5, 0, 5), random_vs_grid._lattice(random, -5, 0, 5)
    np.testing.assert_allclose(np.diff(one), 1.0)
    assert one.min() >= -5
    assert one.max() <= 0
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_the_scale_of_masks_is_one_when_what_is_kept_is_scaled_up(rate):
    """E[mask / (1 - p)] = 1 and E[mask] = 1 - p, however noisy the masks are."""
    random = np.random.default_rng(0)
    plain = random.standard_normal((50, 40)).astype(np.float32)

    def masked():
        return (random.uniform(size=plain.shape) >= rate) * plain

    scaled = dropout.scale_between(lambda: tf.constant(masked() / (1 - rate), tf.float32), tf.constant(plain))
    assert scaled.is_one
    assert scaled.error < 0.01
    unscaled = dropout.scale_between(lambda: tf.constant(masked(), tf.float32), tf.constant(plain))
    assert not unscaled.is_one
    assert unscaled.mean == pytest.approx(1 - rate, abs=0.01)
    assert not dropout.Scale(0.8, 0.1).is_one, "too noisy to say so"


def test_ratios_of_gradients():
    assert vanishing._ratio(1.0, 4.0) == 0.25
    assert vanishing._ratio(1.0, 0.0) == math.inf
    assert math.isnan(vanishing._ratio(0.0, 0.0)), "two that are nothing cannot be compared"


def test_three_times_0_1_is_0_3_at_least(monkeypatch):
    """0.3 >= 3 * 0.1 is false in floating point."""
    assert not 3 * 0.1 <= 0.3

    def trained(norm, depth, width, lr, steps, seed):
        works = lr <= (0.3 if norm == "batch" else 0.1)
        return training.Curves(np.full(10, 0.1 if works else 2.0), np.ones(10), np.ones(10))

    monkeypatch.setattr(batchnorm_lr, "_trained", trained)
    assert batchnorm_lr.batchnorm_lr(rates=[0.1, 0.3, 1.0]).verdicts[0].holds


def test_trainings_that_share_their_data_are_those_that_open_it_themselves():
    options = {"model.hidden": [8], "train.batch_size": 16, "train.steps": 3}
    first = training.train("mlp", "digits", options, steps=3, seed=0)
    alone = training.train("mlp", "digits", options, steps=3, seed=1)
    sharing = training.train("mlp", "digits", options, steps=3, seed=1, like=first.prepared)
    assert sharing.prepared.task.data is first.prepared.task.data
    assert first.prepared.task.seed == 0
    np.testing.assert_array_equal(sharing.losses, alone.losses)
    assert not np.array_equal(sharing.losses, first.losses)
    assert not hasattr(sharing.curves, "prepared")


def test_a_training_that_diverges_has_no_accuracy():
    found = training.train("mlp", "digits", {"model.hidden": [8], "train.lr": 1e30, "train.steps": 5}, steps=5, seed=0)
    assert not found.is_finished
    assert found.last_loss == math.inf
    assert math.isnan(found.last_accuracy)


def test_a_net_of_an_experiment_s_own_is_trained_on_each_batch_in_order():
    """Adam by hand for gradients 1 and -1, bias-corrected: it moves by lr, then by -0.01 / 0.19 of it back."""
    layer = keras.layers.Dense(1, use_bias=False)
    net = keras.Sequential([keras.Input((1,)), layer])
    begun = float(layer.kernel[0, 0])

    def loss(batch):
        return batch * tf.reduce_sum(net(tf.ones((1, 1))))

    training.fit(net, loss, tf.constant([1.0, -1.0]), lr=0.5)
    assert begun - float(layer.kernel[0, 0]) == pytest.approx(0.5 * (1 - 0.01 / 0.19), rel=1e-5)


def test_test_digits_are_all_looked_at_however_few_are_trained_on():
    run = dropout._trained(images=20, width=4, rate=0.0, steps=1, seed=0)
    found = dropout._tested(run)
    task, model = run.prepared.task, run.prepared.model
    assert task.limit == 20
    for split, count, figures in (("train", 20, found[0]), ("test", 360, found[1])):
        batch = task.batch(split, np.arange(count), epoch=None)
        right = model(batch["images"]).numpy().argmax(-1) == batch["labels"]
        assert figures["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
