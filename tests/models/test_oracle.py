"""Our nets against the same nets in PyTorch (make_reference.py): equal weights, equal logits."""

from pathlib import Path

import numpy as np
import pytest
from reference_weights import CASES, CLASSES, batch_norm, bias, images, kernel

from dlkit.layers.norms import BatchNorm
from dlkit.models import builder


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_those_of_an_independent_implementation(name):
    case = CASES[name]
    reference = np.load(Path(__file__).parent / "reference" / f"{name}.npz")
    pixels = images(case)
    np.testing.assert_allclose(
        pixels.ravel()[:8], reference["first_pixels"], rtol=1e-6, err_msg="NumPy draws anew: run make_reference.py"
    )

    model = builder(case.net)(pixels.shape[1:], CLASSES, init="zeros", **case.options)
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            for weight, value in batch_norm(layer.name, layer.gamma.shape[0]).items():
                getattr(layer, weight).assign(value)
        elif layer.weights:
            layer.kernel.assign(kernel(layer.name, layer.kernel.shape))
            if layer.bias is not None:
                layer.bias.assign(bias(layer.name, layer.bias.shape[0]))

    logits = model(pixels, training=False).numpy()
    assert np.abs(reference["logits"]).mean() > 0.3, "1e-4 says little of smaller logits"
    np.testing.assert_allclose(logits, reference["logits"], rtol=0, atol=1e-4)
