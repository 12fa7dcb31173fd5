"""`dlkit generate` on a model that knows three sentences by heart, and on one that has seen hardly anything."""

import itertools
import json

import keras
import numpy as np
import pytest

import dlkit
from dlkit.cli import main
from dlkit.data.corpus import SENTENCES
from dlkit.data.tokenizer import END, START, UNKNOWN, CharacterTokenizer
from dlkit.tasks import generator
from dlkit.tasks.language_modelling import LanguageModelling
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


def test_a_sample_depends_on_its_number_and_the_seed_alone(gpt, generate, monkeypatch):
    def drawn(count, seed):
        return [each["text"] for each in json.loads(generate(gpt, "--samples", count, "--json", "--seed", seed))]

    few, more = drawn("2", "5"), drawn("5", "5")
    assert few == more[:2]
    assert len(set(more)) == 5
    assert drawn("2", "6") != few
    monkeypatch.setattr(generator, "ROWS_AT_ONCE", 2)
    assert drawn("5", "5") == more, "in three groups"


@pytest.mark.parametrize(
    ("prefix", "how"), [("abc", []), ("abcdefgh\nabcdefgh\nab", []), ("abcdefgh\nabcdefgh\nab", ["--beam", "2"])]
)
def test_a_text_goes_on_beyond_the_positions_of_its_model(gpt, generate, prefix, how):
    (found,) = json.loads(generate(gpt, "--prefix", prefix, *how, "--json"))
    assert len(found["tokens"]) == len(found["text"]) == len(prefix) + 30
    assert found["text"].startswith(prefix)


CHARACTERS = CharacterTokenizer("ab\n")
NEWLINE = CHARACTERS.encode("\n")[0]


def untrained(model, first, **options):
    """A model of these characters that is sure of what it says."""
    keras.utils.set_random_seed(3)
    net = dlkit.build(model, vocabulary=CHARACTERS.size, width=8, layers=1, **options)
    for variable in net.trainable_variables:
        variable.assign(3 * variable)
    return generator.Generator(net, CHARACTERS, {"units": "text", "keeps_lines": True, "first": first}, max_len=8)


@pytest.mark.parametrize("model", ["gpt", "tcn_lm", "gru_lm"])
def test_what_is_written_is_as_probable_as_the_model_says_of_the_whole_text(model):
    write = untrained(model, NEWLINE, **({"heads": 2} if model == "gpt" else {}))
    drawn, found = write(Search(method="sample", n_best=2, seed=1)), write(Search(beams=3, n_best=3))
    assert len({each.text for each in found}) == 3
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    for each in (*drawn, *found):
        assert len(each.ids) == 8
        logits = np.array(write.model(np.array([[NEWLINE, *each.ids[:-1]]]))[0], np.float64)
        logits[:, [START, END, UNKNOWN]] = -np.inf  # which are never written
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert each.log_probability == pytest.approx(logs[range(8), each.ids].sum(), rel=1e-4, abs=1e-4)


def test_a_model_of_many_texts_of_characters_ends_them():
    """Of five tokens that may come one is the end, so hardly any of twenty texts gets longer than it may."""
    search = Search(method="sample", n_best=20, max_len=40)
    own = untrained("gru_lm", END)
    texts = own(search)
    assert len({each.text for each in texts}) > 5
    assert any(each.ended for each in texts)
    for each in texts:
        assert each.ids.index(END) == len(each.ids) - 1
        assert each.ended == (len(each.ids) < 40)
        assert len(each.text) == len(each.ids) - 1
    assert min(len(each.ids) for each in own(Search(method="sample", n_best=20, max_len=40, min_len=7))) >= 7
    for texts in (own(search, stop="\n"), untrained("gru_lm", NEWLINE)(search)):
        assert not any(END in each.ids for each in texts)


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


def test_a_piece_is_a_stop_token_though_by_itself_it_would_begin_with_a_space(pieces):
    assert len(pieces.tokenizer.encode("b")) == 2
    own = pieces.tokenizer.id_of("b")
    assert pieces.tokenizer.pieces([own]) == ["b"]
    texts = pieces(Search(method="sample", n_best=20, max_len=20, seed=1), stop="b")
    assert any(each.ended for each in texts)
    assert all(each.ids.index(own) == len(each.ids) - 1 for each in texts)


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


@pytest.mark.parametrize("how", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("min_len", [0, 1, 3])
def test_a_model_that_always_wants_to_stop_writes_the_fewest_tokens_the_stop_token_included(how, min_len):
    write = untrained("gru_lm", END)
    bias = np.zeros(CHARACTERS.size)
    bias[END] = 1000
    write.model.head.bias.assign(bias)
    (found,) = write(Search(method=how, prefix="ab", min_len=min_len, max_len=6, seed=2))
    assert len(found.ids) == 2 + max(1, min_len)
    assert found.ids.index(END) == len(found.ids) - 1
    assert len(found.text) == len(found.ids) - 1


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
    assert all(each["ended"] == (len(each["tokens"]) < 60) for each in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prefix", "I hate"], "not in the vocabulary of the run: hate"),
        (["--greedy", "--samples", "2"], "--samples is for drawing"),
        (["--n-best", "2"], "--n-best is about beam search"),
        (["--top-p", "0"], "leaves nothing to draw from"),
        (["--stop", "am"], "--stop is for running text"),
        (["--stop", "am", "--marginals"], "--stop is for running text"),
        (["--samples", "3", "--temperature", "0"], "--samples 3 with --temperature 0 would be the same text each time"),
        (["--samples", "3", "--top-k", "1"], "--samples 3 with --top-k 1 would be the same text each time"),
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


@pytest.mark.parametrize("arguments", [["--min-len", "3"], ["--length-norm", "none", "--beam", "2"]])
def test_what_is_about_the_end_of_a_text_wants_one(gpt, arguments, capsys):
    assert main(["generate", gpt, *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert f"{arguments[0]} is about where a text ends, and nothing but --max-len ends the texts of" in lines[0]
    assert len(lines) == 2


def test_marginals_need_steps_with_a_number(gpt, capsys):
    assert main(["generate", gpt, "--marginals"]) == 2
    assert "for models of lines" in capsys.readouterr().err


def test_runs_are_compared_on_one_text_by_bits_per_character(gpt, pieces, folder, capsys, monkeypatch):
    both, other = [gpt, str(folder / "bpe")], folder / "both.txt"
    other.write_text("abab\ncdcd\n" * 3)

    def failure(*arguments):
        assert main(["evaluate", *both, *arguments]) == 2
        return capsys.readouterr().err

    assert "are tested on different texts" in failure("--split", "validation")
    assert "--limit counts blocks or lines, which these runs cut" in failure("--data", str(other), "--limit", "2")
    assert main(["evaluate", *both, "--data", str(other)]) == 0
    assert "only bits_per_character can be compared" in capsys.readouterr().err
    monkeypatch.setattr(LanguageModelling, "altered_share", lambda own, split: 0.002)  # as with `data.lower`
    assert main(["evaluate", *both, "--data", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparable"] == []
    assert [result["unknown"] for result in found["runs"]] == [0, 0]


def test_with_unknown_tokens_bits_per_character_cannot_be_compared(gpt, pieces, folder, capsys):
    """One run knows no space: of 30 characters the first is given, and of the others three are spaces."""
    both, other = [gpt, str(folder / "bpe")], folder / "spaces.txt"
    other.write_text("abab cdcd\n" * 3)
    assert main(["evaluate", *both, "--data", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparable"] == []
    assert [result["unknown"] for result in found["runs"]] == pytest.approx([3 / 29, 0])
    assert main(["evaluate", *both, "--data", str(other)]) == 0
    told = capsys.readouterr().err
    assert "some of them unknown, so none of these figures can be compared" in told
    assert "only bits_per_character" not in told
    assert main(["evaluate", gpt, "--data", str(other)]) == 0
    assert "unknown: 10.34% of the tokens" in capsys.readouterr().err


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


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_a_text_without_a_word_cannot_be_evaluated_on(pieces, folder, tmp_path, content, capsys):
    file = tmp_path / "empty.txt"
    file.write_text(content)
    assert main(["evaluate", str(folder / "bpe"), "--data", str(file)]) == 3
    assert "empty.txt has no text to test on" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train.txt", "test.txt"])
def test_a_folder_of_one_text_is_evaluated_on(gpt, tmp_path, name, capsys):
    (tmp_path / name).write_text("abcdefgh\n" * 3)
    assert main(["evaluate", gpt, "--data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["split"], found["tokens"]) == ("test", 26)


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
