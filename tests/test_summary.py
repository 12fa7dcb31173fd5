"""Counts are checked against published ones and arithmetic written out here, memory against TensorFlow's own graph."""

import math
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from dlkit import models
from dlkit.errors import UsageError
from dlkit.layers.norms import BatchNorm
from dlkit.probe.record import recorded
from dlkit.summary import Count, Row, Summary, TrainingMemory, kind, summarize, unallocated


@cache
def named(name, **options):
    with unallocated():
        return summarize(models.build(name, **options))


def of_layer(layer, *shapes, dtype="float32", **options):
    """The summary of a net that is `layer` alone, on inputs of the given shapes."""
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    merging = isinstance(layer, layers.Add | layers.Concatenate | layers.Dot)
    return summarize(keras.Model(inputs, layer(inputs) if merging else layer(*inputs), name="net"), **options)


def row(summary, name):
    (found,) = [each for each in summary.rows if each.name == name]
    return found


# ----------------------------------------------------------------------------------------------------- published counts

# name -> trainable parameters, and with the moving statistics of batch norm: torchvision's counts and the papers'.
PARAMETERS = {
    "lenet": (61_706, 61_706),
    "alexnet": (62_378_344, 62_378_344),
    "vgg11": (132_863_336, 132_863_336),
    "vgg13": (133_047_848, 133_047_848),
    "vgg16": (138_357_544, 138_357_544),
    "vgg19": (143_667_240, 143_667_240),
    "resnet18": (11_689_512, 11_699_112),
    "resnet34": (21_797_672, 21_814_696),
    "resnet50": (25_557_032, 25_610_152),
    "resnet101": (44_549_160, 44_654_504),
    "resnet152": (60_192_808, 60_344_232),
    "resnet20": (269_722, 269_722 + 2 * 688),  # 7 norms of 16 maps, 6 of 32, 6 of 64
    "plain110": (1_727_962, 1_727_962 + 2 * (37 * 16 + 36 * 32 + 36 * 64)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameters(name):
    summary = named(name)
    assert (summary.trainable, summary.parameters) == PARAMETERS[name]
    assert summary.notes == ()


def test_counts_of_options():
    assert named("alexnet", groups=2).parameters == 60_965_224
    assert named("resnet18", stem="3x3", classes=10).trainable == 11_173_962


@pytest.mark.parametrize(
    ("name", "multiply_adds"), [("alexnet", 1_135_256_096), ("vgg16", 15_470_264_320), ("lenet", 416_520)]
)
def test_exact_multiply_adds(name, multiply_adds):
    assert named(name).multiply_adds == multiply_adds
    assert named(name).flops == 2 * multiply_adds


def test_groups_save_multiply_adds():
    assert named("alexnet", groups=2).multiply_adds == 724_406_816


@pytest.mark.parametrize(
    ("name", "billions"),
    [("resnet18", 1.8), ("resnet34", 3.6), ("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3)],
)
def test_multiply_adds_of_the_resnet_paper(name, billions):
    assert named(name).multiply_adds / 1e9 == pytest.approx(
        billions, rel=0.02
    )  # with the stride in the 3x3: 4.09, 7.80


@pytest.mark.parametrize(("name", "field"), [("alexnet", 195), ("resnet18", 435), ("resnet50", 483)])
def test_published_receptive_fields(name, field):
    summary = named(name)
    assert summary.sees == (field, field)
    assert summary.rows[-1].sees == "all"


def test_the_first_conv_of_alexnet_as_a_dense_layer():
    conv = row(named("alexnet"), "conv1")
    assert (conv.kind, conv.output, conv.sees) == ("conv 11/4", (55, 55, 96), (11, 11))
    assert str(conv.trainable) == "11*11*3*96 + 96"
    assert (conv.parameters, int(conv.dense)) == (34_848 + 96, 43_713_331_200)


def test_a_dense_layer_on_an_image_against_filters():
    assert int(row(named("mlp", input_shape=(128, 128, 3), hidden=(64,)), "dense1").multiply_adds) == 3_145_728
    assert of_layer(layers.Conv2D(64, 3, use_bias=False), (128, 128, 3)).parameters == 1_728


@pytest.mark.parametrize(
    ("name", "options", "stem"),
    [
        ("resnet18", {}, "7x7/2"),
        ("resnet18", {"stem": "3x3"}, "3x3/1"),
        ("alexnet", {}, "11x11/4"),
        ("airbench", {}, "2x2/1"),
        ("mlp", {}, ""),
    ],
)
def test_the_stem_shows(name, options, stem):
    assert named(name, **options).stem == stem


def test_vgg_has_its_memory_early_and_its_parameters_in_the_first_dense_layer():
    summary = named("vgg16")
    assert summary.most("parameters", 1) == [("dense1", pytest.approx(102_764_544 / 138_357_544))]
    assert {name.partition("_")[0] for name, _ in summary.most("activation_bytes", 2)} == {"stage1"}


# ---------------------------------------------------------------------------------------------------------- layer kinds

# layer, input shapes; type, output, parameters, multiply-adds
KINDS = [
    (layers.Dense(7), [(5,)], "dense", (7,), 5 * 7 + 7, 5 * 7),
    (layers.Dense(7, activation="relu"), [(2, 3, 5)], "dense + relu", (2, 3, 7), 5 * 7 + 7, 2 * 3 * 5 * 7),
    (layers.Conv1D(4, 3, padding="causal"), [(9, 2)], "conv 3/1", (9, 4), 3 * 2 * 4 + 4, 9 * 3 * 2 * 4),
    (layers.Conv2D(4, 3, strides=2), [(9, 9, 2)], "conv 3/2", (4, 4, 4), 3 * 3 * 2 * 4 + 4, 4 * 4 * 3 * 3 * 2 * 4),
    (layers.Conv2D(4, (3, 1)), [(9, 9, 2)], "conv 3x1/1", (7, 9, 4), 3 * 2 * 4 + 4, 7 * 9 * 3 * 2 * 4),
    (layers.Conv2D(6, 3, dilation_rate=2), [(9, 9, 2)], "conv 3/1, dilation 2", (5, 5, 6), 114, 5 * 5 * 9 * 2 * 6),
    (layers.Conv2D(6, 3, groups=3), [(9, 9, 12)], "conv 3/1, 3 groups", (7, 7, 6), 9 * 4 * 6 + 6, 7 * 7 * 9 * 4 * 6),
    (layers.Conv3D(2, 2), [(3, 3, 3, 1)], "conv 2/1", (2, 2, 2, 2), 8 * 2 + 2, 8 * 8 * 2),
    (layers.DepthwiseConv2D(3), [(5, 5, 4)], "depthwise conv 3/1", (3, 3, 4), 9 * 4 + 4, 9 * 9 * 4),
    (layers.SeparableConv2D(8, 3), [(5, 5, 4)], "separable conv 3/1", (3, 3, 8), 36 + 32 + 8, 9 * (9 * 4 + 4 * 8)),
    (layers.Conv2DTranspose(2, 4, strides=2, padding="same"), [(5, 5, 3)], "conv transpose 4/2", (10, 10, 2), 98,
     5 * 5 * 16 * 3 * 2),
    (layers.MaxPooling2D(3, 2), [(9, 9, 2)], "max pool 3/2", (4, 4, 2), 0, 0),
    (layers.AveragePooling1D(2), [(8, 2)], "avg pool 2/2", (4, 2), 0, 0),
    (layers.GlobalAveragePooling2D(), [(4, 4, 3)], "global avg pool", (3,), 0, 0),
    (layers.Flatten(), [(4, 4, 3)], "flatten", (48,), 0, 0),
    (layers.ReLU(), [(4,)], "relu", (4,), 0, 0),
    (layers.Activation("tanh"), [(4,)], "tanh", (4,), 0, 0),
    (layers.PReLU(), [(2, 3)], "prelu", (2, 3), 6, 0),
    (layers.Dropout(0.5), [(4,)], "dropout 0.5", (4,), 0, 0),
    (layers.Add(), [(4,), (4,)], "add", (4,), 0, 0),
    (layers.Concatenate(), [(4,), (3,)], "concatenate", (7,), 0, 0),
    (layers.BatchNormalization(), [(3, 3, 5)], "batch norm", (3, 3, 5), 4 * 5, 0),
    (BatchNorm(), [(3, 3, 5)], "batch norm", (3, 3, 5), 4 * 5, 0),
    (layers.LayerNormalization(axis=(1, 2)), [(3, 5)], "layer norm", (3, 5), 2 * 15, 0),
    (layers.GroupNormalization(1), [(3, 3, 4)], "group norm", (3, 3, 4), 2 * 4, 0),
    (layers.SimpleRNN(4), [(10, 3)], "simple rnn", (4,), 4 * (3 + 4) + 4, 10 * 4 * (3 + 4)),
    (layers.GRU(4), [(10, 3)], "gru", (4,), 3 * 4 * (3 + 4) + 2 * 12, 10 * 3 * 4 * (3 + 4)),
    (layers.LSTM(4, return_sequences=True), [(10, 3)], "lstm", (10, 4), 16 * 7 + 16, 10 * 4 * 4 * (3 + 4)),
    (layers.Bidirectional(layers.LSTM(4)), [(10, 3)], "bidirectional", (8,), 2 * 128, 2 * 10 * 4 * 4 * 7),
    (layers.TimeDistributed(layers.Dense(4)), [(10, 3)], "time distributed", (10, 4), 16, 10 * 3 * 4),
    (layers.EinsumDense("abc,cde->abde", (10, 2, 4)), [(10, 3)], "einsum dense", (10, 2, 4), 24, 10 * 3 * 2 * 4),
    (layers.MultiHeadAttention(2, 4, value_dim=5), [(6, 8), (7, 8)], "multi head attention", (6, 8),
     2 * (64 + 8) + (80 + 10) + (80 + 8), (6 + 7) * 64 + (6 + 7) * 80 + 2 * 6 * 7 * 4 + 2 * 6 * 7 * 5),
]  # fmt: skip


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case[2])
def test_every_kind_of_layer(case):
    layer, shapes, words, output, parameters, multiply_adds = case
    summary = of_layer(layer, *shapes)
    assert kind(layer) == words
    assert summary.output == output
    assert summary.parameters == parameters == layer.count_params()
    assert summary.multiply_adds == multiply_adds
    assert summary.notes == ()
    check_arithmetic(summary)


def check_arithmetic(summary):
    for each in summary.rows:
        for count in (each.trainable, each.statistics, each.multiply_adds, each.dense or Count()):
            assert eval(str(count)) == int(count)


def test_embeddings_look_up():
    summary = of_layer(layers.Embedding(20, 8), (10,), dtype="int32")
    assert (summary.output, summary.parameters, summary.multiply_adds) == ((10, 8), 160, 0)


def test_an_embedding_read_backwards_multiplies():
    layer = layers.ReversibleEmbedding(20, 8)
    ids = keras.Input((10,), dtype="int32")
    summary = summarize(keras.Model(ids, layer(layer(ids), reverse=True)))
    assert (summary.output, summary.parameters, summary.multiply_adds) == ((10, 20), 160, 10 * 8 * 20)


def test_statistics_stand_apart():
    (norm,) = of_layer(BatchNorm(), (3, 3, 5)).rows[1:]
    assert (int(norm.trainable), int(norm.statistics)) == (10, 10)
    assert (str(norm.trainable), str(norm.statistics)) == ("2*5", "2*5")


def test_what_is_frozen_is_not_trainable():
    summary = of_layer(layers.Dense(7, trainable=False), (5,))
    assert (summary.trainable, summary.statistics) == (0, 42)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_arithmetic_evaluates_to_the_counts(name):
    check_arithmetic(named(name))
    check_arithmetic(named(name).grouped(1))


# ----------------------------------------------------------------------------------------------------------- whole nets


def test_a_shared_layer_has_its_weights_once_and_its_cost_twice():
    shared = layers.Dense(5, name="shared")
    x = keras.Input((5,))
    summary = summarize(keras.Model(x, shared(shared(x))))
    assert [(each.parameters, int(each.multiply_adds)) for each in summary.rows[1:]] == [(30, 25), (0, 25)]


def test_a_nested_model_shows_its_layers():
    inner = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(3, 3, name="conv1")], name="encoder")
    x = keras.Input((8, 8, 2))
    summary = summarize(keras.Model(x, layers.GlobalAveragePooling2D(name="pool")(inner(x))))
    assert [each.name for each in summary.rows][1:] == ["encoder/conv1", "pool"]
    assert row(summary, "encoder/conv1").sees == (3, 3)
    assert summary.parameters == 3 * 3 * 2 * 3 + 3


class Block(layers.Layer):
    """Layers inside of a layer, and a weight of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = layers.Dense(4, name="first")
        self.second = layers.Dense(3, name="second")

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(3,))

    def call(self, inputs):
        return self.scale * self.second(tf.nn.relu(self.first(inputs)))


def test_layers_inside_a_layer_are_found_and_nothing_is_lost():
    summary = of_layer(Block(name="block"), (5,))
    assert row(summary, "block/second").output == summary.output == (3,)
    assert summary.multiply_adds == 5 * 4 + 4 * 3
    assert summary.parameters == (5 * 4 + 4) + (4 * 3 + 3) + 3
    assert [note.partition(":")[0] for note in summary.notes] == ["block"]


class Bilinear(layers.Layer):
    """x W x: a kind of layer that nobody knows."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], input_shape[-1]))

    def call(self, inputs):
        return tf.einsum("ni,ij,nj->n", inputs, self.kernel, inputs)[:, tf.newaxis]


class CountedBilinear(Bilinear):
    """The same, with the method that is asked."""

    def multiply_adds(self, input_shape, output_shape):
        assert (input_shape, output_shape) == ((5,), (1,))
        return [(5, 5), (5,)]


class Each(layers.Layer):
    """Applies a net to each of several things."""

    def __init__(self, net):
        super().__init__(name="each")
        self.net_of_each = net

    def call(self, inputs):
        return tf.stack([self.net_of_each(part) for part in tf.unstack(inputs, axis=1)], axis=1)


def test_a_net_that_is_applied_to_each_of_several_things_counts_so_often():
    """Of each of 7 things the net keeps its 5 inputs and 3 hidden units, in 4 bytes each, and its 2 outputs not."""
    inputs = keras.Input((5,))
    net = keras.Model(inputs, layers.Dense(2, name="last")(layers.Dense(3, activation="relu", name="first")(inputs)))
    summary = of_layer(Each(net), (7, 5))
    assert (summary.multiply_adds, summary.parameters) == (7 * (5 * 3 + 3 * 2), 5 * 3 + 3 + 3 * 2 + 2)
    assert [each.name for each in summary.rows[1:]] == ["each"]
    assert summary.activation_bytes == 4 * 7 * (5 + 3)
    assert summary.notes == ()
    # What reads the outputs keeps these: of a ReLU, which keeps them itself, once.
    squashed = keras.Model(inputs, layers.Dense(2, activation="relu", name="last")(inputs))
    given = keras.Input((7, 5))
    whole = keras.Model(given, layers.Dense(4, name="next")(Each(squashed)(given)))
    assert summarize(whole).activation_bytes == 4 * 7 * (5 + 2)


def test_an_unknown_layer_is_asked_else_estimated_with_a_note():
    asked = of_layer(CountedBilinear(), (5,))
    assert (asked.multiply_adds, asked.notes) == (30, ())
    estimated = of_layer(Bilinear(name="bilinear"), (5,))
    assert (estimated.multiply_adds, len(estimated.notes)) == (25, 1)
    assert estimated.notes[0].startswith("bilinear: ")


def test_products_of_activations_that_are_not_counted_are_said():
    summary = of_layer(layers.Dot(axes=1, name="dot"), (5,), (5,))
    assert summary.notes == ("dot: the products of its inputs are not counted",)


def test_no_weight_is_allocated():
    with unallocated():
        summary = of_layer(layers.Dense(1_000_000, use_bias=False), (1_000_000,))
    assert summary.training_memory(batch_size=1, optimizer="sgd").weights == 4 * 10**12  # 4 terabytes
    of_layer(Block(), (5,))  # where Keras alone would now allocate them


def test_a_size_that_is_not_fixed_is_a_usage_error():
    with pytest.raises(UsageError, match="not fixed"):
        of_layer(layers.Conv2D(4, 3), (None, None, 3))


# ----------------------------------------------------------------------------------------------- models without a graph


class Pair(keras.Model):
    """Two sequences in, as in translation."""

    def __init__(self):
        super().__init__(name="pair")
        self.embedding = layers.Embedding(20, 8, name="embedding")
        self.encoder = layers.GRU(4, name="encoder_gru")
        self.head = layers.Dense(20, name="head")

    def call(self, inputs, training=False):
        source, target = inputs
        state = self.encoder(self.embedding(tf.reverse(source, [1])))
        return self.head(self.embedding(target) + tf.tile(state, [1, 2])[:, tf.newaxis])


IDS = (keras.KerasTensor((None, 6), "int32"), keras.KerasTensor((None, 7), "int32"))


def test_a_model_without_a_graph_is_traced():
    with unallocated():
        summary = summarize(Pair(), IDS)
    assert [(each.name, each.output) for each in summary.rows] == [
        ("embedding", (6, 8)), ("encoder_gru", (4,)), ("embedding", (7, 8)), ("head", (7, 20)),
    ]  # fmt: skip
    gru, head = 3 * 4 * (8 + 4), 8 * 20
    assert summary.parameters == 20 * 8 + (gru + 2 * 12) + (head + 20)
    assert summary.multiply_adds == 6 * gru + 7 * head
    assert summary.inputs == ((6,), (7,))
    assert row(summary, "encoder_gru").sees == "all"
    assert any("receptive fields" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("name", "options", "sees", "last_conv"),
    [
        ("tagger_cnn", {"classes": 3}, 1 + 2 * (1 + 2 + 4 + 8), "time conv 3/1, dilation 8"),
        ("tagger_cnn", {"classes": 3, "dilated": False, "window": 5, "layers": 2}, 1 + 4 + 4, "time conv 5/1"),
        ("tcn_lm", {}, 1 + 2 * 2 * (1 + 2 + 4 + 8 + 16), "causal conv 3/1, dilation 16"),
        ("tcn_lm", {"tied": True, "layers": 2, "kernel": 2}, 1 + 2 * (1 + 2), "causal conv 2/1, dilation 2"),
    ],
)
def test_a_model_can_say_itself_what_its_output_sees(name, options, sees, last_conv):
    with unallocated():
        summary = summarize(models.build(name, vocabulary=9, **options), keras.KerasTensor((1, 40), "int32"))
    assert summary.sees == (sees,)
    assert [each.sees for each in summary.rows] == [*[None] * (len(summary.rows) - 1), (sees,)]
    assert [each.kind for each in summary.rows if " conv " in each.kind][-1] == last_conv
    assert [note for note in summary.notes if f"an output sees {sees} positions of its input" in note]


def test_a_model_without_a_graph_needs_its_inputs():
    with pytest.raises(UsageError, match="no graph"):
        summarize(Pair())


def test_tracing_leaves_the_layers_as_they_were():
    model = Pair()
    model((np.zeros((1, 6), int), np.zeros((1, 7), int)))
    before = [weight.numpy() for weight in model.weights]
    assert [call.name for call in recorded(model, IDS)] == ["embedding", "encoder_gru", "embedding", "head"]
    with pytest.raises(TypeError, match=r"Pair\.call"):
        recorded(model, keras.KerasTensor((None, 6), "int32"))
    assert not any("call" in vars(layer) for layer in model.layers)
    np.testing.assert_array_equal(before[0], model.weights[0].numpy())


def test_tracing_builds_what_is_not_built_with_real_values():
    model = Pair()
    assert len(summarize(model, IDS).rows) == 4
    assert model((np.zeros((1, 6), int), np.zeros((1, 7), int))).shape == (1, 7, 20)
    assert np.std(model.head.kernel) > 0


def test_seq2seq():
    with unallocated():
        model = models.build("seq2seq", source_vocabulary=30, target_vocabulary=40, width=16)
        summary = summarize(model, IDS)
    lstm = 4 * 16 * (16 + 16)
    assert summary.multiply_adds == 2 * (6 * lstm + 7 * lstm) + 7 * 16 * 40  # two layers each
    assert summary.parameters == 30 * 16 + 40 * 16 + 4 * (lstm + 64) + 16 * 40 + 40
    assert summary.output == (7, 40)


# ---------------------------------------------------------------------------------------------------- receptive fields

# layers on 48 positions -> how many of them one position of the result depends on
FIELDS = [
    ([layers.Conv1D(1, 3), layers.Conv1D(1, 3)], 5),
    ([layers.Conv1D(1, 5, strides=2), layers.Conv1D(1, 3)], 9),
    ([layers.Conv1D(1, 3, dilation_rate=4), layers.AveragePooling1D(2), layers.Conv1D(1, 2)], 12),
    ([layers.AveragePooling1D(2), layers.UpSampling1D(2), layers.Conv1D(1, 3)], 4),
    ([layers.AveragePooling1D(4), layers.Conv1DTranspose(1, 4, strides=2), layers.Conv1D(1, 3, strides=2)], 12),
    ([layers.ZeroPadding1D(3), layers.Conv1D(1, 3), layers.Cropping1D(4), layers.Conv1D(1, 3)], 5),
]


@pytest.mark.parametrize(("stack", "size"), FIELDS)
def test_the_receptive_field_is_what_a_position_depends_on(stack, size):
    model = keras.Sequential([keras.Input((48, 1)), *stack])
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    x = tf.ones((1, 48, 1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = tf.reshape(model(x), [-1])
    depends = tape.jacobian(y, x, experimental_use_pfor=False).numpy()[:, 0, :, 0] != 0  # (results, positions)
    assert max(np.ptp(np.flatnonzero(positions)) + 1 for positions in depends) == size
    assert summarize(model).sees == (size,)


def test_the_widest_branch_counts():
    x = keras.Input((32, 32, 1))
    y = layers.Add()([layers.Conv2D(1, 3, padding="same")(x), layers.Conv2D(1, (1, 5), padding="same")(x)])
    assert summarize(keras.Model(x, y)).rows[-1].sees == (3, 5)


# -------------------------------------------------------------------------------------------------------------- memory


def read_by_backward(model):
    """Bytes of the tensors that TensorFlow's gradient reads from the forward pass, for one example.

    Tensors that are views of others count once; weights, masks, and statistics without a batch do not count.
    """
    read = {}

    def viewed(tensor):
        return viewed(tensor.op.inputs[0]) if tensor.op.type in {"Reshape", "Identity"} else tensor

    def run(x):
        y = model(x, training=True)
        graph = tf.compat.v1.get_default_graph()
        forward = set(graph.get_operations())
        tf.gradients(y, [weight.value for weight in model.trainable_weights])
        for operation in set(graph.get_operations()) - forward:
            for tensor in map(viewed, operation.inputs):
                counts = tensor.op in forward and tensor.op.type not in {"ReadVariableOp", "Const"}
                if counts and tensor.dtype == tf.float32 and tensor.shape.rank not in {None, 0, 1}:
                    read[tensor.name] = 4 * math.prod(tensor.shape[1:])
        return y

    tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec((2, *model.inputs[0].shape[1:])))
    return sum(read.values())


def plain():
    x = y = keras.Input((12, 12, 3))
    y = layers.MaxPooling2D()(layers.ReLU()(layers.Conv2D(4, 3)(y)))
    y = layers.Activation("tanh")(layers.Dense(7)(layers.Flatten()(y)))
    return keras.Model(x, layers.Dense(5)(layers.Dense(6, activation="sigmoid")(y)))


def residual():
    x = y = layers.Input((12, 12, 3))
    y = layers.Activation("relu")(BatchNorm()(layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(1)(y))))
    shortcut = BatchNorm()(layers.Conv2D(4, 1, strides=2)(x))
    y = layers.ReLU()(layers.Add()([BatchNorm()(layers.Conv2D(4, 3, padding="same")(y)), shortcut]))
    return keras.Model(x, layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2)(y))))


def branches():
    x = layers.Input((12, 12, 3))
    halves = [layers.Conv2D(4, 3, activation="relu")(x[..., :2]), layers.Conv2D(4, 3)(x[..., 2:])]
    y = layers.Concatenate()([halves[0], layers.Multiply()(halves)])
    return keras.Model(x, layers.Dense(5)(layers.Reshape((-1,))(layers.Conv2D(2, 10)(y))))


def subsampled():
    return models.build("resnet20", input_shape=(8, 8, 3))


@pytest.mark.parametrize("build", [plain, residual, branches, subsampled])
def test_activation_memory_is_what_the_backward_pass_reads(build):
    assert summarize(build()).activation_bytes == read_by_backward(build())


def test_activation_memory_of_lenet():
    values = 32 * 32 + 2 * 28 * 28 * 6 - 28 * 28 * 6 + 14 * 14 * 6 + 10 * 10 * 16 + 5 * 5 * 16 + 120 + 84
    assert named("lenet").activation_bytes == 4 * values
    with unallocated():
        assert summarize(models.build("lenet"), precision="bfloat16").activation_bytes == 2 * values


def test_recurrent_layers_keep_gates_and_states_of_every_step():
    assert of_layer(layers.GRU(4), (10, 3)).activation_bytes == 4 * (10 * 3 + 10 * (3 * 4 + 4))


def test_training_memory():
    summary = of_layer(layers.Dense(10, use_bias=False), (5,))
    memory = summary.training_memory(batch_size=8, optimizer="adam")
    assert memory == TrainingMemory(weights=200, gradients=200, optimizer=400, activations=8 * 20)
    assert memory.total == 200 + 200 + 400 + 160
    assert summary.training_memory(batch_size=1, optimizer="sgd").optimizer == 200
    double = of_layer(layers.Dense(10, use_bias=False), (5,), precision="float64")
    assert double.training_memory(batch_size=1, optimizer="adamw") == TrainingMemory(400, 400, 800, 40)
    half = of_layer(layers.Dense(10, use_bias=False), (5,), precision="bfloat16")
    assert half.training_memory(batch_size=1, optimizer="adamw") == TrainingMemory(200, 200, 400, 10)


def test_statistics_have_no_gradient_and_no_optimizer_state():
    memory = of_layer(BatchNorm(), (3, 3, 5)).training_memory(batch_size=1, optimizer="adam")
    assert (memory.weights, memory.gradients, memory.optimizer) == (80, 40, 80)


# ------------------------------------------------------------------------------------------------------------- grouping


@pytest.mark.parametrize("name", ["lenet", "resnet20", "resnet50"])
@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_grouping_keeps_the_totals(name, depth):
    whole, grouped = named(name), named(name).grouped(depth)
    for total in ("trainable", "statistics", "multiply_adds", "activation_bytes", "output"):
        assert getattr(grouped, total) == getattr(whole, total)


def test_groups_are_places():
    grouped = named("resnet18").grouped(1)
    names = [each.name for each in grouped.rows]
    assert names == ["image", "stem", "stage1", "stage2", "stage3", "stage4", "pool", "head"]
    assert [(each.kind, each.output, each.sees) for each in grouped.rows[1:3]] == [
        ("conv 7/2", (56, 56, 64), (11, 11)), ("14 layers", (56, 56, 64), (43, 43)),
    ]  # fmt: skip
    assert row(named("resnet18").grouped(2), "stage2_block1").trainable
    assert row(named("resnet18").grouped(2), "stage2_block1").parameters == (
        64 * 128 * 9 + 128 * 128 * 9 + 64 * 128 + 3 * 4 * 128
    )


names = st.text("ab_/", min_size=1, max_size=8)
counts = st.builds(Count, st.lists(st.lists(st.integers(1, 9), min_size=1).map(tuple), max_size=3).map(tuple))
rows = st.builds(Row, name=names, kind=st.just("x"), output=st.just((1,)), trainable=counts, multiply_adds=counts)


@given(st.lists(rows, min_size=1, max_size=9), st.integers(1, 4))
def test_grouping_any_names_keeps_the_totals(given_rows, depth):
    whole = Summary("net", ((1,),), tuple(given_rows))
    grouped = whole.grouped(depth)
    assert (grouped.trainable, grouped.multiply_adds) == (whole.trainable, whole.multiply_adds)
    assert len(grouped.rows) <= len(whole.rows)
    check_arithmetic(grouped)
