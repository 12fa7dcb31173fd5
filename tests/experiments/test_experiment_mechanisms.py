"""Each claim holds in a small size, and does not once what makes it true is switched off."""

import math
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, recipe
from dlkit.experiments import (
    EXPERIMENTS,
    attention_cost,
    clipping,
    degradation,
    function_of,
    padding_and_stride,
    random_vs_grid,
)
from dlkit.experiments.training import Trained
from dlkit.layers import attention, recurrent
from dlkit.values import check_call

# ------------------------------------------------------------------------------ what no option of an experiment changes
# Each of these puts something else in place of the mechanism of a claim; all else is computed as it is.


def no_zeros(patch):
    """No convolution has zeros around its images."""
    convolved = padding_and_stride._convolved
    patch.setattr(
        padding_and_stride,
        "_convolved",
        lambda images, kernels, *, zeros, stride=1: convolved(images, kernels, zeros=0, stride=stride),
    )


def zeros_everywhere(patch):
    """No edge is cut: every convolution of 5x5 has two zeros on each side."""
    convolved = padding_and_stride._convolved
    patch.setattr(
        padding_and_stride,
        "_convolved",
        lambda images, kernels, *, zeros, stride=1: convolved(images, kernels, zeros=2, stride=stride),
    )


def zeros_by_the_stride(patch):
    """A stride is given as many zeros as it needs, one before and two behind: it sees other places than stride 1."""
    convolved = padding_and_stride._convolved

    def same(images, kernels, *, zeros, stride=1):
        if stride == 1:
            return convolved(images, kernels, zeros=zeros)
        return tf.nn.conv2d(images, kernels, stride, "SAME").numpy()

    patch.setattr(padding_and_stride, "_convolved", same)


def windows_of_one(patch):
    """A pool looks at one output only, the one that a stride keeps."""
    pooled = padding_and_stride._pooled
    patch.setattr(
        padding_and_stride, "_pooled", lambda outputs, *, window, stride: pooled(outputs, window=1, stride=stride)
    )


def no_attention(patch):
    """Each position has its own query, key and value, and looks at no other."""
    patch.setattr(
        attention, "attend", lambda queries, keys, values, **_: (queries + keys + values, tf.zeros((1, 1, 1, 1)))
    )


def no_waiting(patch):
    """A recurrent layer takes each step for the first one, so that none waits for the one before it."""

    def all_at_once(advance, projected, kernel, state, *, mask, reverse):
        steps, rows, _ = projected.shape
        before = tf.nest.map_structure(lambda leaf: tf.tile(leaf, (steps, 1)), state)
        product = tf.matmul(tf.nest.flatten(before)[0], kernel)
        after = advance(tf.reshape(projected, (steps * rows, -1)), product, before)
        after = tf.nest.map_structure(lambda leaf: tf.reshape(leaf, (steps, rows, -1)), after)
        return tf.nest.flatten(after)[0], tf.nest.map_structure(lambda leaf: leaf[-1], after)

    patch.setattr(recurrent, "scan", all_at_once)


def no_softmax(patch):
    """Q (K^T V) in place of softmax(Q K^T) V: no weight for each pair of positions."""

    def linear(width, heads):
        scale = tf.Variable(tf.ones(width))

        def run(x):
            by_head = tf.transpose(tf.reshape(x * scale, (*x.shape[:2], heads, width // heads)), (0, 2, 1, 3))
            return tf.matmul(by_head, tf.matmul(by_head, by_head, transpose_a=True))

        return run, [scale]

    patch.setattr(attention_cost, "_attention", linear)


# Name -> options of a small size at which the claims hold, and what is switched off, with the verdicts that turn.
CASES = {
    "initialization": (
        {"depth": 12, "width": 192, "rows": 64, "seeds": 3},
        [
            ({"for_relu": "xavier"}, [0]),
            ({"orthogonal": "gaussian:0.2"}, [5, 6]),
            ({"scaled": "gaussian:0.2", "small": "gaussian:0.1"}, [1, 2, 3, 4]),
        ],
    ),
    "activations": ({"steps": 80, "seeds": 1}, [({"good": "sigmoid"}, [0, 2]), ({"bad": "relu"}, [1, 2])]),
    "clipping": (
        {"steps": 60, "seeds": 1, "lr": 0.1},
        [
            ({"norm": None, "value": None}, [1, 2]),
            ({"spread": 0.05, "norm": None, "value": None}, [0]),
            ({"length": 4}, [3]),  # of two numbers of four a net without a memory to speak of tells the sum
        ],
    ),
    "dropout": ({"seeds": 3}, [({"rate": 0.0}, [0, 1]), ({"images": 200}, [1]), ({"rescaled": False}, [2])]),
    "batchnorm_lr": ({"rates": [0.03, 0.3], "steps": 120, "seeds": 1}, [({"norm": "none"}, [0])]),
    "standardize": (
        {"steps": 100, "seeds": 1, "rates": [1e-4, 1e-1]},
        [({"inputs": False, "outputs": False}, [0, 1])],
    ),
    "ensembles": ({"members": 5, "steps": 300}, [({"by": "none"}, [0])]),
    "random_vs_grid": ({"rates": 41, "repeats": 200}, [({"grid": "rate"}, [0])]),
    "vanishing": (
        {"length": 60, "width": 16, "steps": 60, "seeds": 1, "words": 16},
        [({"remembers": "rnn", "attention": False, "biases": [1.0, 1.0]}, [0, 1, 2])],
    ),
    "dense_vs_conv": ({"steps": 300, "seeds": 1}, [({"shared": False}, [0, 1])]),
    "degradation": (
        {"rates": [0.1, 0.2], "steps": 100, "deep": 32},
        [({"shortcuts": False}, [1]), ({"deep": 20}, [0, 1]), ({"seeds": 1}, [0, 1])],
    ),
    "padding_and_stride": (
        {"images": 60, "filters": 8},
        [
            (no_zeros, [0]),
            (zeros_everywhere, [0]),
            (zeros_by_the_stride, [1]),
            (windows_of_one, [2]),
            ({"standardized": False}, [3]),
        ],
    ),
    "attention_cost": (
        {"lengths": [32, 256], "width": 64, "tokens": 512, "rounds": 1, "usual": 32},
        [
            ({"width": 8, "ffn": 8, "usual": 256}, [0]),
            (no_attention, [1]),
            (no_waiting, [2]),
            (no_softmax, [3]),
        ],
    ),
}


@cache
def built(net):
    """The numbers of a net's layers with weights, batch norms aside, and of its shortcuts."""
    layers = models.build(net).layers
    depth = sum(isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) for layer in layers)
    return depth, sum(isinstance(layer, keras.layers.Add) for layer in layers)


def as_in_the_paper(net, data, options, *, steps, seed, like=None):
    """What figure 6 of the paper says of a net that is built: the error of the deeper one rises, but with shortcuts.

    Training errors fall to 10 % (plain, 20 layers), 16 % (32), 9 % and 5 % (with shortcuts), with a spread over the
    seeds of a tenth of a point.
    """
    last = {(20, 0): 0.10, (32, 0): 0.16, (20, 9): 0.09, (32, 15): 0.05}[built(net)] + 0.001 * seed
    losses = np.linspace(2.3, 3 * last, steps) + options["train.lr"]
    return Trained(losses, np.ones(steps), np.linspace(0.1, 1 - last, steps), None)


def valley(lr, decay, steps):
    """A loss with its least at a learning rate of 0.005, whatever the weight decay."""
    return 0.1 + (math.log10(lr) + 2.3) ** 2


def on_paper(of, length, width, tokens, rounds):
    """The seconds that a layer's products of matrices take going forwards, on a machine that never changes.

    It needs 5 us to begin with a product, and a second for 10^10 multiply-adds.
    """
    run, _ = of
    rows = max(1, tokens // length)
    taken, matmul = [], tf.matmul

    def timed(a, b, transpose_a=False, **options):
        product = matmul(a, b, transpose_a=transpose_a, **options)
        taken.append(5e-6 + a.shape[-2 if transpose_a else -1] * math.prod(product.shape) / 1e10)
        return product

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "matmul", timed)
        run(tf.ones((rows, length, width)))
    return sum(taken) * tokens / (rows * length)


# In place of what takes too long, or is different each time, on both sides of a switch.
STAND_INS = {
    "random_vs_grid": (random_vs_grid, "_error", valley),  # 123 trainings
    "degradation": (degradation, "train", as_in_the_paper),  # 15 deep nets take an hour
    "attention_cost": (attention_cost, "_seconds", on_paper),
}


def turning(name):
    return {verdict for _, turned in CASES[name][1] for verdict in turned}


# Of these both sides have to be trained, for half a minute each.
TRAINED = {"activations", "clipping", "dropout", "batchnorm_lr", "standardize", "vanishing"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in TRAINED)) for name in CASES])
def test_a_verdict_turns_with_its_mechanism(name, monkeypatch):
    """Those of `attention_cost` on times by a count of products, see `on_paper`; a slow test below has a real clock."""
    small, switches = CASES[name]
    if name in STAND_INS:
        monkeypatch.setattr(*STAND_INS[name])
    run = function_of(name)
    found = run(**small)
    assert set(range(len(found.verdicts))) == turning(name), "every verdict turns"
    for switch, turned in switches:
        with monkeypatch.context() as patch:
            options = {} if callable(switch) else switch
            if callable(switch):
                switch(patch)
            other = run(**small | options)
        for verdict in turned:
            assert found.verdicts[verdict].holds, str(found.verdicts[verdict])
            assert not other.verdicts[verdict].holds, str(other.verdicts[verdict])


def test_every_experiment_has_a_verdict_that_one_of_its_options_turns():
    assert set(CASES) == set(EXPERIMENTS)
    for name, (_, switches) in CASES.items():
        assert any(turned and not callable(switch) for switch, turned in switches), name


def listed_switch(name):
    typed = {key: recipe.value_of(text) for key, text in EXPERIMENTS[name].switch.items()}
    return check_call(function_of(name), typed, where=name)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "attention_cost"])
def test_the_switch_in_the_list_is_one_that_turns_a_verdict(name):
    switches = [options for options, turned in CASES[name][1] if turned and not callable(options)]
    assert listed_switch(name) in switches


def test_the_switch_of_attention_cost_turns_its_verdict_at_the_defaults(monkeypatch):
    """n / (2 d + f + n) of the work, of d = 256 and f = 1024: 4.0 % at 64, 40 % at 1024."""
    monkeypatch.setattr(attention_cost, "_seconds", lambda of, length, *_: float(length))
    cases = {}, listed_switch("attention_cost")
    verdicts = [attention_cost.attention_cost(**options).verdicts[0] for options in cases]
    assert [verdict.holds for verdict in verdicts] == [True, False]
    assert [verdict.numbers.partition(" ")[0] for verdict in verdicts] == ["4.0", "40.0"]


@pytest.mark.slow
@pytest.mark.parametrize(("switch", "verdict"), [(no_attention, 1), (no_waiting, 2), (no_softmax, 3)])
def test_a_verdict_on_times_turns_by_the_real_clock(switch, verdict, monkeypatch):
    """In two of three timings on each side, since other work on the machine takes its time, too."""

    def holds_mostly():
        found = [
            attention_cost.attention_cost(lengths=[64, 256, 1024], width=64, tokens=2048, rounds=7) for _ in range(3)
        ]
        return sum(each.verdicts[verdict].holds for each in found) >= 2

    assert holds_mostly()
    switch(monkeypatch)
    assert not holds_mostly()


@pytest.mark.parametrize(
    ("norms", "holds"),
    [
        ([1.0, 1.0, 100.0], False),
        ([1.0, 1.0, 101.0], True),
        ([1.0, 1.0, math.inf], True),
        ([math.inf, math.inf, math.inf], True),  # from the first update on: there is no usual one
    ],
)
def test_a_gradient_explodes_when_it_is_100_times_the_usual_one_or_not_finite(norms, holds, monkeypatch):
    monkeypatch.setattr(clipping, "train", lambda *_, **__: Trained(np.zeros(3), np.array(norms), np.ones(3), None))
    monkeypatch.setattr(clipping, "_error", lambda _: 1.0)
    assert clipping.clipping(steps=3, seeds=1).verdicts[0].holds == holds


def given_times(of, length, width, tokens, rounds):
    """In place of a clock: what is timed is a table of the seconds of a token by length."""
    return tokens * of[length]


@pytest.mark.parametrize(
    ("block", "alone", "lstm", "holds"),
    [
        # 4 positions, then 8, the time of a token: as n^2 wants it twice as much in the products alone.
        ({4: 1.0, 8: 1.5}, {4: 0.5, 8: 1.0}, {4: 4.0, 8: 4.0}, [True, True, True]),
        ({4: 1.0, 8: 1.05}, {4: 0.5, 8: 0.5}, {4: 0.1, 8: 0.1}, [False, False, False]),
    ],
)
def test_the_verdicts_on_times_are_what_the_times_say(block, alone, lstm, holds, monkeypatch):
    """A token of a block of width 8 takes 12 * 8^2 products and more, one of an LSTM layer 8 * 8^2."""
    monkeypatch.setattr(attention_cost, "_block", lambda *_: block)
    monkeypatch.setattr(attention_cost, "_attention", lambda *_: alone)
    monkeypatch.setattr(attention_cost, "_lstm", lambda *_: lstm)
    monkeypatch.setattr(attention_cost, "_seconds", given_times)
    found = attention_cost.attention_cost(lengths=[8, 4], width=8)
    assert [verdict.holds for verdict in found.verdicts[1:]] == holds
    times = next(chart for chart in found.charts if chart.y_label == "time, ms")
    assert list(times.lines[0].y) == pytest.approx([1000 * 4 * block[4], 1000 * 8 * block[8]])
    first, last = found.records
    assert (first["lstm_multiply_adds"], last["lstm_multiply_adds"]) == (4 * 8 * 64, 8 * 8 * 64)
    assert last["tokens_per_second"] == pytest.approx({"Transformer block": 1 / block[8], "LSTM layer": 1 / lstm[8]})
    assert last["share_of_time"] == pytest.approx(alone[8] / block[8])
    assert [dict(zip(found.columns, row, strict=True))["of the time"] for row in found.rows] == [
        f"{100 * alone[n] / block[n]:.1f} %" for n in (4, 8)
    ]


@pytest.mark.parametrize("rates", [[0.05, 0.1, 0.2], [0.1]])
def test_the_learning_rate_is_the_best_one_of_the_shallow_plain_net(rates, monkeypatch):
    """It is tried out in short trainings, if there are several; residual nets would have liked another one."""
    trained = []

    def train(net, data, options, *, steps, seed, like=None):
        found, lr = as_in_the_paper(net, data, options, steps=steps, seed=seed), options["train.lr"]
        trained.append((net, steps, lr))
        losses = np.full(steps, 1 + abs(lr - (0.1 if net.startswith("plain") else 0.2)))
        return Trained(losses, found.norms, found.accuracies, None)

    monkeypatch.setattr(degradation, "train", train)
    found = degradation.degradation(rates=rates, steps=100, pilot=7, deep=32, seeds=2)
    tried, rest = trained[:-8], trained[-8:]
    assert tried == [("plain20", 7, rate) for rate in rates if len(rates) > 1]
    assert rest == [(net, 100, 0.1) for net in ("plain20", "plain32", "resnet20", "resnet32") for _ in range(2)]
    assert [record["lr"] for record in found.records] == [0.1] * 4


def test_the_error_that_is_compared_is_drawn_with_its_spread(monkeypatch):
    """In 50 points of two updates: of the last point 1 - 0.9 and, before it, a hundredth of the way there."""
    monkeypatch.setattr(degradation, "train", as_in_the_paper)
    found = degradation.degradation(rates=[0.1], steps=100, deep=32, seeds=3)
    losses, errors = found.charts
    assert (losses.y_label, errors.y_label) == ("training loss, nats", "training error, %")
    assert [line.label for line in errors.lines] == ["plain20", "plain32", "resnet20", "resnet32"]
    plain = errors.lines[0]
    assert (plain.x[-1], len(plain.x)) == (98, 50)
    ends = [100 * (last + (0.9 - last) / 99 / 2) for last in (0.100, 0.101, 0.102)]  # of the seeds
    assert [plain.low[-1], plain.y[-1], plain.high[-1]] == pytest.approx(ends, rel=1e-6)


def diverging(net, data, options, *, steps, seed, like=None):
    trained = as_in_the_paper(net, data, options, steps=steps, seed=seed)
    if seed:
        return trained
    losses, accuracies = trained.losses.copy(), trained.accuracies.copy()
    losses[steps // 2 :], accuracies[steps // 2 :] = np.inf, np.nan
    return Trained(losses, trained.norms, accuracies, None)


def test_nothing_follows_from_nets_that_diverged(monkeypatch):
    monkeypatch.setattr(degradation, "train", diverging)
    found = degradation.degradation(rates=[0.1], steps=100, deep=32)
    assert not any(verdict.holds for verdict in found.verdicts)
    assert {verdict.numbers for verdict in found.verdicts} == {"some diverged"}
    assert all(row[1] == "diverged" and row[2].startswith("diverged ") for row in found.rows)
    assert found.notes[-1] == "4 of 12 trainings diverged"


@pytest.mark.slow  # minutes each
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "degradation"])  # an hour, and CIFAR-10
def test_all_claims_hold_at_the_defaults(name):
    wrong = [str(verdict) for verdict in function_of(name)().verdicts if not verdict.holds]
    assert not wrong
