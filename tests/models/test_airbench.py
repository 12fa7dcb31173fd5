"""Airbench's net against the description in its paper."""

import keras
import pytest
from deferred import count, deferred, shapes

from dlkit.errors import UsageError
from dlkit.models.airbench import airbench


def test_parameters():
    model = deferred(airbench)
    convolutions = 24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256  # times 3 * 3
    norms = 2 * (2 * 64 + 4 * 256)
    assert count(model.trainable_weights) == 24 + 9 * convolutions + norms + 256 * 10 + 10
    assert round(count(model.weights) / 1e6, 2) == 1.98  # the paper's net has no scales in its norms and no bias here


def test_shapes_one_by_one():
    names = [f"stage{stage}_{part}" for stage in (1, 2, 3) for part in ("conv1", "pool1", "conv2")]
    assert shapes(deferred(airbench), "whitening", *names, "pool", "head") == [
        *[(31, 31, 24), (31, 31, 64), (15, 15, 64), (15, 15, 64)],
        *[(15, 15, 256), (7, 7, 256), (7, 7, 256)],
        *[(7, 7, 256), (3, 3, 256), (3, 3, 256), (256,), (10,)],
    ]


def test_a_stage_is_pooled_before_its_first_norm():
    names = [layer.name for layer in deferred(airbench, activation="relu", dropout=0.5).layers]
    assert names[:10] == [
        *("image", "whitening", "whitening_relu", "stage1_conv1", "stage1_pool1", "stage1_norm1", "stage1_relu1"),
        *("stage1_conv2", "stage1_norm2", "stage1_relu2"),
    ]
    assert names[-4:] == ["pool", "scale", "head_dropout", "head"]


def test_without_whitening_the_first_stage_sees_the_images():
    model = deferred(airbench, (32, 32, 1), whitening=False)
    assert shapes(model, "stage1_conv1", "stage1_pool1") == [(32, 32, 64), (16, 16, 64)]
    assert model.get_layer("stage1_conv1").kernel.shape == (3, 3, 1, 64)
    assert not [layer for layer in model.layers if "whitening" in layer.name]


def test_the_head_sees_a_ninth_of_the_greatest_of_each_map():
    model = airbench((9, 9, 1), width=1, whitening=False)
    pool, scale = keras.Model(model.inputs, [model.get_layer(name).output for name in ("pool", "scale")])(
        keras.random.normal((3, 9, 9, 1), seed=0)
    )
    assert keras.ops.max(keras.ops.abs(pool)) > 0
    assert keras.ops.max(keras.ops.abs(scale * 9 - pool)) < 1e-6


def test_too_small_images():
    assert deferred(airbench, (9, 9, 3)).output.shape == (None, 10)
    with pytest.raises(UsageError, match="airbench needs images of at least 9x9x1, and they are 8x9x3"):
        airbench((8, 9, 3))
