"""Captioners: the decoder against NumPy, both ways through it, the encoder's weights, and what it costs."""

import keras
import numpy as np
import pytest

from dlkit import models
from dlkit.data.tokenizer import START
from dlkit.errors import UsageError
from dlkit.models.captioner import captioner, encoder_of
from dlkit.models.captioner_attention import captioner_attention
from dlkit.runs import named_variables
from dlkit.summary import summarize, unallocated

IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3))
TARGET_IN = np.array([[START, 5, 6, 7], [START, 9, 0, 0], [START, 4, 4, 0]], np.int32)
WIDTH, WORDS = 6, 11

KINDS = [
    (captioner, {"cell": "lstm", "layers": 2}),
    (captioner, {"cell": "gru", "tied_embeddings": True}),
    (captioner_attention, {"cell": "lstm", "layers": 1}),
    (captioner_attention, {"cell": "rnn", "layers": 2, "score": "linear", "context_to": "readout"}),
    (captioner_attention, {"cell": "gru", "score": "key_value", "map_pool": 2, "encoder": "resnet20"}),
]
every_kind = pytest.mark.parametrize(
    ("build", "options"), KINDS, ids=lambda value: "-".join(map(str, getattr(value, "values", list)()))
)


def net(build, seed=0, **options):
    keras.utils.set_random_seed(seed)
    options = {"encoder": "lenet", "init": "gaussian:0.7", **options}
    return build((16, 16, 3), WORDS, width=WIDTH, **options)


@pytest.fixture(autouse=True)
def float64():
    keras.config.set_dtype_policy("float64")


def step_by_step(model, images, target_in):
    """Logits and attention (batch, time, ...) through `start` and `step`."""
    state, memory = model.start(images)
    logits, attention = [], []
    for position in range(target_in.shape[1]):
        made = model.step(target_in[:, position : position + 1], state, memory)
        logits.append(made.logits[:, 0])
        attention.append(None if made.attention is None else made.attention[:, 0])
        state = made.state
    return np.stack(logits, 1), None if attention[0] is None else np.stack(attention, 1)


# ----------------------------------------------------------------------------------------------- the equations in NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, x, h, c):
    """Gates in the order forget, input, candidate, output."""
    at = "decoder/decoder_lstm1/"
    gates = x @ weights[f"{at}kernel"] + h @ weights[f"{at}recurrent_kernel"] + weights[f"{at}bias"]
    forget, write, candidate, read = np.split(gates, 4)
    c = sigmoid(forget) * c + sigmoid(write) * np.tanh(candidate)
    return sigmoid(read) * np.tanh(c), c


def first_state(weights, features):
    return np.split(np.tanh(features @ weights["first_state/kernel"] + weights["first_state/bias"]), 2)


def words(weights, output):
    return output @ weights["words/kernel"] + weights["words/bias"]


def randomized(model):
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=weight.shape) for weight in model.weights])
    return {weight.path: weight.numpy() for weight in model.weights}


def test_the_captioner_equals_its_equations():
    """The image net's pooled output, through a matrix and tanh, is the LSTM's first state, and nothing else is."""
    model = net(captioner, cell="lstm")
    weights = randomized(model)
    _, pooled = (part.numpy() for part in model.encoder(IMAGES))
    logits = model((IMAGES, TARGET_IN)).numpy()
    for row in range(3):
        h, c = first_state(weights, pooled[row])
        for position, token in enumerate(TARGET_IN[row]):
            h, c = lstm(weights, weights["embedding/embeddings"][token], h, c)
            np.testing.assert_allclose(logits[row, position], words(weights, h), rtol=1e-9)


def test_the_attention_captioner_equals_its_equations():
    """Xu et al. 2015, equations 4 to 6 and 8 to 13: the state before is the query, and the LSTM reads the context."""
    model = net(captioner_attention, cell="lstm", encoder="resnet20")
    weights = randomized(model)
    features, _ = (part.numpy() for part in model.encoder(IMAGES))
    assert features.shape == (3, 4, 4, 64)
    assert model.grid == (4, 4)
    logits = model((IMAGES, TARGET_IN)).numpy()
    _, attention = step_by_step(model, IMAGES, TARGET_IN)
    for row in range(3):
        places = features[row].reshape(16, 64)
        h, c = first_state(weights, places.mean(0))
        for position, token in enumerate(TARGET_IN[row]):
            hidden = np.tanh(h @ weights["attention/query_kernel"] + places @ weights["attention/key_kernel"])
            scores = (hidden @ weights["attention/v"])[:, 0]
            alpha = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            context = alpha @ places
            h, c = lstm(weights, np.concatenate([weights["embedding/embeddings"][token], context]), h, c)
            read = np.concatenate([h, context]) @ weights["readout/kernel"] + weights["readout/bias"]
            np.testing.assert_allclose(logits[row, position], words(weights, np.tanh(read)), rtol=1e-8)
            np.testing.assert_allclose(attention[row, position], alpha, atol=1e-6)  # it is in float32


# --------------------------------------------------------------------------------------------------- the two ways agree


@every_kind
def test_teacher_forcing_equals_step_by_step(build, options):
    model = net(build, **options)
    logits = model((IMAGES, TARGET_IN))
    assert logits.shape == (3, 4, WORDS)
    stepped, attention = step_by_step(model, IMAGES, TARGET_IN)
    np.testing.assert_allclose(stepped, logits, rtol=1e-9, atol=1e-12)
    if attention is not None:
        assert attention.shape == (3, 4, np.prod(model.grid))
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-6)


@every_kind
def test_a_caption_depends_on_its_image_and_on_no_other_row(build, options):
    model = net(build, **options)
    whole = model((IMAGES, TARGET_IN)).numpy()
    alone = model((IMAGES[1:2], TARGET_IN[1:2, :2])).numpy()
    np.testing.assert_allclose(alone[0], whole[1, :2], rtol=1e-9)
    other = model((IMAGES[::-1], TARGET_IN)).numpy()
    assert not np.allclose(other[0], whole[0])
    np.testing.assert_allclose(other[1], whole[1], rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------- the encoder


@pytest.mark.parametrize(
    ("name", "map_shape", "features"),
    [
        ("lenet", (5, 5, 16), 84),
        ("resnet20", (8, 8, 64), 64),
        ("vgg11", (1, 1, 512), 64),
        ("airbench", (3, 3, 256), 256),
    ],
)
def test_any_conv_net_is_an_encoder(name, map_shape, features):
    options = {"dense_units": 64} if name == "vgg11" else {}
    with unallocated():
        encoder = encoder_of(name, (32, 32, 3), options)
        net_itself = models.build(name, input_shape=(32, 32, 3), classes=10, **options)
    seen, pooled = encoder.outputs
    assert seen.shape[1:] == map_shape
    assert pooled.shape[1:] == (features,)
    own = {path: tuple(v.shape) for path, v in named_variables(net_itself).items() if not path.startswith("head/")}
    assert {path: tuple(v.shape) for path, v in named_variables(encoder).items()} == own, "a trained net's weights fit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "seq2seq"}, "model.encoder=seq2seq is no image net"),
        ({"encoder": "mlp"}, "model.encoder=mlp is no conv net"),
        ({"encoder": "resnet21"}, "unknown model: resnet21"),
        ({"encoder_options": {"norms": "none"}}, "unknown key: model.encoder_options.norms"),
        ({"encoder_options": {"classes": 3}}, "unknown key: model.encoder_options.classes"),
        ({"cell": "lsdm"}, "unknown cell: lsdm"),
    ],
)
def test_mistakes_are_usage_errors(options, message):
    with unallocated(), pytest.raises(UsageError, match=message):
        net(captioner, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"context_to": "nowhere"}, "unknown context_to"), ({"map_pool": 9}, "more than the 1x1 places")],
)
def test_mistakes_of_attention_are_usage_errors(options, message):
    with unallocated(), pytest.raises(UsageError, match=message):
        net(captioner_attention, **options)


def test_the_summary_counts_encoder_and_decoder():
    """LeNet without its head, and by hand the rest: state, embeddings, LSTM and words."""
    with unallocated():
        model = captioner((32, 32, 1), 30, encoder="lenet", width=10)
        inputs = (keras.KerasTensor((1, 32, 32, 1), "float32"), keras.KerasTensor((1, 7), "int32"))
        summary = summarize(model, inputs)
    lenet = 6 * 26 + 16 * (150 + 1) + 120 * 401 + 84 * 121
    rest = 85 * 20 + 30 * 10 + 4 * 10 * (10 + 10 + 1) + 30 * 11
    assert summary.parameters == lenet + rest
    convs = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84
    assert summary.multiply_adds == convs + 84 * 20 + 7 * (4 * 10 * 20 + 10 * 30)
