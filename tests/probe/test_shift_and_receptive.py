"""What moves with an image and what does not; what a place sees."""

import keras
import numpy as np
import pytest
from nested_classifier import nested

from dlkit.probe.receptive import Field, fields
from dlkit.probe.shift import measure, shifted, textbook_stages
from dlkit.probe.views import Subject, show
from dlkit.probe.watching import each_call

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(5, 12, 20, 2)).astype(np.float32)


def test_an_image_moves_to_the_right_and_its_edge_comes_in():
    row = np.arange(1.0, 6.0).reshape(1, 1, 5, 1)
    assert shifted(row, 2).ravel().tolist() == [1, 1, 1, 2, 3]
    assert row.ravel().tolist() == [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def found():
    stages = textbook_stages(IMAGES.shape[1:], RANDOM.normal(size=(3, 3, 2, 4)).astype(np.float32))
    return {name: measure(name, stage, IMAGES, most=4, stride=stride) for name, (stage, stride) in stages.items()}


def test_a_convolution_moves_with_the_image(found):
    """Equivariance: moved back by as many places, its maps are what they were, to rounding."""
    assert max(found["conv"].undone) < 1e-6
    assert min(found["conv"].change) > 0.5


def test_strides_and_pools_move_with_whole_numbers_of_their_steps(found):
    for name in ("conv + max pool 2", "conv, stride 2"):
        odd, even = found[name].undone[::2], found[name].undone[1::2]
        assert max(even) < 1e-6, name
        assert min(odd) > 0.1, name
    # A maximum over two places tolerates a shift by one; skipping every other place does not.
    assert found["conv + max pool 2"].undone[0] < 0.9 * found["conv, stride 2"].undone[0]


def test_to_a_dense_layer_noise_that_has_moved_is_another_image(found):
    assert found["dense"].undone is None
    assert min(found["dense"].change) > 0.8


def test_a_stage_that_looks_at_nothing_does_not_change():
    """The mean over the width of an image whose rows are all alike."""
    flat = np.repeat(IMAGES[:, :, :1], 20, axis=2)
    assert measure("mean", lambda images: images.mean(axis=2), flat, most=3).change == [0, 0, 0]


def test_a_net_runs_once_for_each_shift():
    """For its layers and its answers alike, which are those of its own on images that NumPy has moved."""
    subject = Subject("mlp", sets=["model.hidden=[8]", "data.size=32"], seed=1, limit=12)
    calls = []
    with each_call(subject.model.get_layer("head"), lambda *call: calls.append(call)):
        view = show("shift", subject)
    assert len(calls) == 9, "the images as they are, and moved by 1 to 8 pixels"
    images = np.asarray(next(subject.batches()))[:12]
    moved = [np.concatenate([np.repeat(images[:, :, :1], by, 2), images[:, :, : images.shape[2] - by]], 2)
             for by in range(9)]  # fmt: skip
    still, *answers = (np.asarray(subject.model(each, training=False)).argmax(axis=-1) for each in moved)
    assert view.facts["answers_that_stay"] == [np.mean(other == still) for other in answers]
    assert min(view.facts["answers_that_stay"]) < 1


def net(*layers):
    inputs = keras.Input((24, 24, 1), name="image")
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def test_what_a_place_sees_is_what_it_can_see():
    """3x3, then stride 2, then 3x3: 3; 3 + 2 = 5; 5 + 2 * 2 = 9."""
    kinds = {"padding": "same", "kernel_initializer": keras.initializers.RandomNormal(seed=1)}
    model = net(
        keras.layers.Conv2D(4, 3, name="conv1", **kinds),
        keras.layers.Conv2D(4, 3, strides=2, name="conv2", **kinds),
        keras.layers.Conv2D(4, 3, name="conv3", **kinds),
    )
    images = RANDOM.normal(size=(3, 24, 24, 1)).astype(np.float32)
    found = fields(model, images, ["conv1", "conv2", "conv3"])
    assert [one.sees for one in found] == [(3, 3), (5, 5), (9, 9)]
    assert [one.seen for one in found] == [(3, 3), (5, 5), (9, 9)]
    assert all(one.most_within <= one.seen[0] for one in found)


def test_layers_of_a_net_inside_see_as_far_as_alone():
    """3x3 and 3x3 is 5, a pool of 2 makes it 6, and a 3x3 behind it sees two pixels more on each side: 10."""
    model = nested((24, 24, 1))
    images = RANDOM.normal(size=(3, 24, 24, 1)).astype(np.float32)
    names = ["trunk/conv", "trunk/stage1_block1_conv1", "trunk/pool", "conv2"]
    found = fields(model, images, names)
    assert [one.sees for one in found] == [(3, 3), (5, 5), (6, 6), (10, 10)]
    assert [one.shape for one in found] == [(24, 24, 4), (24, 24, 4), (12, 12, 4), (12, 12, 4)]
    assert [one.seen for one in found[:2]] == [(3, 3), (5, 5)]


def test_where_the_code_of_a_net_cannot_be_followed_nothing_is_said_of_what_a_place_sees():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.conv = keras.layers.Conv2D(2, 3, padding="same", name="conv")
            self.conv.build((None, 8, 8, 1))

        def call(self, x, training=False):
            return self.conv(x)

    (found,) = fields(Net(), RANDOM.normal(size=(2, 8, 8, 1)).astype(np.float32), ["conv"])
    assert found.sees is None
    assert found.seen == (3, 3)


def test_ninety_five_percent_of_a_gradient():
    """96 of 100 in the inner 3x3 of a box of 5x5; the rest on its edge."""
    gradient = np.zeros((9, 9))
    gradient[2:7, 2:7] = 4 / 16
    gradient[3:6, 3:6] = 96 / 9
    field = Field("conv", (9, 9, 1), (5, 5), gradient)
    assert (field.seen, field.most_within) == ((5, 5), 3)
    gradient[3:6, 3:6] = 20 / 9
    assert Field("conv", (9, 9, 1), (5, 5), gradient).most_within == 5
    nothing = Field("conv", (9, 9, 1), None, np.zeros((9, 9)))
    assert (nothing.seen, nothing.most_within) == ((0, 0), None)
