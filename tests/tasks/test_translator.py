"""`Translator` with small nets of random weights: batches and precision do not matter; what does not fit is told."""

import json

import numpy as np
import pytest

from dlkit import recipe, runs
from dlkit.data.tokenizer import END, PAD, START, WordTokenizer
from dlkit.errors import DataError, UsageError
from dlkit.tasks.translator import NO_OUTPUT, Search, load, save_tokenizers
from dlkit.train import checkpoints

WORDS = WordTokenizer([f"{first}{second}" for first in "abcd" for second in "wxyz"])
MODELS = {
    "seq2seq_attention": {"layers": 1, "width": 16},
    "transformer": {
        "layers": 1, "decoder_layers": 2, "width": 16, "ffn": 32, "heads": 2, "norm": "pre", "tied": "none"
    },
}  # fmt: skip
SPREAD = {"seq2seq_attention": 0.8, "transformer": 0.5}
HEAD = "transformer/head_words"

draw = np.random.default_rng(0)
LINES = [" ".join(draw.choice(WORDS.words, length)) for length in draw.integers(1, 13, 64)]


def lively(name, shapes):
    """Weights of a net whose outputs are many and of many lengths, as those of a trained one."""
    draw, weights = np.random.default_rng(1), {}
    for path, shape in shapes.items():
        array = draw.normal(path.endswith("gamma"), SPREAD[name] if len(shape) > 1 else 0.1, shape)
        # All hidden units of this network are positive, and would add up to a constant.
        weights[path] = array - array.mean(axis=0) if path.endswith("ffn2/kernel") else array
    weights["target_embedding/embeddings"] /= 2
    if name == "transformer":  # the first feature is always 1, and the read-out makes a bias of it
        gamma, beta, head = (weights[path] for path in ("decoder_norm/gamma", "decoder_norm/beta", HEAD))
        gamma[0], beta[0], head[:, 0] = 0, 1, 0
    bias = weights[HEAD][:, 0] if name == "transformer" else weights["head/bias"]
    bias[[PAD, START, END]] = -30, -30, 3
    return {path: array.astype(np.float32) for path, array in weights.items()}


def make(path, name, *, precision="float32", target=WORDS):
    """A run, without any training."""
    settings = {f"model.{key}": json.dumps(value) for key, value in MODELS[name].items()}
    settings |= {"train.precision": precision, "decode.max_len": "14"}
    resolved = recipe.resolve(name, "synthetic:reverse", overrides=[(*item, "set") for item in settings.items()])
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.toml").write_text(resolved.to_toml())
    arguments = {"source_vocabulary": WORDS.size, "target_vocabulary": target.size}
    info = {"format": 1, "task": "translation", "recipe": "x", "data": {}, "model_arguments": arguments}
    (path / "run.json").write_text(json.dumps(info))
    save_tokenizers(path, (WORDS, target))
    shapes = {key: tuple(variable.shape) for key, variable in runs.named_variables(runs.build_model(path)).items()}
    checkpoints.write(path / "checkpoints" / "step-1", {"weights": lively(name, shapes)}, {"step": 1})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", params=list(MODELS))
def translators(folder, request):
    """Of two runs with the same weights, one trained in float32 and one in bfloat16."""
    kinds = ("float32", "bfloat16")
    return {kind: load(make(folder / f"{request.param}_{kind}", request.param, precision=kind)) for kind in kinds}


def test_batches_and_the_precision_of_training_do_not_matter(translators):
    search = Search(beams=3, n_best=2)
    expected = list(translators["float32"].each([LINES], search, batch_size=1))
    outputs = [each.hypotheses for each in expected]
    assert len({best.text for best, _ in outputs}) > 25
    assert len({len(best.ids) for best, _ in outputs}) > 5
    for precision, batch_size in (("float32", 3), ("float32", 64), ("bfloat16", 1), ("bfloat16", 3), ("bfloat16", 64)):
        for found, line in zip(
            translators[precision].each([LINES], search, batch_size=batch_size), expected, strict=True
        ):
            assert (found.number, found.source) == (line.number, line.source)
            for ours, theirs in zip(found.hypotheses, line.hypotheses, strict=True):
                assert ours.ids == theirs.ids
                assert ours.score == pytest.approx(theirs.score, abs=1e-4)
                assert ours.log_probability == pytest.approx(theirs.log_probability, abs=1e-3)


def test_scores_are_those_of_the_search_whatever_the_batch(translators):
    found = [each.hypotheses[0] for each in translators["float32"].each([LINES], Search(beams=3))]
    pairs = [(line, hypothesis.text) for line, hypothesis in zip(LINES, found, strict=True)]
    for precision, batch_size in (("float32", 1), ("float32", 3), ("float32", 64), ("bfloat16", 3), ("bfloat16", 64)):
        scores = list(translators[precision].score([pairs], batch_size=batch_size))
        assert [score.number for score in scores] == list(range(1, 65))
        for score, hypothesis in zip(scores, found, strict=True):
            assert score.pieces == hypothesis.pieces
            assert score.log_probabilities.sum() == pytest.approx(hypothesis.log_probability, abs=1e-3)


def test_pairs_of_like_length_are_scored_together(translators, monkeypatch):
    translator = translators["float32"]
    shapes = []

    def score(source, target):
        shapes.append((source.shape, target.shape))
        return np.zeros(target.shape, np.float32)

    monkeypatch.setattr(translator.decoder, "score", score)
    short, long = ("aw", "bw cw"), (" ".join(["aw"] * 20), " ".join(["bw"] * 30))
    list(translator.score([[short, long, short, long], [long, short]], batch_size=2))
    low, high = shapes[0], shapes[1]
    assert shapes[:2] == [low, high]
    assert low[0][1] < high[0][1]
    assert low[1][1] < high[1][1]
    assert shapes[2:] == [high], "a group that fits into a batch is one"


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_have_no_more_tokens_than_there_is_memory_for(translators, monkeypatch, batch_size):
    """Whichever side is the longer one; a line that has more is alone."""
    translator, shapes = translators["float32"], []
    monkeypatch.setattr("dlkit.tasks.translator.TOKENS_WRITTEN", 90)

    def score(source, target):
        shapes.append((len(source), max(np.count_nonzero(side, axis=1).max() for side in (source, target))))
        return np.zeros(target.shape, np.float32)

    monkeypatch.setattr(translator.decoder, "score", score)
    lengths = [*range(1, 31), 95, 120]
    pairs = [(" ".join(["aw"] * a), " ".join(["aw"] * b)) for length in lengths for a, b in ((length, 2), (1, length))]
    found = list(translator.score([pairs], batch_size=batch_size))
    assert [each.number for each in found] == list(range(1, len(pairs) + 1))
    assert all(rows <= batch_size and (rows == 1 or rows * longest <= 90) for rows, longest in shapes)
    assert sum(rows for rows, _ in shapes) == len(pairs)
    if batch_size == 100:
        assert len(shapes) < len(pairs) / 2, "others are together"


def test_a_side_that_is_too_long_is_named(translators):
    long = " ".join(["aw"] * 1000)
    found = translators["float32"].score([[("aw", long), (long, "aw")]])
    assert [each.message.split(" has ")[0] for each in found] == ["the translation in line 1", "line 2"]


def test_the_texts_of_the_n_best_are_distinct(translators, monkeypatch):
    """Where several sequences of tokens stand for one text, here for their first word, the best of them counts."""
    translator = translators["float32"]
    monkeypatch.setattr(translator.target, "decode", lambda ids: WORDS.words[ids[0] - 4] if ids[0] != END else "")
    alike = 0
    for beams, n_best in ((5, 1), (5, 3), (3, 3)):
        source = translator._arrays([translator._read(at, line) for at, line in enumerate(LINES)])
        every = translator.decoder.beam(source, beams=beams, n_best=beams, max_len=14)
        for row, found in enumerate(translator.each([LINES], Search(beams=beams, n_best=n_best))):
            first = {}
            for tokens, score in zip(every.tokens[row], every.scores[row], strict=True):
                first.setdefault(translator.target.decode(tokens), score)
            alike += beams - len(first)
            assert [each.text for each in found.hypotheses] == list(first)[:n_best]
            np.testing.assert_allclose([each.score for each in found.hypotheses], list(first.values())[:n_best], 1e-5)
    assert alike > 50


def test_what_is_not_searched_has_no_probability(translators):
    empty, failed, found = translators["float32"].each([["", DataError("no text"), "aw"]])
    assert empty.hypotheses == [NO_OUTPUT]
    assert (NO_OUTPUT.text, NO_OUTPUT.score, NO_OUTPUT.log_probability) == ("", None, None)
    assert failed.message == "no text"
    assert found.number == 3


def test_a_prefix_has_words_that_are_known(translators):
    with pytest.raises(UsageError, match="not in the vocabulary of the run: what else"):
        translators["float32"]("aw", Search(prefix="aw what else"))


def test_a_prefix_has_to_leave_room(translators):
    with pytest.raises(UsageError, match="the prefix has 3 tokens, and an output at most 3, the end token among them"):
        translators["float32"]("aw", Search(prefix="aw bw cw", max_len=3))
    assert translators["float32"]("aw", Search(prefix="aw bw", max_len=3)) == "aw bw"


def test_an_ensemble_has_one_target_vocabulary(folder):
    own = WordTokenizer(WORDS.words[::-1])  # as many words, so that the nets would fit
    names = [make(folder / "own", "seq2seq_attention", target=own), make(folder / "words", "seq2seq_attention")]
    assert load(names[0]).target == own
    with pytest.raises(UsageError, match="have different target vocabularies") as raised:
        load(names)
    assert all(str(name) in raised.value.message for name in names)


def test_no_alignment_where_runs_divide_sources_differently(folder):
    names = [make(folder / f"sources_{name}", name) for name in MODELS]
    (names[0] / "tokenizer.json").unlink()
    save_tokenizers(names[0], (WordTokenizer(WORDS.words[::-1]), WORDS))
    both = load(names)
    assert both("aw")
    with pytest.raises(UsageError, match="the runs divide sources into different tokens"):
        both("aw", Search(align=True))
