"""What the recipes of sequences promise, each trained as it is shipped. By hand: `pytest -m slow`."""

import json

import pytest

from dlkit.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(tmp_path, capsys):
    """Trains with the given arguments and tells the metrics of the test part."""

    def train(*arguments):
        capsys.readouterr()
        assert main(["train", *arguments, "--json", "-q", "--runs-dir", str(tmp_path)]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["split"] == "test"
        print(*arguments, result["metrics"])
        return result["metrics"]

    return train


def test_gates_remember_over_200_steps_what_a_plain_net_forgets(trained):
    """The adding problem: who remembers nothing says 1 and has the variance of a sum of two of [0, 1], 1/6."""
    nothing = 1 / 6
    assert trained("lstm")["mse"] < 0.01
    assert trained("gru")["mse"] < 0.01
    assert trained("rnn")["mse"] == pytest.approx(nothing, rel=0.05)


def test_the_future_tells_what_a_covered_frame_shows(trained):
    """Forward alone more than 58.9 % of the frames cannot be known on average: the digit is covered at first."""
    both, forward = (
        trained("video_lstm", "--set", f"model.bidirectional={way}")["accuracy"] for way in ("true", "false")
    )
    assert both > 0.9
    assert forward < 0.62


def test_a_tag_that_needs_the_future(trained):
    both, forward = (
        trained("tagger_lstm", "--set", f"model.bidirectional={way}")["exact"] for way in ("true", "false")
    )
    assert both > 0.99
    assert forward < 0.5


def test_gates_copy_after_a_delay_what_a_plain_net_has_forgotten(trained):
    """Five symbols of eight kinds, 50 steps later: a guess has an eighth of them."""
    recalled = {model: trained(model, "--data", "synthetic:copy_delay")["recalled"] for model in ("rnn", "lstm", "gru")}
    assert recalled["gru"] > 0.95
    assert recalled["lstm"] > 0.8
    assert recalled["rnn"] < 0.2
