"""Views of a net of blocks that are layers of a user's own, with layers inside that are called alike."""

from types import SimpleNamespace

import numpy as np
import pytest
from nested_classifier import blocks

from dlkit import models
from dlkit.probe.features import calls_by_name
from dlkit.probe.filters import filters
from dlkit.probe.jacobian_view import _of_calls
from dlkit.probe.receptive import fields
from dlkit.probe.views import Subject, show
from dlkit.probe.watching import inner_layers, is_flat
from dlkit.summary import summarize

IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
NAMES = [
    "block1/conv", "block1/norm", "block1/relu", "block2/conv", "block2/norm", "block2/relu", "mean", "head",
]  # fmt: skip


@pytest.fixture(scope="module")
def net():
    return blocks()


def test_their_names_are_those_of_summarize(net):
    assert not is_flat(net)
    assert [name for name, _ in inner_layers(net)] == NAMES
    assert list(calls_by_name(net, IMAGES)[0]) == NAMES
    assert [row.name for row in summarize(net).rows if row.name in NAMES] == NAMES


def test_each_convolution_has_its_kernel(net):
    found = {one.layer: one.kernel for one in filters(net)}
    wanted = {f"{name}/conv": net.get_layer(name).conv.get_weights()[0] for name in ("block1", "block2")}
    assert list(found) == list(wanted)
    for name, kernel in wanted.items():
        np.testing.assert_array_equal(found[name], kernel)


def test_what_a_place_can_see_is_known(net):
    found = fields(net, IMAGES, ["block1/conv", "block2/conv"])
    assert [one.sees for one in found] == [(3, 3), (5, 5)]


def test_each_has_a_jacobian(net):
    """Of 16x16 images: 2 maps, then 4."""
    subject = SimpleNamespace(model=net, task=SimpleNamespace(logits=lambda model, batch: model(batch["x"])))
    found = _of_calls(subject, {"x": IMAGES[:1]})
    assert list(found) == NAMES
    assert found["block2/conv"][1].shape == (16, 16, 2)


def test_activations_go_inside(monkeypatch):
    table = models.targets() | {"blocks": ("image_classification", "nested_classifier:blocks")}
    monkeypatch.setattr(models, "targets", lambda: table)
    subject = Subject("blocks", sets=["data.size=16"], limit=8, seed=1)
    found = {one["layer"]: one for one in show("activations", subject).records}
    assert list(found) == NAMES
    for at, units in ((1, 2), (2, 4)):
        assert found[f"block{at}/relu"]["units"] == units
        assert found[f"block{at}/relu"]["dead"] is not None
        assert found[f"block{at}/norm"]["variance_ratio"] > 0
