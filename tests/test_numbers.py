"""Every published count and multiply-add, out of `dlkit summarize --json`."""

import json

import pytest

from dlkit.cli import main

# name: trainable, with the moving statistics of batch norm. ImageNet nets as torchvision publishes them; AlexNet
# without groups and LeNet-5 with a full C3 by arithmetic; CIFAR nets of 6n + 2 layers by arithmetic, 10 classes.
IMAGENET = {
    "resnet18": (11_689_512, 11_699_112),
    "resnet34": (21_797_672, 21_814_696),
    "resnet50": (25_557_032, 25_610_152),
    "resnet101": (44_549_160, 44_654_504),
    "resnet152": (60_192_808, 60_344_232),
    "vgg11": (132_863_336, 132_863_336),
    "vgg13": (133_047_848, 133_047_848),
    "vgg16": (138_357_544, 138_357_544),
    "vgg19": (143_667_240, 143_667_240),
    "alexnet": (62_378_344, 62_378_344),
    "lenet": (61_706, 61_706),
}
CIFAR = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
# Exactly by arithmetic, or to the two digits of He et al. 2015, table 1.
MULTIPLY_ADDS = {"alexnet": (1_135_256_096, 0), "vgg16": (15_470_264_320, 0), "resnet18": (1.8e9, 0.05e9)}
MULTIPLY_ADDS |= {"resnet34": (3.6e9, 0.1e9), "resnet50": (3.8e9, 0.1e9), "resnet101": (7.6e9, 0.1e9)}
MULTIPLY_ADDS |= {"resnet152": (11.3e9, 0.1e9)}


@pytest.fixture
def summary(capsys):
    def summarize(*arguments):
        assert main(["summarize", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return summarize


@pytest.mark.parametrize("name", IMAGENET)
def test_nets_for_imagenet(summary, name):
    found = summary(name)
    assert (found["trainable"], found["parameters"]) == IMAGENET[name]
    assert found["flops"] == 2 * found["multiply_adds"]
    if name in MULTIPLY_ADDS:
        exact, tolerance = MULTIPLY_ADDS[name]
        assert abs(found["multiply_adds"] - exact) <= tolerance


@pytest.mark.parametrize("family", ["resnet", "plain"])
@pytest.mark.parametrize("depth", CIFAR)
def test_nets_for_cifar(summary, family, depth):
    assert summary(f"{family}{depth}")["trainable"] == CIFAR[depth]


def test_alexnet_in_two_groups(summary):
    found = summary("alexnet", "--set", "model.groups=2")
    assert (found["parameters"], found["multiply_adds"]) == (60_965_224, 724_406_816)


def test_resnet18_for_small_images(summary):
    found = summary("resnet18", "--input", "32x32x3", "--classes", "10")
    assert (found["trainable"], found["stem"]) == (11_173_962, "3x3/1")


@pytest.mark.parametrize(("name", "sees"), [("alexnet", 195), ("resnet18", 435), ("resnet50", 483)])
def test_receptive_field_of_the_last_conv_stage(summary, name, sees):
    assert summary(name)["receptive_field"] == sees


def test_the_first_conv_of_alexnet_and_the_dense_layer_it_spares(summary):
    conv = next(layer for layer in summary("alexnet", "--explain")["layers"] if layer["name"] == "conv1")
    assert conv["trainable"] == 34_848 + 96
    assert conv["dense_weights"] == 43_713_331_200


def test_a_dense_layer_on_an_image_and_the_same_features_as_filters(summary):
    """The lecture's 128x128x3 image: 49,152 inputs into 64 units, against 64 filters of 3x3x3."""
    dense = summary("mlp", "--input", "128x128x3", "--set", "model.hidden=[64]")["layers"]
    assert next(layer for layer in dense if layer["name"] == "dense1")["trainable"] == 3_145_728 + 64
    stem = summary("resnet18", "--input", "128x128x3", "--set", "model.stem=3x3")["layers"]
    assert next(layer for layer in stem if layer["name"] == "stem_conv")["trainable"] == 1_728
