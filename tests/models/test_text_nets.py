"""Nets that read a text: against NumPy and PyTorch with the same weights, and what padding must not change."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import text_cnn_reference as reference

from dlkit import models
from dlkit.data.pairs import Ragged, pad
from dlkit.data.tokenizer import PAD, UNKNOWN
from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.masked_pooling import masked_max, masked_mean, without_padding
from dlkit.layers.word_dropout import WordDropout
from dlkit.models.text_bag import GAIN
from dlkit.runs import named_variables
from dlkit.summary import summarize, unallocated
from dlkit.values import accepted, parameters_of

TEXTS = [[5, 6, 7, 8, 9], [4], [], [10, 4, 4], [6, 5], [3, 3, 3, 3, 3, 3, 3]]
NETS = {
    "text_rnn": {"embedding_width": 5, "width": 6, "pool": "mean"},
    "text_lstm": {"embedding_width": 5, "width": 6, "layers": 2, "pool": "max"},
    "text_gru": {"embedding_width": 5, "width": 6, "pool": "last"},
    "text_cnn": {"width": 5, "maps": 4, "windows": [2, 3, 4]},
    "text_bag": {"width": 5, "pairs": 13},
    "text_transformer": {"width": 8, "ffn": 12, "heads": 2, "layers": 2},
    "tagger_lstm": {"embedding_width": 5, "width": 6},
    "tagger_cnn": {"embedding_width": 5, "width": 6, "layers": 3},
    "tagger_transformer": {"width": 8, "ffn": 12, "heads": 2, "layers": 2},
}
OTHERWISE = [
    ("text_transformer", {"norm": "post", "pool": "cls"}),
    ("tagger_cnn", {"dilated": False, "window": 5}),
    ("tagger_transformer", {"norm": "post", "positions": "learned", "activation": "relu_squared"}),
]


def built(name, **options):
    keras.utils.set_random_seed(1)
    model = models.build(name, vocabulary=11, classes=3, **(NETS[name] | options))
    for variable in model.trainable_variables:  # large, so that a mistake shows
        variable.assign(np.random.default_rng(len(variable.path)).normal(0, 0.7, variable.shape))
    return model


# ------------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NETS), *OTHERWISE])
def test_padding_and_other_texts_change_nothing(name, options):
    """Each text alone, without padding, says what it says among others; and so does one without a word."""
    model = built(name, **options)
    together = model(pad(TEXTS, length=12)).numpy()
    assert np.isfinite(together).all()
    for row, text in enumerate(TEXTS):
        alone = model(pad([text], length=max(1, len(text)))).numpy()[0]
        logits = together[row, : len(alone)] if name.startswith("tagger") else together[row]
        np.testing.assert_allclose(logits, alone, rtol=1e-5, atol=1e-5, err_msg=str(text))


@pytest.mark.parametrize("name", [name for name in NETS if not name.startswith("tagger")])
def test_a_text_without_words_has_the_bias_alone_to_go_by_or_what_its_net_begins_with(name):
    model = built(name)
    nothing = model(tf.zeros((1, 3), tf.int32)).numpy()[0]
    np.testing.assert_allclose(nothing, model.head.bias.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_finite_with_rows_of_padding(name):
    model = built(name)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(pad([[], [4, 5]], length=4), training=True) ** 2)
    for gradient in tape.gradient(loss, [variable.value for variable in model.trainable_variables]):
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()


@pytest.mark.parametrize("name", [*NETS, "gru", "video_lstm"])
def test_in_bfloat16_the_last_bias_keeps_its_digits(name):
    """1 + 1/512 is no bfloat16 number, whose next one after 1 is 1 + 1/128; and checkpoints name its layer `head`."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    if name in NETS:
        model, inputs = built(name), tf.constant(pad([[5, 6], [7]]))
    else:
        model = models.build(name, **({"outputs": 3} if name == "gru" else {"frame_shape": (8, 8, 1), "classes": 3}))
        inputs = tf.ones((2, 4, 1) if name == "gru" else (2, 4, 8, 8, 1))
    names = named_variables(model)
    names["head/kernel"].assign(tf.zeros_like(names["head/kernel"]))
    names["head/bias"].assign([1 + 1 / 512, 300.5, -1 / 512])
    logits = model(inputs)
    assert logits.dtype == tf.float32
    assert set(map(tuple, logits.numpy().reshape(-1, 3).tolist())) == {(1 + 1 / 512, 300.5, -1 / 512)}


# ------------------------------------------------------------------------------------------------------------- oracles


def numpy_rnn(x, kernel, recurrent, bias):
    """The outputs (time, units) of a plain recurrent layer that reads x (time, features)."""
    h, outputs = np.zeros(len(recurrent)), []
    for step in x:
        h = np.tanh(step @ kernel + h @ recurrent + bias)
        outputs.append(h)
    return np.array(outputs)


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
def test_a_bidirectional_text_rnn_is_two_loops_in_numpy(pool):
    model = built("text_rnn", pool=pool)
    ((forward, backward),) = model.encoder.levels
    table = model.embedding.embeddings.numpy()
    for text in ([5, 6, 7, 8, 9], [4]):
        x = table[text]
        weights = [[w.numpy() for w in (cell.kernel, cell.recurrent_kernel, cell.bias)] for cell in (forward, backward)]
        there, back = numpy_rnn(x, *weights[0]), numpy_rnn(x[::-1], *weights[1])
        outputs = np.concatenate([there, back[::-1]], axis=1)
        vector = {
            "last": np.concatenate([there[-1], back[-1]]), "mean": outputs.mean(axis=0), "max": outputs.max(axis=0)
        }[pool]  # fmt: skip
        expected = vector @ model.head.kernel.numpy() + model.head.bias.numpy()
        np.testing.assert_allclose(model(pad([text], length=8)).numpy()[0], expected, rtol=1e-5, atol=1e-6)


def test_the_convolutional_net_says_what_pytorch_says_with_the_same_weights():
    with np.load(Path(__file__).parent / "reference" / "text_cnn.npz") as file:
        arrays = dict(file)
    model = models.build(
        "text_cnn", vocabulary=reference.VOCABULARY, classes=reference.CLASSES, windows=list(reference.WINDOWS),
        maps=reference.MAPS, width=reference.WIDTH,
    )  # fmt: skip
    model.embedding.embeddings.assign(arrays["embedding"])
    model.head.kernel.assign(arrays["head"])
    model.head.bias.assign(arrays["head_bias"])
    for number, conv in enumerate(model.convs, 1):
        conv.kernel.assign(arrays[f"conv{number}"])
        conv.bias.assign(arrays[f"bias{number}"])
    logits = model(pad(reference.TEXTS, length=9)).numpy()
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-5, atol=1e-6)


def test_the_convolutional_net_takes_another_activation():
    """Its equation in NumPy: windows with zeros around the text, tanh, and of each map the maximum."""
    model = built("text_cnn", activation="tanh")
    for text in ([5, 6, 7, 8, 9], [4]):
        pooled = []
        for window, conv in zip(model.windows, model.convs, strict=True):
            x = np.pad(model.embedding.embeddings.numpy()[text], ((window - 1, window - 1), (0, 0)))
            seen = np.stack([x[at : at + window] for at in range(len(text) + window - 1)])  # (places, window, width)
            maps = np.einsum("pwi,wio->po", seen, conv.kernel.numpy()) + conv.bias.numpy()
            pooled.append(np.tanh(maps).max(axis=0))
        expected = np.concatenate(pooled) @ model.head.kernel.numpy() + model.head.bias.numpy()
        np.testing.assert_allclose(model(pad([text], length=8)).numpy()[0], expected, rtol=1e-5, atol=1e-6)


def numpy_windows(x, layers, dilations, activation):
    """The outputs (time, filters) of convolutions on top of each other, by their equation, each with its activation."""
    for (kernel, bias), apart in zip(layers, dilations, strict=True):
        taps, outputs = kernel.reshape(-1, x.shape[1], len(bias)), []
        for t in range(len(x)):
            places = [t + apart * (tap - len(taps) // 2) for tap in range(len(taps))]
            seen = [x[at] @ tap for at, tap in zip(places, taps, strict=True) if 0 <= at < len(x)]
            outputs.append(activation(sum(seen) + bias))
        x = np.array(outputs).reshape(len(x), len(bias))
    return x


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    ("options", "dilations", "activation"),
    [
        ({}, [1, 2, 4], relu),
        ({"dilated": False, "window": 5}, [1, 1, 1], relu),
        ({"layers": 1, "window": 1}, [1], relu),
        ({"activation": "tanh"}, [1, 2, 4], np.tanh),
        ({"activation": "relu_squared", "layers": 2}, [1, 2], lambda x: relu(x) ** 2),
    ],
)
def test_a_convolutional_tagger_is_its_equation_in_numpy(options, dilations, activation):
    keras.config.set_dtype_policy("float64")
    model = built("tagger_cnn", **options)
    layers = [(conv.kernel.numpy(), conv.bias.numpy()) for conv in model.encoder.convs]
    logits = model(pad(TEXTS, length=9)).numpy()
    assert logits.dtype == np.float64
    for row, text in enumerate(TEXTS):
        outputs = numpy_windows(model.embedding.embeddings.numpy()[text], layers, dilations, activation)
        expected = outputs @ model.head.kernel.numpy() + model.head.bias.numpy()
        np.testing.assert_allclose(logits[row, : len(text)], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "reach"),
    [({}, 1 + 2 + 4), ({"dilated": False}, 3), ({"layers": 2, "window": 5}, 2 + 4), ({"layers": 1, "window": 1}, 0)],
)
def test_a_tag_depends_on_exactly_the_words_of_its_window(options, reach):
    model = built("tagger_cnn", width=8, **options)
    for weight in model.weights:  # positive ones, so that no ReLU stands in the way
        weight.assign(np.abs(weight.numpy()))
    assert model.receptive_field == 2 * reach + 1
    ids = np.random.default_rng(0).integers(4, 10, (1, 19)).astype(np.int32)
    logits = model(ids).numpy()[0]
    for at in range(19):
        changed = model(np.where(np.arange(19) == at, 10, ids)).numpy()[0]
        differs = (changed != logits).any(axis=-1)
        assert (differs == (np.abs(np.arange(19) - at) <= reach)).all(), at


def test_a_convolutional_tagger_sees_31_words_by_default():
    """Strubell et al. 2017: four layers of windows of three words."""
    with unallocated():
        assert models.build("tagger_cnn", vocabulary=9, classes=2).receptive_field == 31


@pytest.mark.parametrize("options", [{}, {"norm": "post", "positions": "learned"}])
def test_a_transformer_tags_words_by_what_a_classifier_makes_of_them(options):
    """With its weights: what is said of the words, on average, is what the classifier says of the mean of the words."""
    classifier, tagger = (built(name, **options) for name in ("text_transformer", "tagger_transformer"))
    assert [weight.path for weight in tagger.weights] == [weight.path for weight in classifier.weights]
    classifier.set_weights([weight + 0.1 for weight in classifier.get_weights()])
    tagger.set_weights(classifier.get_weights())
    texts = [text for text in TEXTS if text]
    expected = classifier(pad(texts, length=9)).numpy()
    logits = tagger(pad(texts, length=9)).numpy()
    means = [tags[: len(text)].mean(axis=0) for tags, text in zip(logits, texts, strict=True)]
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)


def test_a_bag_is_the_mean_of_the_vectors_of_its_words_and_pairs():
    model = built("text_bag", pairs=0)
    table, text = model.embedding.embeddings.numpy(), [5, 9, 5]
    expected = table[text].mean(axis=0) @ model.head.kernel.numpy() + model.head.bias.numpy()
    np.testing.assert_allclose(model(pad([text], length=6)).numpy()[0], expected, rtol=1e-5)
    np.testing.assert_allclose(model(pad([text[::-1]])).numpy()[0], expected, rtol=1e-5, err_msg="words have no order")
    # With vectors of 0 for words, three words and two pairs: the mean is over five.
    model = built("text_bag", pairs=1)
    model.embedding.embeddings.assign(np.zeros((11, 5)))
    pair = model.pair_embedding.embeddings.numpy()[0]
    expected = 2 / 5 * pair @ model.head.kernel.numpy() + model.head.bias.numpy()
    np.testing.assert_allclose(model(pad([text], length=6)).numpy()[0], expected, rtol=1e-5)


def test_a_bag_that_starts_as_naive_bayes_has_the_log_ratios_of_the_counts():
    """Two texts `5 6` of class 0 and one `5 7` of class 1: by hand, with one added to each count."""
    model = built("text_bag", pairs=1009, start="naive_bayes")
    model.begin_with(Ragged.of([[5, 6], [5, 6], [5, 7]]), np.array([0, 0, 1], np.int32))
    # Three words and two pairs have been seen. Class 0 has 6 counts, class 1 has 3, class 2 none, each with 5 added.
    probabilities = {5: [3 / 11, 2 / 8, 1 / 5], 6: [3 / 11, 1 / 8, 1 / 5], (5, 6): [3 / 11, 1 / 8, 1 / 5]}
    ratios = [np.log(each) - np.log(each).mean() for each in probabilities.values()]
    table = model.embedding.embeddings.numpy()
    np.testing.assert_allclose(table[[5, 6], :3], ratios[:2], rtol=1e-5)
    assert (table[8, :3] == 0).all(), "what has not been seen says nothing"
    model.head.bias.assign(np.zeros(3))
    model.head.kernel.assign(np.where(np.arange(5)[:, None] < 3, model.head.kernel.numpy(), 0))
    expected = GAIN * np.mean(ratios, axis=0)
    np.testing.assert_allclose(model(pad([[5, 6]], length=4)).numpy()[0], expected, rtol=1e-5)
    with pytest.raises(UsageError, match="3 classes, and the vectors have 2"):
        built("text_bag", start="naive_bayes", width=2)


def test_pairs_tell_the_order_of_words():
    model = built("text_bag", pairs=1009)
    one, other = model(pad([[5, 6, 7], [7, 6, 5]])).numpy()
    assert np.abs(one - other).max() > 1e-3


def test_without_positions_a_transformer_reads_a_bag_and_with_them_it_does_not():
    texts = pad([[5, 6, 7, 8], [8, 6, 5, 7]])
    one, other = built("text_transformer", positions="none")(texts).numpy()
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    one, other = built("text_transformer")(texts).numpy()
    assert np.abs(one - other).max() > 1e-3


def test_a_forward_tagger_does_not_know_the_future_and_a_bidirectional_one_does():
    first, second = pad([[5, 6, 7]]), pad([[5, 6, 8]])
    forward, both = built("tagger_lstm", bidirectional=False), built("tagger_lstm")
    np.testing.assert_allclose(forward(first)[:, :2], forward(second)[:, :2], rtol=1e-6)
    assert np.abs(both(first)[:, 0] - both(second)[:, 0]).max() > 1e-3


# -------------------------------------------------------------------------------------------------------------- layers


def test_masked_pooling_by_hand():
    x = tf.constant([[[1.0, -5], [3, -7], [90, 90]], [[float("nan")] * 2] * 3])
    real = tf.constant([[True, True, False], [False] * 3])
    assert masked_mean(x, real).numpy().tolist() == [[2, -6], [0, 0]]
    assert masked_max(x, real).numpy().tolist() == [[3, -5], [0, 0]]
    assert without_padding(x, real).numpy().tolist() == [[[1, -5], [3, -7], [0, 0]], [[0, 0]] * 3]


def test_word_dropout_makes_words_unknown_and_leaves_padding():
    ids = tf.constant(pad([list(range(4, 11)) * 20, [4]]))
    layer = WordDropout(0.3, name="word_dropout")
    assert (layer(ids, training=False).numpy() == ids.numpy()).all()
    dropped = layer(ids, training=True).numpy()
    assert set(dropped[dropped != ids.numpy()].tolist()) == {UNKNOWN}
    assert 0.15 < (dropped[0] == UNKNOWN).mean() < 0.45
    assert (dropped[1, 1:] == PAD).all()


def test_the_draw_of_word_dropout_goes_with_the_row_of_the_global_batch():
    ids, layer = tf.constant(np.full((6, 50), 5)), WordDropout(0.5, name="word_dropout")

    def draw(rows, first):
        with step_context.use(step_context.StepContext(tf.constant([1, 2]), tf.constant(first))):
            return layer(ids[rows], training=True).numpy()

    whole = draw(slice(0, 6), 0)
    assert (draw(slice(4, 6), 4) == whole[4:]).all()
    assert (whole[0] != whole[1]).any()


# --------------------------------------------------------------------------------------------------- counts, mistakes


# Four projections, two layers of the position-wise network, two norms.
ENCODER_BLOCK = 4 * (128 * 128 + 128) + 128 * 256 + 256 + 256 * 128 + 128 + 2 * 2 * 128


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        # Words, gates of both directions, the linear layer.
        ("text_lstm", {}, 100 * 128 + 2 * 4 * (128 * 64 + 64 * 64 + 64) + 128 * 2 + 2),
        ("text_gru", {"bidirectional": False}, 100 * 128 + 3 * (128 * 128 + 128 * 128 + 128) + 128 * 2 + 2),
        ("text_rnn", {}, 100 * 128 + 2 * (128 * 64 + 64 * 64 + 64) + 128 * 2 + 2),
        ("text_cnn", {}, 100 * 128 + (3 + 4 + 5) * 128 * 100 + 300 + 300 * 2 + 2),
        ("text_bag", {"pairs": 1000}, 1100 * 16 + 16 * 2 + 2),
        ("text_transformer", {}, 100 * 128 + 2 * ENCODER_BLOCK + 2 * 128 + 128 * 2 + 2),
        ("tagger_rnn", {}, 100 * 64 + 2 * (64 * 64 + 64 * 64 + 64) + 128 * 2 + 2),
        ("tagger_gru", {}, 100 * 64 + 2 * 3 * (64 * 64 + 64 * 64 + 64) + 128 * 2 + 2),
        ("tagger_cnn", {}, 100 * 64 + (3 * 64 + 3 * 3 * 128) * 128 + 4 * 128 + 128 * 2 + 2),
        ("tagger_cnn", {"layers": 1, "window": 5, "dilated": False}, 100 * 64 + 5 * 64 * 128 + 128 + 128 * 2 + 2),
        ("tagger_transformer", {}, 100 * 128 + 2 * ENCODER_BLOCK + 2 * 128 + 128 * 2 + 2),
        ("tagger_transformer", {"norm": "post"}, 100 * 128 + 2 * ENCODER_BLOCK + 128 * 2 + 2),
    ],
)
def test_parameters_by_arithmetic(name, options, count):
    with unallocated():
        model = models.build(name, vocabulary=100, classes=2, **options)
        summary = summarize(model, keras.KerasTensor((1, 7), "int32"))
    assert summary.parameters == count


@pytest.mark.parametrize("names", ["text_{}", "tagger_{}", "{}_lm"])
def test_nets_of_other_cells_have_the_same_options_but_for_the_forget_gate(names):
    rnn, gru, lstm = (
        {key: (accepted(p.annotation), p.default) for key, p in parameters_of(models.builder(name)).items()}
        for name in map(names.format, ("rnn", "gru", "lstm"))
    )
    assert lstm.pop("forget_bias") == ("a number", 1.0)
    assert rnn == gru == lstm
    assert "cell" not in rnn
    with unallocated():
        for cell in ("rnn", "gru", "lstm"):
            of_data = {"vocabulary": 9} if names == "{}_lm" else {"vocabulary": 9, "classes": 2}
            net = models.build(names.format(cell), width=4, layers=1, **of_data)
            assert net.name == names.format(cell)
            assert any(cell in path for path in named_variables(net)), "its layers say which they are"


def test_multiply_adds_of_a_convolutional_tagger():
    """Each of 7 words: three taps of 64 numbers, three times three of 128, and the linear layer."""
    with unallocated():
        summary = summarize(models.build("tagger_cnn", vocabulary=100, classes=2), keras.KerasTensor((1, 7), "int32"))
    assert summary.multiply_adds == 7 * (3 * 64 * 128 + 3 * 3 * 128 * 128 + 128 * 2)
    assert summary.output == (7, 2)


def test_mistakes():
    with pytest.raises(UsageError, match="is odd"):
        built("text_rnn", width=7)
    with pytest.raises(UsageError, match="model.window is 4, an even number"):
        built("tagger_cnn", window=4)
    with pytest.raises(UsageError, match="model.activation must be one of relu, relu_squared"):
        built("tagger_cnn", activation="swoosh")
    with pytest.raises(UsageError, match="model.pool must be one of last, mean, max"):
        built("text_rnn", pool="median")
    with pytest.raises(UsageError, match=r"model.word_dropout must be a number of at least 0 and below 1"):
        built("text_cnn", word_dropout=1.0)
