"""VGG against the paper's tables 1 and 2."""

import time

import pytest
from deferred import count, deferred, shapes

from dlkit.errors import UsageError
from dlkit.models import vgg

PARAMETERS = {"vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    model = deferred(getattr(vgg, name))
    assert model.name == name
    assert count(model.weights) == PARAMETERS[name]
    assert round(PARAMETERS[name] / 1e6) == int(vgg.PAPERS[name].parameters.split()[0])
    layers_with_weights = [layer.name for layer in model.layers if layer.weights]
    assert len(layers_with_weights) == int(name.removeprefix("vgg"))


def test_stages_halve_the_resolution():
    model = deferred(vgg.vgg16)
    assert shapes(model, *(f"stage{stage}_conv1" for stage in range(1, 6))) == [
        *[(224, 224, 64), (112, 112, 128), (56, 56, 256), (28, 28, 512), (14, 14, 512)]
    ]
    assert shapes(model, "stage5_pool", "flatten", "dense1") == [(7, 7, 512), (25_088,), (4096,)]
    assert count(model.get_layer("dense1").weights) == 25_088 * 4096 + 4096  # most of all parameters


def test_a_deferred_build_draws_nothing():
    # An orthogonal matrix of 25,088 x 4096 would take minutes.
    start = time.process_time()
    deferred(vgg.vgg16, init="orthogonal")
    assert time.process_time() - start < 10


def test_batch_norm_takes_the_place_of_the_biases_of_convolutions():
    model = deferred(vgg.vgg16, norm="batch")
    maps = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    assert count(model.trainable_weights) == PARAMETERS["vgg16"] + maps  # two numbers a map for one
    assert count(model.weights) == PARAMETERS["vgg16"] + 3 * maps


def test_small_images():
    model = deferred(vgg.vgg11, (32, 32, 3), 10, dense_units=512)
    assert shapes(model, "stage5_pool", "dense1") == [(1, 1, 512), (512,)]
    with pytest.raises(UsageError, match="vgg11 needs images of at least 32x32x1, and they are 28x28x1"):
        vgg.vgg11((28, 28, 1))
