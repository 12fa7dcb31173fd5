"""CTranslate2, which others have written, with our weights: the same scores, the same greedy tokens, no better beam."""

import ctranslate2
import keras
import numpy as np
import pytest

from dlkit.data.pairs import pad
from dlkit.data.tokenizer import END, PAD, START, WordTokenizer
from dlkit.decode.decoder import Decoder
from dlkit.export.ctranslate2 import specification, vocabulary
from dlkit.models.transformer import transformer

TOKENIZER = WordTokenizer([f"w{i}" for i in range(56)])
NAMES = vocabulary(TOKENIZER)
IDS = {name: i for i, name in enumerate(NAMES)}
VARIANTS = {
    "paper": {},
    "deep encoder": {"layers": 3, "decoder_layers": 1, "tied": "all", "heads": 2},
    "no biases": {"tied": "all", "biases": False, "activation": "gelu"},
    "no positions": {"positions": "none", "tied": "none"},
    "pre": {"norm": "pre", "activation": "gelu", "tied": "all"},
    "pre, learned": {"norm": "pre", "positions": "learned", "max_length": 40, "biases": False},
    "post, learned": {"positions": "learned", "max_length": 40, "tied": "none", "activation": "gelu"},
}
SEARCHED = {"pre": 4, "post, learned": 1}  # with seeds whose outputs are many and end
MAX_LEN = 30

random = np.random.default_rng(5)
SOURCES, TARGETS = (
    [[*random.integers(3, len(NAMES), length).tolist(), END] for length in random.integers(1, 12, 24)] for _ in range(2)
)
TEXTS = [[NAMES[i] for i in ids[:-1]] for ids in SOURCES]  # it adds the end itself


def lively(seed, **options):
    """A small net whose outputs differ, end after some words and hold no padding, as those of a trained one."""
    keras.utils.set_random_seed(seed)
    small = {"layers": 1, "decoder_layers": 2, "width": 32, "ffn": 48, "heads": 4, "dropout": 0.0}
    model = transformer(len(NAMES), len(NAMES), init="gaussian:0.5", **{**small, **options})
    draw = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1:  # biases and norms, which begin as zeros and ones
            weight.assign(weight + draw.normal(0, 0.1, weight.shape))
        elif weight.path.endswith("ffn2/kernel"):  # all hidden units are positive, and would add up to a constant
            weight.assign(weight - keras.ops.mean(weight, axis=0))
        elif weight.path.endswith("table"):
            weight.assign(5 * weight)
    # Small embeddings, so that positions count. Signs at random, else a word would be what most resembles itself.
    norm = model.decoder_norm or model.decoder[-1].add_norm3.norm
    gamma, beta = draw.choice([-7.0, 7.0], 32), norm.beta.numpy()
    words = draw.normal(0, 0.4 / 32**0.5, model.words.shape)
    # The first feature is always 1: by its weight the end is likely, and padding is not.
    gamma[0], beta[0], words[:, 0], words[PAD] = 0, 1, 0, 0
    words[END, 0], words[PAD, 0] = 5, -30
    norm.set_weights([gamma, beta])
    model.words.assign(words)
    return model


@pytest.fixture(scope="module", params=VARIANTS)
def both(request, tmp_path_factory):
    """A net of ours, and the same one as CTranslate2 reads it."""
    model = lively(SEARCHED.get(request.param, 0), **VARIANTS[request.param])
    folder = str(tmp_path_factory.mktemp("model"))
    specification(model, TOKENIZER, TOKENIZER).save(folder)
    return model, ctranslate2.Translator(folder, compute_type="float32", inter_threads=1, intra_threads=1)


def searched(test):
    return pytest.mark.parametrize("both", list(SEARCHED), indirect=True)(test)


def found(translator, **options):
    """For each source its hypotheses as ids, each with its score, the log-probability of a token on average."""
    results = translator.translate_batch(
        TEXTS, return_end_token=True, return_scores=True, min_decoding_length=0, max_decoding_length=MAX_LEN, **options
    )
    return [
        [([IDS[name] for name in names], score) for names, score in zip(each.hypotheses, each.scores, strict=True)]
        for each in results
    ]


def test_log_probabilities_of_given_outputs(both):
    model, translator = both
    results = translator.score_batch(TEXTS, [[NAMES[i] for i in ids[:-1]] for ids in TARGETS])
    logits = model((pad(SOURCES), pad([[START, *ids[:-1]] for ids in TARGETS]))).numpy().astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for row, (ids, result) in enumerate(zip(TARGETS, results, strict=True)):
        assert result.tokens == [NAMES[i] for i in ids]
        ours = log_probabilities[row, np.arange(len(ids)), ids]
        np.testing.assert_allclose(result.log_probs, ours, rtol=0, atol=1e-3)


@searched
def test_greedy_tokens_and_where_they_looked(both):
    model, translator = both
    decoded = Decoder(model).greedy(pad(SOURCES), max_len=MAX_LEN, attention=True)
    outputs = [decoded.tokens[row, 0, : decoded.lengths[row, 0]].tolist() for row in range(len(SOURCES))]
    theirs = [hypotheses[0] for hypotheses in found(translator, beam_size=1)]
    for row, (ours, (tokens, score)) in enumerate(zip(outputs, theirs, strict=True)):
        if tokens[-1] == END:
            assert ours == tokens
            assert decoded.log_probabilities[row, 0] / len(ours) == pytest.approx(score, abs=1e-3)
        else:  # it stops at the limit without an end, where ours says one
            assert ours[:-1] == tokens[:-1]
    assert len(set(map(tuple, outputs))) > 15
    assert sum(len(tokens) < MAX_LEN for tokens in outputs) > 12
    looked = translator.translate_batch(
        TEXTS, beam_size=1, return_attention=True, min_decoding_length=0, max_decoding_length=MAX_LEN
    )
    for row, (text, result) in enumerate(zip(TEXTS, looked, strict=True)):
        weights = np.reshape(result.attention[0], (-1, len(text)))  # without the source's end
        ours = decoded.attention[row, 0, : len(weights), : len(text)]
        np.testing.assert_allclose(weights, ours, rtol=0, atol=1e-4)


@searched
def test_our_best_of_five_beams_is_at_least_theirs(both):
    """Both extend the same prefixes, and it stops as soon as five hypotheses have ended, whatever the live ones are."""
    model, translator = both
    decoder = Decoder(model)
    decoded = decoder.beam(pad(SOURCES), max_len=MAX_LEN, beams=5)
    theirs = found(translator, beam_size=5, num_hypotheses=5, length_penalty=1)
    rows = [row for row, hypotheses in enumerate(theirs) for _ in hypotheses]
    flat = [hypothesis for hypotheses in theirs for hypothesis in hypotheses]
    ours = decoder.score(pad(SOURCES)[rows], pad([tokens for tokens, _ in flat])).sum(axis=1)
    ours /= [len(tokens) for tokens, _ in flat]
    np.testing.assert_allclose(ours, [score for _, score in flat], rtol=0, atol=1e-3)
    ended = [row for row, hypotheses in enumerate(theirs) if all(tokens[-1] == END for tokens, _ in hypotheses)]
    assert len(ended) > 12
    for row in ended:
        best = max(score for own, score in zip(rows, ours, strict=True) if own == row)
        assert decoded.scores[row, 0] >= best - 1e-4
