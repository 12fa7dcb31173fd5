"""What the recipes of sequences promise, each trained as it is shipped. By hand: `pytest -m slow`.

The film reviews are in a folder of the environment variable RT_POLARITY, `rt-polarity.neg` and `rt-polarity.pos`.
"""

import json
import os

import numpy as np
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


@pytest.fixture
def evaluated(tmp_path, capsys):
    """Trains with the given arguments and tells what `evaluate` says of the run."""

    def tell(*arguments, asked=()):
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        assert main(["train", *arguments, "-q", "--runs-dir", str(tmp_path), "--name", run.name]) == 0
        capsys.readouterr()
        assert main(["evaluate", str(run), *asked, "--json", "-q"]) == 0
        found = json.loads(capsys.readouterr().out)
        print(*arguments, {key: value for key, value in found.items() if isinstance(value, float)})
        return found

    return tell


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


def test_attention_says_what_stands_where_in_drawn_scenes(evaluated):
    assert evaluated("captioner_attention")["exact"] > 0.985


def test_a_net_tells_which_of_two_letters_comes_first_and_a_bag_of_words_cannot(trained):
    assert trained("text_gru")["accuracy"] > 0.99
    bag = trained("text_bag", "--data", "synthetic:order", "--set", "model.pairs=0")
    assert bag["accuracy"] == pytest.approx(0.5, abs=0.08)


def test_a_bag_of_words_and_pairs_tells_film_reviews_apart(trained):
    """Ten-fold, as in Kim 2014. Naive Bayes beside it has 78.8 %."""
    folder = os.environ.get("RT_POLARITY")
    if folder is None:
        pytest.skip("RT_POLARITY names no folder")
    arguments = ["text_bag", "--recipe", "text_bag_rt-polarity", "--data", folder]
    folds = [trained(*arguments, "--set", f"data.fold={fold}")["accuracy"] for fold in range(10)]
    assert np.mean(folds) > 0.77


def test_letters_of_shakespeare_are_foretold(evaluated):
    """In nats a letter, of the last tenth; nanoGPT's recipe for a CPU ends at 1.898 in blocks of 64."""
    gpt, lstm = (
        evaluated(model, "--data", "shakespeare", asked=["--split", "validation"]) for model in ("gpt", "lstm_lm")
    )
    assert gpt["tokens"] == lstm["tokens"] == 111_539, "all but the first"
    assert gpt["loss"] < 1.898
    assert lstm["loss"] < 1.65


def test_who_read_its_own_words_in_training_is_better_with_them_and_worse_without(evaluated):
    """Scheduled sampling, and beside it the same net trained on true words alone."""
    recipe, asked = ["seq2seq", "--recipe", "reverse_sampling"], ["--own-words"]
    own, true = (evaluated(*recipe, *more, asked=asked) for more in ([], ["--set", "train.sampling=none"]))
    assert own["own_words_loss"] < 0.8 * true["own_words_loss"]
    assert own["loss"] > 1.2 * true["loss"]
    assert own["exact"] < true["exact"]
    assert all(each["own_words_loss"] > each["loss"] for each in (own, true))
