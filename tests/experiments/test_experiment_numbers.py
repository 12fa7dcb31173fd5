"""What experiments measure, against arithmetic."""

import math

import numpy as np
import pytest

from dlkit import recipe
from dlkit.experiments import attention_cost, dense_vs_conv, ensembles, initialization, random_vs_grid, vanishing
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
    np.testing.assert_allclose(vanishing.by_distance(made), last * u ** np.arange(6), rtol=1e-5)


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
