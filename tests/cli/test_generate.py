"""`dlkit generate` on a model that knows three sentences by heart, and on one that has seen hardly anything."""

import itertools
import json

import pytest

from dlkit.cli import main
from dlkit.data.corpus import SENTENCES
from dlkit.data.tokenizer import END
from dlkit.tasks import generator
from dlkit.tasks.translator import Search


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    assert main(["train", "lstm_lm", "--data", "three_sentences", "--runs-dir", str(folder), "-q"]) == 0
    return str(folder / "lstm_lm_three_sentences-1")


@pytest.fixture(scope="module")
def gpt(folder):
    """Of characters, with eight positions."""
    text = folder / "x.txt"
    text.write_text("abcdefgh\n" * 40)
    sets = (
        "model.width=16 model.layers=1 model.heads=2 model.max_length=8 data.block=8 train.steps=20 decode.max_len=30"
    )
    words = [word for each in sets.split() for word in ("--set", each)]
    assert main(["train", "gpt", "--data", str(text), "--runs-dir", str(folder), "-q", "--name", "gpt", *words]) == 0
    return str(folder / "gpt")


@pytest.fixture
def generate(capsys):
    def call(*arguments):
        assert main(["generate", *arguments]) == 0
        return capsys.readouterr().out

    return call


def test_samples_that_are_fed_back_are_sentences_and_words_of_each_step_alone_are_not(run, generate):
    found = json.loads(generate(run, "--samples", "40", "--marginals", "--json"))
    assert set(found["fed_back"]) == set(SENTENCES)
    assert len(found["fed_back"]) == len(found["marginals"]) == 40
    assert sum(text in SENTENCES for text in found["marginals"]) < 20
    shares = found["steps"][1]
    assert all(abs(shares[word] - 1 / 3) < 0.06 for word in ("think", "like", "am"))


def test_a_prefix_is_completed(run, generate):
    assert generate(run, "--prefix", "I think").splitlines() == [SENTENCES[0]]
    assert generate(run, "--prefix", "I am", "--greedy").splitlines() == [SENTENCES[2]]
    best = json.loads(generate(run, "--prefix", "I like", "--beam", "3", "--json"))
    assert best[0]["text"] == SENTENCES[1]
    assert best[0]["tokens"][-1] == "</s>"


def test_a_sample_depends_on_its_number_and_the_seed_alone(gpt, generate):
    few, more = (json.loads(generate(gpt, "--samples", n, "--json", "--seed", "5")) for n in ("2", "3"))
    assert [each["text"] for each in few] == [each["text"] for each in more[:2]]
    assert len({each["text"] for each in more}) == 3
    other = json.loads(generate(gpt, "--samples", "2", "--json", "--seed", "6"))
    assert [each["text"] for each in other] != [each["text"] for each in few]


def test_a_text_goes_on_beyond_the_positions_of_its_model(gpt, generate):
    (found,) = json.loads(generate(gpt, "--prefix", "abc", "--json"))
    assert len(found["tokens"]) == 33
    assert found["text"].startswith("abc")
    assert len(found["text"]) == 33


@pytest.fixture(scope="module")
def pieces(folder):
    """Of pieces of words, with line breaks that are tokens; hardly trained."""
    text = folder / "lines.txt"
    text.write_text("abab cdcd\nab cd\n" * 30)
    sets = {"data.tokenizer": "bpe", "data.vocabulary": 12, "model.width": 8, "train.steps": 3, "decode.max_len": 6}
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    assert (
        main(["train", "lstm_lm", "--data", str(text), "--runs-dir", str(folder), "-q", "--name", "bpe", *words]) == 0
    )
    return generator.load(folder / "bpe")


def test_line_breaks_of_pieces_are_the_token_that_ends_lines(pieces):
    ab, cd = (pieces.tokenizer.encode(text) for text in ("ab", "cd"))
    assert pieces.info["first"] == END
    found = {
        how: pieces(Search(method=how, beams=beams, n_best=n_best, prefix="ab\ncd"))
        for how, beams, n_best in (("greedy", 1, 1), ("sample", 1, 2), ("beam", 3, 3))
    }
    assert {how: len(texts) for how, texts in found.items()} == {"greedy": 1, "sample": 2, "beam": 3}
    for each in itertools.chain(*found.values()):
        assert each.ids[: len(ab) + len(cd) + 1] == [*ab, END, *cd]
        assert len(each.ids) == len(ab) + 1 + len(cd) + 6, "nothing ends without a stop token"
        assert each.text.startswith("ab\ncd")
        assert each.text.count("\n") == each.ids.count(END)


@pytest.mark.parametrize("how", ["greedy", "sample", "beam"])
def test_a_prefix_may_end_with_the_stop_token(pieces, how):
    ab = pieces.tokenizer.encode("ab")
    (found,) = pieces(Search(method=how, prefix="ab\n", min_len=3, seed=2), stop="\n")
    assert found.ids[: len(ab) + 1] == [*ab, END]
    written = found.ids[len(ab) + 1 :]
    assert len(written) >= 3
    assert written.index(END) == len(written) - 1, "the next one ends it, if the longest length does not"
    assert found.text.startswith("ab\n")
    assert found.text.count("\n") == 1


def test_one_beam_is_greedy(gpt, pieces, generate):
    one, greedy = (
        json.loads(generate(gpt, *how, "--prefix", "ab", "--json")) for how in (["--beam", "1"], ["--greedy"])
    )
    assert one[0]["tokens"] == greedy[0]["tokens"]
    assert len(one[0]["tokens"]) == 32
    assert one[0]["log_probability"] == pytest.approx(greedy[0]["log_probability"], rel=1e-5)
    one, greedy = (pieces(Search(method=how, beams=1))[0] for how in ("beam", "greedy"))
    assert one.ids == greedy.ids


def test_a_stop_token_ends_a_text(gpt, generate):
    found = json.loads(generate(gpt, "--samples", "5", "--stop", "b", "--max-len", "60", "--json"))
    assert all("b" not in each["text"] for each in found)
    assert any(each["tokens"][-1] == "b" and len(each["tokens"]) < 60 for each in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prefix", "I hate"], "not in the vocabulary of the run: hate"),
        (["--greedy", "--samples", "2"], "--samples is for drawing"),
        (["--n-best", "2"], "--n-best is about beam search"),
        (["--top-p", "0"], "leaves nothing to draw from"),
        (["--stop", "am"], "--stop is for running text"),
        (["--stop", "am", "--marginals"], "--stop is for running text"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(run, arguments, message, capsys):
    assert main(["generate", run, *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("stop", "message"), [("ab", "the stop token 'ab' is 2 tokens"), ("z", "the stop token 'z' is not in the vocab")]
)
def test_a_stop_token_is_one_that_the_run_knows(gpt, stop, message, capsys):
    assert main(["generate", gpt, "--stop", stop]) == 2
    assert message in capsys.readouterr().err


def test_marginals_need_steps_with_a_number(gpt, capsys):
    assert main(["generate", gpt, "--marginals"]) == 2
    assert "for models of lines" in capsys.readouterr().err


def test_runs_are_compared_on_one_text_by_bits_per_character(gpt, pieces, folder, capsys):
    both, other = [gpt, str(folder / "bpe")], folder / "both.txt"
    other.write_text("abab cdcd\n" * 3)

    def failure(*arguments):
        assert main(["evaluate", *both, *arguments]) == 2
        return capsys.readouterr().err

    assert "are tested on different texts" in failure("--split", "validation")
    assert "--limit counts blocks or lines, which these runs cut" in failure("--data", str(other), "--limit", "2")
    assert main(["evaluate", *both, "--data", str(other)]) == 0
    assert "only bits_per_character can be compared" in capsys.readouterr().err
    assert main(["evaluate", *both, "--data", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparable"] == ["bits_per_character"]


@pytest.mark.parametrize(
    ("content", "arguments", "code", "message"),
    [("", [], 3, "empty.txt has no text to test on"), ("abc", ["--png"], 2, "there is nothing to draw of what is")],
)
def test_what_cannot_be_evaluated(gpt, tmp_path, content, arguments, code, message, capsys):
    file = tmp_path / "empty.txt"
    file.write_text(content)
    assert main(["evaluate", gpt, "--data", str(file), *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert len(lines) == 2


def test_evaluate_tells_perplexity_and_bits_on_any_text(gpt, folder, capsys):
    other = folder / "other.txt"
    other.write_text("abcdefgh\n" * 3)
    assert main(["evaluate", gpt, "--data", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["split"], found["tokens"]) == ("test", 26)
    assert found["perplexity"] > 1
    assert found["bits_per_character"] > 0
    assert main(["evaluate", gpt, "--split", "validation"]) == 0
    assert "bits_per_character" in capsys.readouterr().out
