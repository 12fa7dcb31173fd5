import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.train.optimizers import SGD, Adam, AdamW, Optimizer, decays, optimizer

STEPS = 6
EVERY_RULE = [
    SGD(0.0),
    SGD(0.9),
    SGD(0.9, nesterov=True, weight_decay=0.1),
    Adam(weight_decay=0.1),
    AdamW(weight_decay=0.1),
]


def gradients(shape=(3, 2), steps=STEPS, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, *shape))


def begin(rule: Optimizer, start, dtype):
    """A weight, and its slots."""
    weight = tf.Variable(start, dtype=dtype)
    return weight, {name: tf.Variable(tf.zeros_like(weight)) for name in rule.slots}


def run(rule: Optimizer, start, sequence, *, lr=0.1, dtype="float64", decay=True):
    """The weights after each step, with a constant lr or one for each step."""
    weight, slots = begin(rule, start, dtype)
    path = []
    for step, gradient in enumerate(sequence):
        rate = tf.constant(lr[step] if np.ndim(lr) else lr, tf.float64)
        count = tf.constant(step + 1, tf.int64)
        rule.apply(tf.constant(gradient, dtype), weight, slots, lr=rate, step=count, decay=decay)
        path.append(weight.numpy())
    return np.array(path)


# ---------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SGD(0.0), [0.95, 0.90]),
        (SGD(0.9), [0.95, 0.855]),  # v = 0.5, then 0.45 + 0.5
        (SGD(0.9, nesterov=True), [0.905, 0.7695]),  # 0.5 + 0.9 * 0.5, then 0.5 + 0.9 * 0.95
        (SGD(0.0, weight_decay=0.2), [0.93, 0.8614]),  # g = 0.5 + 0.2 * 1, then 0.5 + 0.2 * 0.93
        # A constant gradient: m^ = 0.5 and v^ = 0.25 at every step; an epsilon of 0.5 shows where it is added.
        (Adam(epsilon=0.5), [0.95, 0.90]),
        (AdamW(epsilon=0.5, weight_decay=0.2), [0.93, 0.8614]),  # 0.1 * (0.5 + 0.2 * 1), then 0.1 * (0.5 + 0.2 * 0.93)
    ],
)
def test_the_first_two_steps(rule, expected):
    assert run(rule, [1.0], [[0.5], [0.5]], decay=True).ravel() == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------------------------- from the papers' equations


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_sutskever_on_a_quadratic(nesterov):
    # Sutskever et al. 2013, eq. 1 to 4, on f(w) = w' A w / 2. With Nesterov our weight is their look-ahead point.
    a = np.array([[2.0, 0.3], [0.3, 0.5]])
    momentum, lr = 0.8, 0.1
    theta, velocity = np.array([1.0, -2.0]), np.zeros(2)
    rule, rate = SGD(momentum, nesterov=nesterov), tf.constant(lr, tf.float64)
    weight, slots = begin(rule, theta, "float64")
    for step in range(1, 11):
        point = theta + momentum * velocity if nesterov else theta
        velocity = momentum * velocity - lr * a @ point
        theta = theta + velocity
        rule.apply(tf.constant(a @ weight.numpy()), weight, slots, lr=rate, step=step, decay=False)
        np.testing.assert_allclose(weight, theta + momentum * velocity if nesterov else theta, rtol=1e-12)


def test_adam_follows_algorithm_1():
    beta1, beta2, epsilon, lr = 0.8, 0.95, 1e-3, 0.05
    start = np.ones((3, 2))
    theta, m, v, expected = start, 0.0, 0.0, []
    for t, g in enumerate(gradients(), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        theta = theta - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        expected.append(theta)
    np.testing.assert_allclose(run(Adam(beta1, beta2, epsilon), start, gradients(), lr=lr), expected, rtol=1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_follows_loshchilov_and_hutter(decoupled):
    # Algorithm 2: the L2 gradient enters in line 6, the decoupled decay in line 12; eta_t alpha there is lr here.
    beta1, beta2, epsilon, decay = 0.8, 0.95, 1e-8, 0.3
    rates = [0.01, 0.02, 0.03, 0.02, 0.01, 0.005]
    theta = np.linspace(-1, 1, 6).reshape(3, 2)
    start, m, v, expected = theta, 0.0, 0.0, []
    for t, (lr, g) in enumerate(zip(rates, gradients(), strict=True), start=1):
        total = g if decoupled else g + decay * theta
        m = beta1 * m + (1 - beta1) * total
        v = beta2 * v + (1 - beta2) * total**2
        step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        theta = theta - lr * (step + decay * theta if decoupled else step)
        expected.append(theta)
    rule = (AdamW if decoupled else Adam)(beta1, beta2, epsilon, decay)
    np.testing.assert_allclose(run(rule, start, gradients(), lr=rates), expected, rtol=1e-12)


# ----------------------------------------------------------------------------------------- another implementation


def run_keras(rule, start, sequence, before_step=lambda step: None):
    variable = keras.Variable(start, dtype="float64")
    rule.build([variable])
    path = []
    for step, gradient in enumerate(sequence):
        before_step(step)
        rule.apply([tf.constant(gradient, tf.float64)])
        path.append(variable.numpy())
    return np.array(path)


@pytest.mark.parametrize("options", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_equals_keras_at_a_constant_rate(options):
    momentum, nesterov = options
    theirs = keras.optimizers.SGD(0.1, momentum=momentum, nesterov=nesterov)
    expected = run_keras(theirs, np.ones((3, 2)), gradients())
    np.testing.assert_allclose(run(SGD(momentum, nesterov), np.ones((3, 2)), gradients()), expected, rtol=1e-6)


@pytest.mark.parametrize("decay", [None, 0.3])
def test_adam_and_adamw_equal_keras(decay):
    rates = [0.01, 0.02, 0.03, 0.02, 0.01, 0.005]
    theirs = keras.optimizers.Adam(0.1, 0.8, 0.95) if decay is None else keras.optimizers.AdamW(0.1, decay, 0.8, 0.95)

    def before_step(step):
        theirs.learning_rate = rates[step]
        # Keras adds epsilon to the root before it is corrected.
        theirs.epsilon = 0.01 * np.sqrt(1 - 0.95 ** (step + 1))

    expected = run_keras(theirs, np.ones((3, 2)), gradients(), before_step)
    rule = Adam(0.8, 0.95, 0.01) if decay is None else AdamW(0.8, 0.95, 0.01, decay)
    np.testing.assert_allclose(run(rule, np.ones((3, 2)), gradients(), lr=rates), expected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_obeys_a_new_rate_at_once(nesterov):
    path = run(SGD(0.9, nesterov), np.ones(4), gradients((4,), 3), lr=[0.1, 0.1, 0.0])
    np.testing.assert_array_equal(path[2], path[1])
    assert np.abs(path[1] - path[0]).min() > 0


def test_adam_does_not_depend_on_the_scale_of_the_gradients():
    # Kingma & Ba 2015, section 2.1.
    small = run(Adam(epsilon=1e-30), np.ones((3, 2)), gradients())
    large = run(Adam(epsilon=1e-30), np.ones((3, 2)), 1000 * gradients())
    np.testing.assert_allclose(small, large, rtol=1e-9)


def test_decoupled_decay_is_an_exact_factor():
    start = np.linspace(-3, 3, 6)
    path = run(AdamW(weight_decay=0.5), start, np.zeros((3, 6)), lr=[0.1, 0.2, 0.4])
    np.testing.assert_allclose(path, [start * 0.95, start * 0.95 * 0.9, start * 0.95 * 0.9 * 0.8], rtol=1e-14)


def test_decoupled_decay_is_not_rounded_in_float32():
    # lr d is 25.5 units of the last place below 1: a factor 1 - lr d would be off by 2 % in float32.
    start, lr = np.linspace(1, 2, 1001), 51 * 2.0**-24
    path = run(AdamW(weight_decay=0.5), start, np.zeros((100, 1001)), lr=lr, dtype="float32")
    assert np.mean(1 - path[-1] / start) == pytest.approx(1 - (1 - lr / 2) ** 100, rel=5e-3)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=repr)
def test_weights_that_do_not_decay(rule):
    free = dataclasses.replace(rule, weight_decay=0.0)
    np.testing.assert_array_equal(
        run(rule, np.ones(4), gradients((4,)), decay=False), run(free, np.ones(4), gradients((4,)), decay=True)
    )


def test_which_weights_decay():
    kernel, bias = keras.Variable(np.ones((3, 3, 1, 8)), name="kernel"), keras.Variable(np.ones(8), name="bias")
    assert decays(kernel)
    assert decays(tf.ones((5, 4)))
    assert not decays(bias)
    assert not decays(tf.Variable(tf.ones(8), name="gamma"))
    assert not decays(tf.Variable(tf.ones((2, 12)), name="bias"))


def test_no_bias_of_keras_decays():
    layers = [keras.layers.GRU(4), keras.layers.LSTM(4)]
    attention = keras.layers.MultiHeadAttention(2, 4)
    for layer in layers:
        layer.build((None, 3, 5))
    attention.build((None, 3, 8), (None, 3, 8))
    found = [variable for layer in [*layers, attention] for variable in layer.trainable_variables]
    assert {len(variable.shape) for variable in found if variable.name == "bias"} == {1, 2}
    assert {variable.name for variable in found if decays(variable)} == {"kernel", "recurrent_kernel"}


@pytest.mark.parametrize("rule", EVERY_RULE, ids=repr)
def test_float32_stays_close_to_float64(rule):
    near = run(rule, np.ones((3, 2)), gradients(steps=30), dtype="float32")
    assert near.dtype == np.float32
    # TensorFlow's kernel takes 1 - 0.999 in float32, which is 1.3e-5 too small: steps of 0.1 are 6e-7 too long.
    near_enough = 3e-6 if isinstance(rule, SGD) else 30 * 6.5e-7
    np.testing.assert_allclose(near, run(rule, np.ones((3, 2)), gradients(steps=30)), atol=near_enough)


# --------------------------------------------------------------------------------------------------------- options


def test_options_reach_their_optimizer():
    assert optimizer("sgd", momentum=0.5, nesterov=True, weight_decay=0.1) == SGD(0.5, True, 0.1)
    assert optimizer("adam", beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1) == Adam(0.8, 0.9, 1e-3, 0.1)
    assert optimizer("adamw", beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1) == AdamW(0.8, 0.9, 1e-3, 0.1)
    assert [rule.slots for rule in (SGD(), SGD(0.0), Adam(), AdamW())] == [("momentum",), (), ("m", "v"), ("m", "v")]


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"beta1": 1.0},
        {"beta2": float("nan")},
        {"epsilon": 0.0},
        {"weight_decay": -1e-4},
        {"weight_decay": float("inf")},
        {"momentum": 0.0, "nesterov": True},
    ],
)
def test_values_out_of_range(options):
    with pytest.raises(UsageError, match=next(iter(options)).replace("_", " ")):
        optimizer("sgd", **options)


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown optimizer: adma") as caught:
        optimizer("adma")
    assert "`adam`" in caught.value.hint


@pytest.mark.parametrize("rule", EVERY_RULE, ids=repr)
def test_in_a_graph_it_is_the_same_step(rule):
    weight, slots = begin(rule, np.ones((3, 2)), "float64")

    @tf.function
    def step(gradient, count):
        rule.apply(gradient, weight, slots, lr=tf.constant(0.1, tf.float64), step=count, decay=True)

    expected = run(rule, np.ones((3, 2)), gradients())
    for count, gradient in enumerate(gradients()):
        step(tf.constant(gradient), tf.constant(count + 1, tf.int64))
        np.testing.assert_allclose(weight, expected[count], rtol=1e-12)
