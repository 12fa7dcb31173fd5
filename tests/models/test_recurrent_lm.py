"""Language models that read step by step: no look ahead, and a text in parts is a whole text."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dlkit
from dlkit.layers.causal_convolution import CausalConv
from dlkit.probe.record import unallocated

VOCABULARY = 9
MODELS = {
    "rnn_lm": {"width": 6},
    "lstm_lm": {"width": 6, "tied": True},
    "gru_lm": {"width": 6},
    "tcn_lm": {"width": 6, "layers": 2},
}
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 18)).astype(np.int32)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    keras.utils.set_random_seed(1)
    return dlkit.build(request.param, vocabulary=VOCABULARY, **MODELS[request.param])


def test_no_position_sees_what_comes_after_it(model):
    other = np.concatenate([IDS[:, :10], (IDS[:, 10:] + 1) % VOCABULARY], 1)
    one, two = model(IDS).numpy(), model(other).numpy()
    np.testing.assert_allclose(one[:, :10], two[:, :10], atol=1e-6)
    assert not np.allclose(one[:, 10], two[:, 10], atol=1e-6)


def test_step_by_step_it_says_what_it_says_of_the_whole_text(model):
    state, memory = model.start(IDS)
    for at in range(18):
        made = model.step(tf.constant(IDS[:, at : at + 1]), state, memory)
        state = made.state
        np.testing.assert_allclose(made.logits[:, 0], model(IDS)[:, at], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rnn_lm", "lstm_lm", "gru_lm"])
def test_a_text_in_parts_is_one_long_pass(name):
    model = dlkit.build(name, vocabulary=VOCABULARY, width=6)
    state, parts = model.zero_state(2), []
    for first, last in ((0, 7), (7, 8), (8, 18)):
        logits, state = model.run(IDS[:, first:last], state)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), model(IDS), rtol=1e-5, atol=1e-6)


def test_a_convolution_is_the_sum_of_its_equation():
    """Without and with weight normalization, of which the weights of a filter are g v / |v|."""
    x = np.random.default_rng(2).normal(size=(1, 7, 3)).astype(np.float32)
    for normalized in (False, True):
        conv = CausalConv(2, kernel_size=3, dilation_rate=2, weight_norm=normalized, name="conv")
        conv.build(x.shape)
        conv.bias.assign([0.5, -1.0])
        kernel = conv.kernel.numpy()
        if normalized:
            conv.length.assign([2.0, 3.0])
            kernel = np.array([2.0, 3.0]) * kernel / np.sqrt((kernel**2).sum(0))
        taps = kernel.reshape(3, 3, 2)
        expected = np.tile([0.5, -1.0], (7, 1))
        for t in range(7):
            for tap in range(3):
                if (at := t - 2 * (2 - tap)) >= 0:
                    expected[t] += x[0, at] @ taps[tap]
        np.testing.assert_allclose(conv(x)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_receptive_field_of_convolutions_ends_where_it_says():
    keras.utils.set_random_seed(1)
    model = dlkit.build("tcn_lm", vocabulary=VOCABULARY, width=16, layers=2)
    model.embedding.embeddings.assign(np.random.default_rng(1).normal(size=(VOCABULARY, 16)))
    assert model.receptive_field == 13
    ids = np.zeros((1, 14), np.int32)
    changed = {at: np.where(np.arange(14) == at, 5, ids) for at in (0, 1)}
    last = model(ids)[:, -1].numpy()
    np.testing.assert_array_equal(model(changed[0])[:, -1], last)
    assert not np.array_equal(model(changed[1])[:, -1], last)


def test_blocks_of_convolutions_take_another_activation():
    """tanh in the place of all three ReLUs of figure 1 (b), over a whole text and step by step."""
    keras.utils.set_random_seed(1)
    model = dlkit.build("tcn_lm", vocabulary=VOCABULARY, width=6, layers=2, activation="tanh")
    x = model.embedding(IDS).numpy()
    for block in model.blocks:
        y = x
        for conv in block.convs:
            y = np.tanh(conv(y).numpy())
        x = np.tanh(x + y)
    expected = x @ model.head.kernel.numpy() + model.head.bias.numpy()
    np.testing.assert_allclose(model(IDS), expected, rtol=1e-4, atol=1e-6)
    state, memory = model.start(IDS)
    for at in range(3):
        made = model.step(tf.constant(IDS[:, at : at + 1]), state, memory)
        state = made.state
        np.testing.assert_allclose(made.logits[:, 0], expected[:, at], rtol=1e-4, atol=1e-6)


def test_the_published_size():
    with unallocated():
        assert dlkit.build("lstm_lm", vocabulary=10_000).count_params() == 6_180_624
