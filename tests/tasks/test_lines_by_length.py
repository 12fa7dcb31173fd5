"""Lines of like length are evaluated together, as many as memory has room for."""

import numpy as np
import pytest

from dlkit import recipe
from dlkit.tasks import language_modelling
from dlkit.train import start
from dlkit.train.evaluation import Evaluation

LENGTHS = [1, 30, 2, 8, 3, 7, 4, 6, 5, 9]  # with the stop token one more


@pytest.fixture
def made(tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").write_text("".join("abc"[at % 3] * n + "\n" for at, n in enumerate(LENGTHS)))
    flags = {"data.units": "lines", "data.block": 12, "model.width": 4, "model.layers": 1, "train.precision": "float64"}
    return start.prepare(recipe.resolve("lstm_lm", str(tmp_path), flags=flags), devices="cpu")


@pytest.mark.parametrize("batch_size", [3, 100])
def test_batches_have_room_and_hold_every_line_once(made, monkeypatch, batch_size):
    """A line that is longer than there is room for is alone."""
    monkeypatch.setattr(language_modelling, "TOKENS_WRITTEN", 24)
    plan = made.task.evaluation_plan(made.model, "validation", batch_size=batch_size)
    assert sorted(np.concatenate(plan)) == list(range(10))
    assert plan[0].tolist() == [1], "the longest first"
    for rows in plan[1:]:
        assert len(rows) <= batch_size
        assert len(rows) * (max(LENGTHS[row] for row in rows) + 1) <= 24


def test_the_loss_is_the_same_however_lines_are_divided(made, monkeypatch):
    whole = Evaluation(made.task, made.model, made.devices, batch_size=10)("validation")
    monkeypatch.setattr(language_modelling, "TOKENS_WRITTEN", 24)
    divided = Evaluation(made.task, made.model, made.devices, batch_size=10)("validation")
    assert divided == pytest.approx(whole, rel=1e-9)
