"""The Transformer against PyTorch's with copied weights; what it sees and what not; decoding step by step."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.data.pairs import pad
from dlkit.decode.decoder import Decoder
from dlkit.errors import DataError, UsageError
from dlkit.layers import step_context
from dlkit.layers.step_context import StepContext
from dlkit.models.transformer import transformer
from dlkit.probe.record import unallocated
from dlkit.summary import summarize

START, END = 1, 2
SOURCES = [[5, 6, 7, 8, END], [9, END], [4, 4, 6, END]]
TARGETS = [[8, 7], [9, 10, 5, 4, 6], []]


SOURCE, TARGET_IN = pad(SOURCES), pad([[START, *target] for target in TARGETS])
VARIANTS = {
    "paper": {},
    "pre": {"norm": "pre", "activation": "gelu"},
    "learned": {"positions": "learned", "max_length": 9, "biases": False, "tied": "none"},
}


def net(seed=0, **options):
    """A small one, with weights large enough for all attentions to choose."""
    keras.utils.set_random_seed(seed)
    small = {"layers": 1, "decoder_layers": 2, "width": 8, "ffn": 12, "heads": 2, "dropout": 0.0}
    model = transformer(11, 12, init="gaussian:0.5", **{**small, **options})
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1:  # biases and norms, which begin as zeros and ones
            weight.assign(weight + random.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


# -------------------------------------------------------------------------------------------------------------- PyTorch


def copied(reference, **options):
    """Our net with PyTorch's weights. Every position of the reference has a word of its own, the embedding of which is
    its input; each of the first 8 words of the read-out is one feature of the output.
    """
    source, target = reference["source"], reference["target"]
    ids = [np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2]) + 4 for x in (source, target)]
    model = transformer(
        4 + ids[0].size, 4 + ids[1].size, positions="none", tied="none", layers=2, width=8, ffn=12, heads=2, **options
    )
    for side, x in {"source": source, "target": target}.items():
        table = np.concatenate([np.zeros((4, 8)), x.reshape(-1, 8)])
        model.get_layer(f"{side}_embedding").set_weights([table / np.sqrt(8)])
    model.words.assign(np.eye(4 + ids[1].size, 8))

    def give(ours, *theirs):
        weights = [reference[name] for name in theirs]
        model.get_layer(ours).set_weights([w.T if w.ndim == 2 else w for w in weights])

    for side, norms in {"encoder": 2, "decoder": 3}.items():
        for i in range(2):
            at, their = f"{side}_block{i + 1}", f"{side}.layers.{i}"
            attention = [f"in_proj_{kind}" for kind in ("weight", "bias")] + [
                f"out_proj.{kind}" for kind in ("weight", "bias")
            ]
            give(f"{at}_self_attention", *(f"{their}.self_attn.{name}" for name in attention))
            if side == "decoder":
                kernel, bias, *out = (reference[f"{their}.multihead_attn.{name}"].T for name in attention)
                parts = [kernel[:, :8], bias[:8], kernel[:, 8:], bias[8:], *out]
                model.get_layer(f"{at}_cross_attention").set_weights(parts)
            for j in (1, 2):
                give(f"{at}_ffn{j}", f"{their}.linear{j}.weight", f"{their}.linear{j}.bias")
            for j in range(1, norms + 1):
                give(f"{at}_norm{j}", f"{their}.norm{j}.weight", f"{their}.norm{j}.bias")
        if options.get("norm") == "pre":
            give(f"{side}_norm", f"{side}.norm.weight", f"{side}.norm.bias")
    source_ids = np.where(np.arange(source.shape[1]) < np.array([[5], [3]]), ids[0], 0)  # LENGTHS of the script
    return model, (source_ids.astype(np.int32), ids[1].astype(np.int32))


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_equals_pytorch_with_copied_weights(norm, precision, tolerance):
    keras.config.set_dtype_policy(precision)
    reference = np.load(Path(__file__).parent / "reference" / "transformer.npz")
    model, inputs = copied(reference, norm=norm)
    np.testing.assert_allclose(model(inputs)[..., :8], reference[norm], rtol=0, atol=tolerance)


# ------------------------------------------------------------------------------------------- what it sees, and what not


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_logits_do_not_look_ahead_and_do_look_back(options):
    model = net(**options)
    logits = model((SOURCE, TARGET_IN)).numpy()
    changed = TARGET_IN.copy()
    changed[:, 3] = 11
    moved = np.abs(model((SOURCE, changed)) - logits).max(axis=(0, 2))
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 1e-6).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_padding_and_batch_mates_change_nothing(options):
    model = net(**options)
    logits = model((SOURCE, TARGET_IN)).numpy()
    wide = model((np.pad(SOURCE, ((0, 0), (0, 4))), np.pad(TARGET_IN, ((0, 0), (0, 3)))))
    np.testing.assert_allclose(wide[:, : TARGET_IN.shape[1]], logits, rtol=1e-9, atol=1e-12)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = model((pad([source]), pad([[START, *target]])))
        np.testing.assert_allclose(alone[0], logits[row, : len(target) + 1], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_row_that_is_all_padding_is_finite():
    logits = net()((np.zeros((1, 5), np.int32), TARGET_IN[:1]))
    assert np.isfinite(logits).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
def test_order_of_the_source_counts_by_its_positions_only(positions):
    model = net(positions=positions)
    permuted = SOURCE.copy()
    permuted[0, :4] = SOURCE[0, [2, 0, 3, 1]]
    moved = np.abs(model((permuted, TARGET_IN)) - model((SOURCE, TARGET_IN))).max(axis=(1, 2))
    assert moved[0] < 1e-10 if positions == "none" else moved[0] > 1e-3
    assert (moved[1:] < 1e-10).all()


@pytest.mark.usefixtures("float64")
def test_all_weights_of_attention_by_name():
    weights = net().attention_weights((SOURCE, TARGET_IN))
    encoder = ["encoder_block1_self_attention"]
    decoder = [f"decoder_block{i}_{kind}_attention" for i in (1, 2) for kind in ("self", "cross")]
    assert list(weights) == encoder + decoder
    for name, values in weights.items():
        t, s = (5, 5) if name in encoder else (6, 5) if "cross" in name else (6, 6)
        assert values.shape == (3, 2, t, s)
        np.testing.assert_allclose(np.sum(values, -1), 1, rtol=1e-10)
        hidden = np.triu(np.ones((6, 6)), 1) if (t, s) == (6, 6) else (SOURCE == 0)[:, None, None]
        assert not (values * hidden).numpy().any()


# ------------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_step_equals_teacher_forcing_of_what_each_beam_has_said(options, precision, tolerance):
    """Beams are moved, doubled, dropped and widened at random; each one's history is written down and forced."""
    keras.config.set_dtype_policy(precision)
    model = net(**options)
    random = np.random.default_rng(3)
    state, memory = model.start(SOURCE, max_len=7)
    history = np.zeros((3, 1, 0), np.int32)
    for position, beams in enumerate([1, 3, 3, 2, 4, 4]):
        parents = random.integers(0, history.shape[1], (3, beams)).astype(np.int32)
        state = model.reorder(state, parents)
        history = np.take_along_axis(history, parents[..., None], axis=1)
        tokens = random.integers(3, 12, (3, beams)).astype(np.int32) if position else np.full((3, 1), START, np.int32)
        history = np.concatenate([history, tokens[..., None]], axis=2)
        step = model.step(tokens, state, memory)
        state = step.state
        assert (step.logits.shape, step.attention.shape) == ((3, beams, 12), (3, beams, 5))
        forced = model((np.repeat(SOURCE, beams, axis=0), history.reshape(3 * beams, -1)))[:, -1]
        np.testing.assert_allclose(step.logits, tf.reshape(forced, (3, beams, 12)), rtol=0, atol=tolerance)
    weights = model.attention_weights((np.repeat(SOURCE, beams, axis=0), history.reshape(3 * beams, -1)))
    last = np.mean(weights["decoder_block2_cross_attention"], axis=1)[:, -1]  # over the heads
    np.testing.assert_allclose(step.attention, last.reshape(3, beams, 5), rtol=0, atol=tolerance)


def test_beams_share_the_source_and_no_key_moves_with_them():
    model = net()
    state, memory = model.start(SOURCE)
    # Keys and values, the mask, and the words of the read-out, which all rows share.
    assert {tuple(leaf.shape) for leaf in tf.nest.flatten(memory)} == {(3, 2, 5, 4), (3, 1, 1, 5), (8, 12)}
    state = model.step(np.full((3, 4), START, np.int32), model.reorder(state, np.zeros((3, 4), np.int32)), memory).state
    moved = model.reorder(state, np.array([[3, 3, 1]] * 3))
    for before, after in zip(tf.nest.flatten(state.caches), tf.nest.flatten(moved.caches), strict=True):
        assert before is after
    np.testing.assert_array_equal(moved.own[0], [[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]])


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
def test_with_room_from_the_start_no_shape_changes_and_the_logits_are_the_same(positions):
    """More room than is needed: what has not been written is not looked at."""
    model = net(positions=positions, tied="none")
    parents = np.array([[[0, 0]] * 3, [[1, 0]] * 3, [[1, 1]] * 3], np.int32)
    tokens = np.random.default_rng(5).integers(3, 12, (3, 3, 2)).astype(np.int32)

    def logits(source, steps):
        state, memory = model.start(source)
        if steps:
            state, memory = model.with_room(state, memory, steps=steps, beams=2)
        found, shapes = [], set()
        for own, said in zip(parents, tokens, strict=True):
            made = model.step(said, model.reorder(state, own), memory)
            state = made.state
            found.append(made.logits)
            shapes.add(tuple(tuple(leaf.shape) for leaf in tf.nest.flatten(state)))
        assert len(shapes) == (1 if steps else 3)
        return tf.stack(found)

    compiled = tf.function(logits, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(SOURCE, 5), logits(SOURCE, 0), rtol=0, atol=1e-5)


def test_a_state_can_be_gone_on_from_twice():
    model = net()
    state, memory = model.start(SOURCE)
    state = model.step(np.full((3, 1), START, np.int32), state, memory).state
    one = model.step(np.full((3, 1), 5, np.int32), state, memory)
    before = model.step(np.full((3, 1), 7, np.int32), one.state, memory).logits
    model.step(np.full((3, 1), 6, np.int32), state, memory)
    np.testing.assert_array_equal(model.step(np.full((3, 1), 7, np.int32), one.state, memory).logits, before)


@pytest.mark.usefixtures("float64")
def test_decodes_in_one_graph_and_scores_what_teacher_forcing_scores():
    model = net()
    decoder = Decoder(model)
    decoded = decoder.beam(SOURCE, max_len=6, beams=3)
    tokens, length = decoded.tokens[:, 0], decoded.lengths[:, 0]
    target_in = np.concatenate([np.full((3, 1), START), tokens[:, :-1]], axis=1)
    log_probabilities = tf.nn.log_softmax(model((SOURCE, target_in)))
    for row in range(3):
        scores = [log_probabilities[row, t, tokens[row, t]] for t in range(length[row])]
        assert decoded.log_probabilities[row, 0] == pytest.approx(float(sum(scores)), abs=1e-5)
        alone = decoder.beam(np.array([SOURCES[row]]), max_len=6, beams=3)
        np.testing.assert_array_equal(alone.tokens[0, 0], tokens[row])


# ------------------------------------------------------------------------------------------------ weights and settings


def counted(*vocabularies, **options):
    with unallocated():
        model = transformer(*vocabularies, **options)
    assert all(weight._value is None for weight in model.weights)  # nothing is allocated
    return model.count_params()


def test_counts_are_arithmetic():
    """Base, with the shared vocabulary of 32k: the count of the paper's architecture, biases included."""
    attention, ffn, norm = 4 * (512 * 512 + 512), 512 * 2048 + 2048 + 2048 * 512 + 512, 2 * 512
    encoder, decoder = 6 * (attention + ffn + 2 * norm), 6 * (2 * attention + ffn + 3 * norm)
    assert 32_000 * 512 + encoder + decoder == 60_522_496
    assert counted(32_000, 32_000, size="base", tied="all") == 60_522_496
    assert counted(32_000, 32_000, size="base", tied="all", norm="pre") == 60_522_496 + 2 * norm
    assert counted(32_000, 32_000, size="base", tied="target") == 60_522_496 + 32_000 * 512
    assert counted(32_000, 32_000, size="base", tied="none") == 60_522_496 + 2 * 32_000 * 512
    assert counted(32_000, 32_000, size="base", tied="all", positions="learned", max_length=100) == (
        60_522_496 + 2 * 100 * 512
    )
    biases = 6 * (4 * 512 + 2048 + 512) + 6 * (8 * 512 + 2048 + 512)
    assert counted(32_000, 32_000, size="base", tied="all", biases=False) == 60_522_496 - biases


def test_sizes_of_the_paper_and_of_multi30k():
    assert counted(37_000, 37_000, size="base", tied="all") == pytest.approx(65e6, rel=0.04)  # table 3
    assert counted(37_000, 37_000, size="big", tied="all") == pytest.approx(213e6, rel=0.01)
    for vocabulary in (8_000, 10_000):
        assert 2.3e6 < counted(vocabulary, vocabulary, size="tiny", tied="all") < 2.7e6


def test_the_summary_counts_products_and_what_training_keeps():
    source, target = 7, 9
    with unallocated():
        model = transformer(30, 29, layers=1, width=16, ffn=32, heads=2)
    inputs = (keras.KerasTensor((1, source), "int32"), keras.KerasTensor((1, target), "int32"))
    summary = summarize(model, inputs)
    rows = {row.name: row for row in summary.rows}
    square, ffn = 16 * 16, 2 * 16 * 32
    encoder = source * (4 * square + ffn) + 2 * source**2 * 16
    own, cross = target * 4 * square + 2 * target**2 * 16, (2 * target + 2 * source) * square + 2 * target * source * 16
    assert summary.multiply_adds == encoder + own + cross + target * ffn + target * 16 * 29
    assert summary.parameters == model.count_params()
    # Its output, the weights of two heads, queries, keys, values and contexts, and the mask.
    kept = target * 16 + 2 * target * source + 2 * (target + source) * 16
    assert rows["decoder_block1_cross_attention"].activation_bytes == 4 * kept + source


def test_settings_override_the_size():
    assert counted(50, 60, size="big", layers=1, width=32, ffn=64, heads=2) == counted(
        50, 60, size="tiny", layers=1, width=32, ffn=64, heads=8
    )
    one = counted(50, 60, layers=2, decoder_layers=1, width=32)
    assert counted(50, 60, layers=3, decoder_layers=1, width=32) - one == 4 * 33 * 32 + 33 * 256 + 257 * 32 + 4 * 32
    assert counted(50, 60, layers=2, width=32) - one == 8 * 33 * 32 + 33 * 256 + 257 * 32 + 6 * 32
    assert transformer(5, 5, size="big", layers=1, width=8, heads=2).settings.dropout == 0.3
    assert transformer(5, 5, size="big", layers=1, width=8, heads=2, dropout=0.0).settings.dropout == 0


def test_tied_matrices_are_one_variable():
    for tied, tables in {"all": 1, "target": 2, "none": 3}.items():
        model = transformer(9, 9, tied=tied, layers=1, width=8, ffn=8, heads=2)
        assert sum(weight.shape == (9, 8) for weight in model.weights) == tables
        assert (model.source_embedding is model.target_embedding) == (tied == "all")
        inputs = (np.array([[4, END]]), np.array([[START]]))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(inputs) ** 2)
        gradient = tf.convert_to_tensor(tape.gradient(loss, model.target_embedding.embeddings.value)).numpy()
        used = {START, 4, END} if tied == "all" else {START}
        assert set(np.flatnonzero(np.abs(gradient).max(1))) == (used if tied == "none" else set(range(9)))


def test_all_weights_exist_before_data_under_names_by_place():
    model = net(norm="pre")
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    model((SOURCE, TARGET_IN))
    assert [weight.path for weight in model.weights] == paths == [weight.path for weight in net(norm="pre").weights]
    assert {path.split("/")[0] for path in paths if path.startswith("decoder_block2")} == {
        f"decoder_block2_{part}"
        for part in ("self_attention", "cross_attention", "ffn1", "ffn2", "norm1", "norm2", "norm3")
    }
    dropouts = [layer.name for layer in model._flatten_layers() if "dropout" in layer.name]
    assert len(set(dropouts)) == len(dropouts) == 2 + 1 * (1 + 3) + 2 * (2 + 4)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_weight_gets_a_gradient(options):
    model = net(**options, dropout=0.1, attention_dropout=0.1, ffn_dropout=0.1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model((SOURCE, TARGET_IN), training=True) ** 3)
    gradients = map(tf.convert_to_tensor, tape.gradient(loss, [weight.value for weight in model.weights]))
    for weight, gradient in zip(model.weights, gradients, strict=True):
        assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "ffn_dropout"])
def test_dropout_acts_in_training_only_and_depends_on_the_step(kind):
    model = net(**{kind: 0.5})

    def logits(training, seed=1):
        context = StepContext(tf.constant([seed, 0]), tf.constant(0))
        with step_context.use(context):
            return model((SOURCE, TARGET_IN), training=training).numpy()

    np.testing.assert_array_equal(logits(training=False), net()((SOURCE, TARGET_IN)))
    np.testing.assert_array_equal(logits(training=True), logits(training=True))
    assert np.abs(logits(training=True) - logits(training=True, seed=2)).max() > 0.01
    assert np.abs(logits(training=True) - logits(training=False)).max() > 0.01


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_computes_in_bfloat16(policy):
    exact = net()((SOURCE, TARGET_IN))
    keras.config.set_dtype_policy(policy)
    model = net()
    logits = model((SOURCE, TARGET_IN))
    state, memory = model.start(SOURCE)
    step = model.step(TARGET_IN[:, :1], state, memory)
    assert {leaf.dtype for leaf in tf.nest.flatten((step.state.caches, memory.keys))} == {tf.bfloat16}
    assert logits.dtype == step.logits.dtype == step.attention.dtype == tf.float32
    assert {weight.dtype for weight in model.weights} == {"float32" if policy == "mixed_bfloat16" else "bfloat16"}
    assert np.abs(logits - exact).mean() < 0.05 * np.abs(exact).mean()
    assert np.abs(step.logits[:, 0] - exact[:, 0]).mean() < 0.05 * np.abs(exact).mean()


def test_shapes_are_known_without_data():
    inputs = (keras.KerasTensor((1, 11), "int32"), keras.KerasTensor((1, 12), "int32"))
    with unallocated():
        model = transformer(30, 29, width=8, heads=2)
        assert model.compute_output_spec(inputs).shape == (1, 12, 29)


def test_mistakes_are_explained():
    with pytest.raises(UsageError, match="joint vocabulary, and there are 30 source and 29 target") as raised:
        transformer(30, 29, tied="all")
    assert "tied = target" in raised.value.hint
    with pytest.raises(UsageError, match="width 128 cannot be divided into 3 heads"):
        transformer(30, 29, heads=3)
    model = net(positions="learned", max_length=5)
    assert (model.max_length, net().max_length) == (5, None)
    with pytest.raises(
        DataError, match=r"^a sequence of 6 tokens is longer than the 5 learned positions of the model$"
    ):
        model((SOURCE, TARGET_IN))
