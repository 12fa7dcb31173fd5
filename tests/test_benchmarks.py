"""The benchmarks compare like with like: what dlkit trains there has the size that the others train."""

import importlib
import sys
from pathlib import Path

import pytest

from dlkit import data

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.mark.parametrize("augment", ["", "crop_flip"])
def test_dlkit_trains_images_of_the_size_of_the_others(monkeypatch, augment):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(data, "load_images", data.load_images)  # put back afterwards
    conv_nets = importlib.import_module("conv_nets")
    shapes = []
    from dlkit.train.step import TrainingStep

    call = TrainingStep.__call__

    def noted(self, batch, **options):
        shapes.append(batch["images"].shape)
        return call(self, batch, **options)

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    conv_nets.of_dlkit("lenet", "float32", augment)(21)
    assert set(shapes) == {(conv_nets.BATCH, 32, 32, 3)}, "20 batches are an epoch, and the next one is whole, too"
    sys.modules.pop("conv_nets", None)
