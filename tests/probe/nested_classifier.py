"""Classifiers of a user's own: a graph of layers, one of which is a net itself, and one of layers made of others."""

import keras


def nested(input_shape: tuple[int, int, int] = (16, 16, 1), classes: int = 10, *, filters: int = 4) -> keras.Model:
    """Convolution, residual block and pool in a net inside; norm, convolution, such a block and a head around it."""
    inner = x = keras.Input(input_shape)
    x = shortcut = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same", name="stage1_block1_conv1")(x)
    x = keras.layers.Add(name="stage1_block1_add")([x, shortcut])
    x = keras.layers.ReLU(name="stage1_block1_relu")(x)
    trunk = keras.Model(inner, keras.layers.MaxPooling2D(2, name="pool")(x), name="trunk")
    inputs = keras.Input(input_shape)
    x = keras.layers.BatchNormalization(name="norm")(trunk(inputs))
    x = shortcut = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same", name="stage2_block1_conv1")(x)
    x = keras.layers.Add(name="stage2_block1_add")([x, shortcut])
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="head")(x), name="nested")


class Block(keras.layers.Layer):
    """A convolution, a norm and a ReLU, which are called alike in each of them."""

    def __init__(self, filters: int, **options) -> None:
        super().__init__(**options)
        self.filters = filters
        self.conv = keras.layers.Conv2D(filters, 3, padding="same", name="conv")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.relu = keras.layers.ReLU(name="relu")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.filters))

    def call(self, inputs, training=False):
        return self.relu(self.norm(self.conv(inputs), training=training))


def blocks(input_shape: tuple[int, int, int] = (16, 16, 1), classes: int = 10) -> keras.Model:
    """Two blocks of another width each, and a head."""
    inputs = keras.Input(input_shape)
    x = Block(4, name="block2")(Block(2, name="block1")(inputs))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="head")(x), name="blocks")
