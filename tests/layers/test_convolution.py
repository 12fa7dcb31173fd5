"""The convolution of the nets against the dense layer that it is, against arrays written by hand, and under shifts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, runtime
from dlkit.data.images import ImageSplit, standardize, statistics
from dlkit.layers.convolution import Conv2D
from dlkit.layers.hidden import Hidden


def conv_net(input_shape, filters, size, *, norm="none", activation="linear", pool=False, **options):
    """A net that is one convolution as all image nets build it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(input_shape, dtype=keras.config.dtype_policy().compute_dtype)
    x = Hidden("he", norm, activation, bias_init=0.25).conv(inputs, filters, size, **options)
    return keras.Model(inputs, keras.layers.MaxPooling2D(2)(x) if pool else x)


def kernel_of(net):
    (conv,) = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
    return conv.kernel


# ------------------------------------------------------------------------------------------- the expanded dense matrix


def expanded(kernel, input_shape, output_shape, *, stride, padding, groups):
    """The weights of the dense layer from all pixels to all outputs: zero outside of the field, and shared."""
    height, width, channels = input_shape
    rows, columns, filters = output_shape
    size, _, group_channels, _ = kernel.shape
    matrix = np.zeros((*input_shape, *output_shape))
    for row, column, f in np.ndindex(rows, columns, filters):
        first_channel = f // (filters // groups) * group_channels
        for i, j, c in np.ndindex(size, size, group_channels):
            y, x = row * stride + i - padding, column * stride + j - padding
            if 0 <= y < height and 0 <= x < width:
                matrix[y, x, first_channel + c, row, column, f] = kernel[i, j, c, f]
    return matrix.reshape(height * width * channels, rows * columns * filters)


CONVOLUTIONS = {
    "kept size": ((5, 6, 2), (5, 6, 3), {"size": 3}),
    "cut edges": ((5, 6, 2), (3, 4, 3), {"size": 3, "padding": 0}),
    "stride 2": ((6, 7, 2), (3, 4, 3), {"size": 3, "stride": 2}),
    "stride 2, cut edges": ((7, 6, 2), (3, 2, 3), {"size": 3, "stride": 2, "padding": 0}),
    "stride 4 of 11, as in AlexNet": ((23, 23, 1), (5, 5, 2), {"size": 11, "stride": 4, "padding": 2}),
    "1x1, stride 2": ((5, 4, 3), (3, 2, 2), {"size": 1, "stride": 2}),
    "wider than its size needs": ((4, 4, 1), (6, 6, 2), {"size": 3, "padding": 2}),
    "two groups": ((5, 5, 4), (3, 3, 6), {"size": 3, "stride": 2, "groups": 2}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_is_a_dense_layer_with_shared_weights_and_zeros(case):
    """Forward it multiplies with the expanded matrix, backward with its transpose, and a weight adds up gradients."""
    input_shape, output_shape, options = CONVOLUTIONS[case]
    runtime.set_precision("float64")
    net = conv_net(input_shape, output_shape[-1], **options)
    kernel = kernel_of(net).numpy()

    def as_dense(weights):
        padding = options.get("padding", options["size"] // 2)
        stride, groups = options.get("stride", 1), options.get("groups", 1)
        return expanded(weights, input_shape, output_shape, stride=stride, padding=padding, groups=groups)

    matrix = as_dense(kernel)
    places = as_dense(np.arange(1, kernel.size + 1).reshape(kernel.shape)).astype(int)  # which weight stands where
    assert np.unique(places).tolist() == [*range(kernel.size + 1)]

    generator = np.random.default_rng(0)
    x, dy = generator.normal(size=(4, *input_shape)), generator.normal(size=(4, *output_shape))
    images = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(images)
        y = net(images)
    dx, d_kernel = tape.gradient(y, [images, kernel_of(net).value], output_gradients=tf.constant(dy))
    assert y.shape == dy.shape
    x, dy = x.reshape(4, -1), dy.reshape(4, -1)
    np.testing.assert_allclose(y.numpy().reshape(4, -1), x @ matrix + 0.25, rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx.numpy().reshape(4, -1), dy @ matrix.T, rtol=0, atol=1e-12)
    shared = np.bincount(places.ravel(), (x.T @ dy).ravel())[1:]
    np.testing.assert_allclose(d_kernel.numpy().ravel(), shared, rtol=0, atol=1e-12)


def test_sharing_saves_three_million_weights():
    """64 features of a 128x128 colour image, each of all pixels or of 3x3."""
    with runtime.precision("float32"):
        dense = models.build("mlp", input_shape=(128, 128, 3), classes=10, hidden=[64], init="zeros")
        net = conv_net((128, 128, 3), 64, 3)
    assert dense.get_layer("dense1").kernel.numpy().size == 3_145_728
    assert kernel_of(net).numpy().size == 1_728


# ---------------------------------------------------------------------------------------------------- edges and strides

IMAGE = np.arange(1, 17).reshape(4, 4)  # 1 2 3 4 / 5 6 7 8 / 9 10 11 12 / 13 14 15 16
# The pixel up left and twice the one down right, so that a flipped kernel would show.
KERNEL = [[1, 0, 0], [0, 0, 0], [0, 0, 2]]
CUT = [[23, 26], [35, 38]]  # 1 + 2*11, 2 + 2*12, 5 + 2*15, 6 + 2*16
PADDED = [[12, 14, 16, 0], [20, 23, 26, 3], [28, 35, 38, 7], [0, 9, 10, 11]]
EVERY_SECOND = [[12, 16], [28, 38]]  # zeros on the left and on top as well: `same` in Keras would begin with 23


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"padding": 0}, CUT),
        ({}, PADDED),
        ({"stride": 2}, EVERY_SECOND),
        ({"stride": 2, "padding": 0}, [[23]]),
        ({"stride": 3}, [[12, 0], [0, 11]]),
        ({"pool": True}, CUT),  # the largest of each four of PADDED; that a stride is no pool shows above
    ],
    ids=str,
)
def test_edges_and_strides_by_hand(options, expected):
    net = conv_net((4, 4, 1), 1, 3, **options)
    net.set_weights([np.reshape(KERNEL, (3, 3, 1, 1)), np.zeros(1)])
    assert net(IMAGE.reshape(1, 4, 4, 1).astype("float32")).numpy()[0, ..., 0].tolist() == expected


@pytest.mark.parametrize("dilation", [1, 2])
def test_groups_keep_their_dilation(dilation):
    """Two groups of one channel, the pixels 1 to 25 and their tenfold: corner and twice the one across, in each."""
    side = 2 * dilation + 1
    pixels = np.arange(1.0, 26).reshape(5, 5)[:side, :side]
    layer = Conv2D(2, 3, groups=2, dilation_rate=dilation, use_bias=False)
    images = tf.constant(np.stack([pixels, 10 * pixels], -1)[np.newaxis], tf.float32)
    layer.build(images.shape)
    layer.kernel.assign(np.repeat(np.reshape(KERNEL, (3, 3, 1, 1)), 2, -1))
    with tf.GradientTape() as tape:
        outputs = layer(images)
    sums = {1: 1 + 2 * 13, 2: 1 + 2 * 25}[dilation]
    assert outputs.numpy().tolist() == [[[[sums, 10 * sums]]]]
    gradient = tape.gradient(outputs, layer.kernel.value).numpy()
    np.testing.assert_array_equal(gradient[..., 0, 0], pixels[::dilation, ::dilation])


@pytest.mark.parametrize("size", [1, 3, 5, 7, 11])
def test_the_radius_is_half_of_what_is_beside_the_middle(size):
    """Cut edges lose (k-1)/2 pixels on each side; an output depends on what lies so far away, and no further."""
    radius = (size - 1) // 2
    assert conv_net((13, 13, 1), 1, size, padding=0).output.shape[1:3] == (13 - 2 * radius,) * 2
    net = conv_net((13, 13, 1), 1, size)
    assert net.output.shape[1:3] == (13, 13)
    x = tf.ones((1, 13, 13, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        middle = net(x)[0, 6, 6, 0]
    rows, columns = np.nonzero(tape.gradient(middle, x).numpy()[0, ..., 0])
    assert {*rows} == {*columns} == set(range(6 - radius, 6 + radius + 1))


def test_standardized_zeros_are_the_average():
    """Beside an image of the average colour, padding adds more of the same; in images as they are it adds black."""
    train = np.full((8, 6, 6, 3), (60, 100, 20), np.uint8)
    train[::2] += np.array([40, 10, 20], np.uint8)
    train[1::2] -= np.array([40, 10, 20], np.uint8)
    mean, std = statistics(ImageSplit(train, np.zeros(8, np.int32)))
    np.testing.assert_allclose(mean * 255, [60, 100, 20])
    average = np.full((1, 6, 6, 3), (60, 100, 20), np.uint8)
    net = conv_net((6, 6, 3), 4, 3)

    maps = net(standardize(average, mean, std)).numpy()[0]
    np.testing.assert_allclose(maps, np.full_like(maps, 0.25), atol=1e-6)  # in the corner as in the middle: the bias
    maps = net(average / np.float32(255)).numpy()[0]
    assert (np.abs(maps[0, 0] - maps[3, 3]) > 0.01).all()


# --------------------------------------------------------------------------------------------------------------- shifts


def spot(top, left, side=24):
    """A 7x7 pattern on an empty image; the pattern is far from all edges."""
    image = np.zeros((1, side, side, 2))
    image[:, top : top + 7, left : left + 7] = np.random.default_rng(3).normal(size=(7, 7, 2))
    return image


STAGES = {"convolution": (1, {}), "stride 2": (2, {"stride": 2}), "pool": (2, {"pool": True}),
          "stride and pool": (4, {"stride": 2, "pool": True})}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_shifted_images_give_shifted_maps(stage):
    """By the stride of the whole stage, and by its multiples only."""
    step, options = STAGES[stage]
    runtime.set_precision("float64")
    net = conv_net((24, 24, 2), 5, 3, activation="relu", **options)
    maps = net(spot(8, 8)).numpy()
    assert maps.std() > 0.01
    for down, right in [(step, 0), (0, -step), (-step, step)]:
        moved = np.roll(maps, (down // step, right // step), axis=(1, 2))
        np.testing.assert_allclose(net(spot(8 + down, 8 + right)), moved, atol=1e-12)
    if step > 1:
        between = net(spot(8, 9)).numpy()
        shifts = np.ndindex(maps.shape[1:3])
        assert min(np.abs(np.roll(maps, shift, axis=(1, 2)) - between).max() for shift in shifts) > 0.1


def test_to_a_dense_net_a_shifted_image_is_another_one():
    """The same number of features: averaged over the maps they stay, and those of the dense layer do not."""
    runtime.set_precision("float64")
    maps = conv_net((24, 24, 2), 16, 3, activation="relu")
    inputs = keras.Input((24, 24, 2), dtype="float64")
    dense = keras.Model(inputs, Hidden("he", "none", "relu").dense(keras.layers.Flatten()(inputs), 16, number=1))
    here, beside = spot(8, 8), spot(8, 9)
    np.testing.assert_allclose(maps(here).numpy().mean((1, 2)), maps(beside).numpy().mean((1, 2)), atol=1e-12)
    assert abs(np.corrcoef(dense(here)[0], dense(beside)[0])[0, 1]) < 0.9


def test_a_pool_tolerates_a_shift_inside_its_window():
    pool = models.build("lenet").get_layer("pool1")
    images = np.zeros((3, 28, 28, 6), "float32")
    images[0, 0, 0] = images[1, 1, 1] = images[2, 1, 2] = 1  # the first two in one window, the third beside it
    first, second, third = pool(images).numpy()
    assert first.shape == (14, 14, 6)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
