import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.train.losses import softmax_cross_entropy


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def targets(labels, classes, smoothing):
    """Szegedy et al. 2016, section 7: q'(k) = (1 - e) delta(k, y) + e / K."""
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


def random_batch(shape=(2, 5), classes=7, dtype="float64"):
    generator = np.random.default_rng(0)
    return generator.normal(size=(*shape, classes)).astype(dtype), generator.integers(0, classes, shape)


def with_gradient(logits, labels, smoothing, weights=None):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
        total = tf.reduce_sum(losses if weights is None else losses * weights)
    return losses.numpy(), tape.gradient(total, logits).numpy()


def test_by_hand():
    # p = 1/2, 1/4, 1/4.
    logits = np.log([[2.0, 1.0, 1.0]])
    assert softmax_cross_entropy(logits, [0]).numpy() == pytest.approx([np.log(2)], rel=1e-12)
    smoothed = 0.7 * np.log(4) + 0.1 * (np.log(2) + 2 * np.log(4))
    assert softmax_cross_entropy(logits, [1], label_smoothing=0.3).numpy() == pytest.approx([smoothed], rel=1e-12)
    assert softmax_cross_entropy(tf.zeros((1, 10)), [3], label_smoothing=0.1).numpy() == pytest.approx([np.log(10)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (2, 3, 4)])
def test_equals_the_definition(shape, smoothing):
    logits, labels = random_batch(shape)
    expected = -(targets(labels, 7, smoothing) * log_softmax(logits)).sum(-1)
    losses = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    assert losses.shape == shape
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_keras(smoothing):
    logits, labels = random_batch(dtype="float32")
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    expected = theirs(np.eye(7, dtype="float32")[labels], logits)
    np.testing.assert_allclose(
        softmax_cross_entropy(logits, labels, label_smoothing=smoothing), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_equals_finite_differences(smoothing):
    logits, labels = random_batch((3,), classes=4)
    weights = np.array([1.0, 0.0, 2.5])

    def total(values):
        return float(tf.reduce_sum(weights * softmax_cross_entropy(values, labels, label_smoothing=smoothing)))

    expected = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        expected[place] = (total(logits + step) - total(logits - step)) / 2e-5
    _, gradient = with_gradient(logits, labels, smoothing, weights)
    np.testing.assert_allclose(gradient, expected, atol=1e-9)


def test_second_derivative():
    # The Hessian of the cross entropy is diag(p) - p p', whatever the target distribution.
    logits = tf.constant([[0.3, -0.2, 1.0]], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(logits)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            loss = softmax_cross_entropy(logits, [1], label_smoothing=0.1)
        gradient = inner.gradient(loss, logits)
    p = np.exp(log_softmax(logits.numpy()))[0]
    np.testing.assert_allclose(outer.jacobian(gradient, logits)[0, :, 0], np.diag(p) - np.outer(p, p), atol=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_logits(smoothing):
    logits = np.array([[1e4, -1e4, 0.0], [1e4, 1e4 - 1, 1e4 - 2]], "float32")
    labels = np.array([0, 1])
    losses, gradient = with_gradient(logits, labels, smoothing)
    exact = logits.astype("float64")
    np.testing.assert_allclose(losses, -(targets(labels, 3, smoothing) * log_softmax(exact)).sum(-1), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(exact)) - targets(labels, 3, smoothing), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "computed"), [("bfloat16", "float32"), ("float16", "float32"), ("float64", "float64")]
)
def test_low_precision_logits_give_float32_losses(dtype, computed):
    logits, labels = random_batch()
    logits = tf.cast(logits, dtype)
    losses, gradient = with_gradient(logits, labels, 0.1)
    expected = -(targets(labels, 7, 0.1) * log_softmax(tf.cast(logits, tf.float64).numpy())).sum(-1)
    assert losses.dtype == computed
    assert gradient.dtype == logits.dtype.as_numpy_dtype
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_not_hidden(wrong, smoothing):
    """Wherever it stands in a row, and whatever the label: training looks at the loss to stop. Other rows are sound."""
    logits, labels = random_batch((4,), classes=300, dtype="float32")
    logits[0, 0], logits[1, 299], logits[2, labels[2]] = wrong, wrong, wrong
    losses, gradient = with_gradient(logits, labels, smoothing)
    assert not np.isfinite(losses[:3]).any()
    assert not np.isfinite(gradient[:3]).all(axis=-1).any()
    assert np.isfinite(losses[3])
    assert np.isfinite(gradient[3]).all()


def test_an_impossible_class_costs_nothing_until_it_is_the_right_one():
    logits = np.array([[0.0, -np.inf, 0.0], [0.0, -np.inf, 0.0]], "float32")
    losses, gradient = with_gradient(logits, np.array([0, 1]), 0.0)
    assert losses.tolist() == pytest.approx([np.log(2), np.inf])
    np.testing.assert_allclose(gradient, [[-0.5, 0, 0.5], [0.5, -1, 0.5]])


def test_smoothed_loss_is_least_at_the_smoothed_distribution():
    logits = np.log(targets(np.array([2]), 5, 0.1))
    losses, gradient = with_gradient(logits, [2], 0.1)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)
    q = targets(np.array([2]), 5, 0.1)
    assert losses[0] == pytest.approx(-(q * np.log(q)).sum(), rel=1e-12)  # the entropy of q


@pytest.mark.parametrize("kind", [tf.int32, tf.int64])
def test_in_a_graph_of_unknown_shape(kind):
    logits, labels = random_batch(dtype="float32")

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, 7)), tf.TensorSpec((None, None), kind)],
    )
    def both(logits, labels):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = softmax_cross_entropy(logits, labels, label_smoothing=0.1)
        return losses, tape.gradient(losses, logits)

    for rows in (2, 0):
        losses, gradient = both(logits[:rows], tf.constant(labels[:rows], kind))
        expected, slope = with_gradient(logits[:rows], labels[:rows], 0.1)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient, slope, atol=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(UsageError, match="label smoothing"):
        softmax_cross_entropy(tf.zeros((1, 2)), [0], label_smoothing=smoothing)
