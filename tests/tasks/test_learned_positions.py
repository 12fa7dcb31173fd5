"""A model with a table of positions reads and writes no more than the table has rows, and says so itself."""

import keras
import pytest

from dlkit.data.tokenizer import WordTokenizer
from dlkit.errors import DataError
from dlkit.models.transformer import transformer
from dlkit.tasks.translator import Search, Translator

ROWS = 10  # no multiple of the steps that lengths are padded to


@pytest.fixture(scope="module")
def translator():
    keras.utils.set_random_seed(0)  # its weights write some words
    tokenizer = WordTokenizer("abcdefgh")
    model = transformer(tokenizer.size, tokenizer.size, layers=1, width=8, positions="learned", max_length=ROWS)
    return Translator([model], [(tokenizer, tokenizer)], max_len=100)


def test_the_longest_input_fits_and_one_more_is_told(translator):
    fits, too_long = " ".join("abcdefgha"), " ".join("abcdefghab")  # with the end token 10 and 11
    first, second = translator.each([[fits, too_long]], Search(beams=2))
    assert first.hypotheses[0].text
    assert isinstance(second, DataError)
    assert second.message == "line 2 has 11 tokens, and at most 10 are read at once"


@pytest.mark.parametrize("search", [Search(beams=2), Search(method="greedy"), Search(method="sample", top_k=3)])
def test_no_output_is_longer_than_the_table(translator, search):
    search = Search(**{**search.__dict__, "min_len": 50, "max_len": 60})
    (found,) = translator.each([["a b c"]], search)
    assert len(found.hypotheses[0].ids) == ROWS


def test_scores_of_the_longest_pair(translator):
    longest, longer = " ".join("abcdefgha"), " ".join("abcdefghab")
    first, second = translator.score([[("a", longest), ("a", longer)]])
    assert len(first.log_probabilities) == ROWS
    assert isinstance(second, DataError)
