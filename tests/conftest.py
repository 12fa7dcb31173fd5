"""Shared fixtures. TensorFlow starts once, quietly, with the logical CPU devices that some tests spread over."""

import gc
import os

import pytest

# Before TensorFlow starts.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as processors: more threads would wait for each other
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

from dlkit import console, runtime

runtime.import_tensorflow()

import keras
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)


def pytest_collection_finish():
    """Leaves modules and tests out of garbage collection: a tenth of the time went into looking through them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.fixture(autouse=True)
def _fresh_state():
    """Every test starts with empty settings and in float32."""
    console.reset()
    keras.config.set_dtype_policy("float32")
    yield
    console.reset()
