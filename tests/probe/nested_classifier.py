"""A classifier of a user's own: a graph of layers, one of which is a net itself."""

import keras


def nested(input_shape: tuple[int, int, int] = (16, 16, 1), classes: int = 10, *, filters: int = 4) -> keras.Model:
    """Convolution, residual block and pool in a net inside; norm, convolution and a linear layer around it."""
    inner = x = keras.Input(input_shape)
    x = shortcut = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same", name="stage1_block1_conv1")(x)
    x = keras.layers.Add(name="stage1_block1_add")([x, shortcut])
    x = keras.layers.ReLU(name="stage1_block1_relu")(x)
    trunk = keras.Model(inner, keras.layers.MaxPooling2D(2, name="pool")(x), name="trunk")
    inputs = keras.Input(input_shape)
    x = keras.layers.BatchNormalization(name="norm")(trunk(inputs))
    x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="head")(x), name="nested")
