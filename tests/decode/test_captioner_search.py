"""Searches with a captioner: beam search with beams enough finds the best of all captions there are."""

import keras
import numpy as np
import pytest
from search_oracle import END, every_sequence, forced_scores, normalized, sequences

from dlkit.decode.decoder import Decoder
from dlkit.errors import UsageError
from dlkit.models.captioner import captioner
from dlkit.models.captioner_attention import captioner_attention

WORDS, MAX_LEN = 6, 4
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)


@pytest.fixture(scope="module", params=[captioner, captioner_attention], ids=lambda build: build.__name__)
def model(request):
    keras.utils.set_random_seed(1)
    return request.param((16, 16, 1), WORDS, encoder="lenet", width=5, init="gaussian:1.5")


@pytest.fixture(scope="module")
def best(model):
    """Of each image every caption with its score, the best first."""
    everything = list(every_sequence(WORDS, MAX_LEN))
    padded = np.array([[*tokens, *[0] * (MAX_LEN - len(tokens))] for tokens in everything], np.int32)
    found = []
    for image in IMAGES:
        scores = forced_scores(model, np.repeat(image[None], len(padded), axis=0), padded).sum(1)
        # At the most tokens the end is forced, and scored as it is.
        found.append(
            sorted(((normalized(s, len(t), "avg"), t) for s, t in zip(scores, everything, strict=True)), reverse=True)
        )
    return found


def test_a_wide_beam_is_exhaustive(model, best):
    decoded = Decoder(model).beam(IMAGES, max_len=MAX_LEN, beams=80, n_best=5)
    for row, ranked in enumerate(best):
        assert sequences(decoded, row) == [tokens for _, tokens in ranked[:5]]
        np.testing.assert_allclose(decoded.scores[row], [score for score, _ in ranked[:5]], atol=1e-4)


def test_one_beam_is_greedy_and_rows_do_not_depend_on_each_other(model):
    decoder = Decoder(model)
    greedy, one = (decoder.greedy(IMAGES, max_len=MAX_LEN), decoder.beam(IMAGES, max_len=MAX_LEN, beams=1))
    for row in range(3):
        alone = decoder.beam(IMAGES[row : row + 1], max_len=MAX_LEN, beams=1)
        assert sequences(greedy, row) == sequences(one, row) == sequences(alone, 0)
        assert sequences(one, row)[0][-1] == END


def test_attention_is_over_the_places_of_the_image(model):
    if not hasattr(model, "grid"):
        with pytest.raises(UsageError, match="no attention"):
            Decoder(model).beam(IMAGES, max_len=MAX_LEN, beams=3, attention=True)
        return
    decoded = Decoder(model).beam(IMAGES, max_len=MAX_LEN, beams=3, attention=True)
    assert decoded.attention.shape[-1] == np.prod(model.grid) == 1
