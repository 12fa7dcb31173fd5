"""What `dlkit summarize` shows of each net, against the figures of the lecture and the tables of the papers."""

from functools import cache

import keras
import pytest
from deferred import deferred

from dlkit import models
from dlkit.layers.hidden import Hidden
from dlkit.summary import summarize


@cache
def rows(name, *size, **options):
    """Layer name -> its row in the summary, in order."""
    return {row.name: row for row in summarize(deferred(models.builder(name), *size, **options)).rows}


def outputs(name, *size, **options):
    return {layer: row.output for layer, row in rows(name, *size, **options).items()}


def test_lenet_layer_by_layer():
    """The lecture's figure: C1, S2, C3, S4, flattened, and dense layers."""
    assert [(layer, row.kind, row.output) for layer, row in rows("lenet").items()] == [
        ("image", "input", (32, 32, 1)),
        ("conv1", "conv 5/1", (28, 28, 6)),
        ("relu1", "relu", (28, 28, 6)),
        ("pool1", "max pool 2/2", (14, 14, 6)),
        ("conv2", "conv 5/1", (10, 10, 16)),
        ("relu2", "relu", (10, 10, 16)),
        ("pool2", "max pool 2/2", (5, 5, 16)),
        ("flatten", "flatten", (400,)),
        ("dense1", "dense", (120,)),
        ("dense_relu1", "relu", (120,)),
        ("dense2", "dense", (84,)),
        ("dense_relu2", "relu", (84,)),
        ("head", "dense", (10,)),
    ]


ALEXNET_BEHIND = [
    ("conv3", "conv 3/1", (13, 13, 384)),
    ("relu3", "relu", (13, 13, 384)),
    ("conv4", "conv 3/1", (13, 13, 384)),
    ("relu4", "relu", (13, 13, 384)),
    ("conv5", "conv 3/1", (13, 13, 256)),
    ("relu5", "relu", (13, 13, 256)),
    ("pool5", "max pool 3/2", (6, 6, 256)),
    ("flatten", "flatten", (9216,)),
    ("dense1", "dense", (4096,)),
    ("dense_relu1", "relu", (4096,)),
    ("dense_dropout1", "dropout 0.5", (4096,)),
    ("dense2", "dense", (4096,)),
    ("dense_relu2", "relu", (4096,)),
    ("dense_dropout2", "dropout 0.5", (4096,)),
    ("head", "dense", (1000,)),
]


@pytest.mark.parametrize(
    ("order", "first", "second"),
    [
        (
            "after_pool",
            [("pool1", "max pool 3/2", (27, 27, 96)), ("lrn1", "local response norm", (27, 27, 96))],
            [("pool2", "max pool 3/2", (13, 13, 256)), ("lrn2", "local response norm", (13, 13, 256))],
        ),
        (
            "before_pool",
            [("lrn1", "local response norm", (55, 55, 96)), ("pool1", "max pool 3/2", (27, 27, 96))],
            [("lrn2", "local response norm", (27, 27, 256)), ("pool2", "max pool 3/2", (13, 13, 256))],
        ),
    ],
)
def test_alexnet_layer_by_layer(order, first, second):
    """The lecture pools and then normalizes, which is the default; the paper does it the other way round."""
    options = {} if order == "after_pool" else {"lrn": order}
    assert [
        (layer, row.kind, row.output) for layer, row in rows("alexnet", **options).items() if "pad" not in layer
    ] == [
        ("image", "input", (224, 224, 3)),
        ("conv1", "conv 11/4", (55, 55, 96)),
        ("relu1", "relu", (55, 55, 96)),
        *first,
        ("conv2", "conv 5/1", (27, 27, 256)),
        ("relu2", "relu", (27, 27, 256)),
        *second,
        *ALEXNET_BEHIND,
    ]


@pytest.mark.parametrize(
    ("name", "repeats"),
    [("vgg11", (1, 1, 2, 2, 2)), ("vgg13", (2, 2, 2, 2, 2)), ("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))],
)
def test_vgg_block_by_block(name, repeats):
    """All convolutions are 3x3 at stride 1 and keep the size; a pool halves it after each block."""
    found = rows(name)
    assert len([layer for layer in found if "conv" in layer]) == sum(repeats)
    for stage, (count, size, filters) in enumerate(
        zip(repeats, (224, 112, 56, 28, 14), (64, 128, 256, 512, 512), strict=True), 1
    ):
        for number in range(1, count + 1):
            conv = found[f"stage{stage}_conv{number}"]
            assert (conv.kind, conv.output) == ("conv 3/1", (size, size, filters))
        pool = found[f"stage{stage}_pool"]
        assert (pool.kind, pool.output) == ("max pool 2/2", (size // 2, size // 2, filters))
    assert [found[layer].output for layer in ("flatten", "dense1", "dense2", "head")] == [
        *[(25_088,), (4096,), (4096,), (1000,)]
    ]


BASIC, BOTTLENECK = 2, 3  # convolutions in a block; the last one of a bottleneck widens to four times the filters


@pytest.mark.parametrize(
    ("name", "convs", "repeats"),
    [
        ("resnet18", BASIC, (2, 2, 2, 2)),
        ("plain18", BASIC, (2, 2, 2, 2)),
        ("resnet34", BASIC, (3, 4, 6, 3)),
        ("plain34", BASIC, (3, 4, 6, 3)),
        ("resnet50", BOTTLENECK, (3, 4, 6, 3)),
        ("resnet152", BOTTLENECK, (3, 8, 36, 3)),
    ],
)
def test_residual_and_plain_nets_stage_by_stage(name, convs, repeats):
    """Table 1: 7x7 at stride 2 and a pool at stride 2, then stages that halve the size and double the filters."""
    found = outputs(name)
    assert (rows(name)["stem_conv"].kind, found["stem_conv"]) == ("conv 7/2", (112, 112, 64))
    assert (rows(name)["stem_pool"].kind, found["stem_pool"]) == ("max pool 3/2", (56, 56, 64))
    widest = 512 if convs == BASIC else 2048
    shapes = [(56, 56, widest // 8), (28, 28, widest // 4), (14, 14, widest // 2), (7, 7, widest)]
    check_stages(name, found, convs, repeats, shapes)
    assert (found["pool"], found["head"]) == ((widest,), (1000,))


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
@pytest.mark.parametrize("family", ["resnet", "plain"])
def test_small_residual_and_plain_nets_stage_by_stage(family, depth):
    """Section 4.2: a 3x3 stem and 2n layers at each of three sizes."""
    found = outputs(f"{family}{depth}")
    assert found["stem_conv"] == (32, 32, 16)
    shapes = [(32, 32, 16), (16, 16, 32), (8, 8, 64)]
    check_stages(family, found, BASIC, [(depth - 2) // 6] * 3, shapes)
    assert (found["pool"], found["head"]) == ((64,), (10,))


def check_stages(name, found, convs, repeats, shapes):
    """Every block of a stage ends in the stage's shape, and residual ones by adding their input."""
    ends = {layer: shape for layer, shape in found.items() if layer.endswith(f"_relu{convs}")}
    assert ends == {
        f"stage{stage}_block{block}_relu{convs}": shape
        for stage, (count, shape) in enumerate(zip(repeats, shapes, strict=True), 1)
        for block in range(1, count + 1)
    }
    blocks = [layer.removesuffix(f"_relu{convs}") for layer in ends]
    assert [block for block in blocks if f"{block}_add" in found] == (blocks if name.startswith("resnet") else [])


# What one position sees: 1 and, for each layer before it, twice its radius (k - 1)/2 times the strides before that one.
FIELDS = {
    "lenet": {"conv1": 5, "pool1": 6, "conv2": 14, "pool2": 16},
    "alexnet": {
        **{"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67},
        **{"conv3": 99, "conv4": 131, "conv5": 163, "pool5": 195},
    },
    "vgg16": {
        **{"stage1_conv1": 3, "stage1_conv2": 5, "stage1_pool": 6},
        **{"stage2_conv1": 10, "stage2_conv2": 14, "stage2_pool": 16},
        **{"stage3_conv1": 24, "stage3_conv2": 32, "stage3_conv3": 40, "stage3_pool": 44},
        **{"stage4_conv1": 60, "stage4_conv2": 76, "stage4_conv3": 92, "stage4_pool": 100},
        **{"stage5_conv1": 132, "stage5_conv2": 164, "stage5_conv3": 196, "stage5_pool": 212},
    },
    # As published by Araujo, Norris and Sim 2019, who have 195 and 212 for the two above.
    "resnet152": {"stage4_block3_relu3": 1507},
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_layer_by_layer(name):
    assert {layer: rows(name)[layer].sees for layer in FIELDS[name]} == {
        layer: (size, size) for layer, size in FIELDS[name].items()
    }


@pytest.mark.parametrize("size", [1, 3, 5, 7, 11])
def test_the_radius_of_a_convolution(size):
    """(k - 1)/2 to each side: what one position sees, what cut edges lose, and three layers see three times as far."""
    radius = (size - 1) // 2
    layers, x = Hidden("zeros", "none", "relu"), keras.Input((64, 64, 1))
    cut, kept = layers.conv(x, 4, size, padding=0), layers.conv(x, 4, size, number=1)
    deep = layers.conv(layers.conv(kept, 4, size, number=2), 4, size, number=3)
    for output, side, reach in [
        (cut, 64 - 2 * radius, radius),
        (kept, 64, radius),
        (deep, 64, 3 * radius),
    ]:
        last = summarize(keras.Model(x, output)).rows[-1]
        assert (last.output, last.sees) == ((side, side, 4), (1 + 2 * reach,) * 2)
