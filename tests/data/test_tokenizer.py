import base64
import hashlib
import json
import subprocess
import sys
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.data import tokenizer
from dlkit.data.tokenizer import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from dlkit.data.tokenizer_options import TokenizerOptions
from dlkit.errors import DataError, UsageError
from dlkit.tasks import OF_TOKENIZER

FRENCH = WordTokenizer(["je", "pense", "donc", "suis"])
TEXT = [
    "Le chat dort sur le canapé.",
    "Où est le chat ? Il n'est pas là !",
    "Ça coûte 25 € à l'hôtel <b>, n'est-ce pas ?",
    "Je pense, donc je suis.",
    "La pluie tombe ; le vent souffle : c'est l'automne.",
] * 3
ALPHABET = sorted(set("".join(TEXT)) - {" "})
# Words of the characters of the training text, parted by single spaces.
ordinary = st.lists(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=8), max_size=8).map(" ".join)
SUBWORDS = {kind: tokenizer.train(kind, TEXT, size=120) for kind in ("unigram", "bpe")}


def test_the_special_ids_come_first():
    assert (tokenizer.PAD, tokenizer.START, tokenizer.END, tokenizer.UNKNOWN) == (0, 1, 2, 3)
    assert FRENCH.size == 8
    assert FRENCH.decode([0, 1, 3, 4]) == "<unk> je"
    for made in (FRENCH, CharacterTokenizer("ab"), *SUBWORDS.values()):
        assert made.pieces(range(4)) == ["<pad>", "<s>", "</s>", "<unk>"]
        assert made.decode([1, 0, 2, 4, 5]) == ""


def test_encodes_words_and_marks_unknown_ones():
    assert FRENCH.encode("  je\tpense,  donc\nje suis ") == [4, 3, 6, 4, 7]
    assert FRENCH.encode("je\x00suis\x1b") == [4, 7]
    assert FRENCH.encode("") == []
    assert FRENCH.unknown("on pense donc on est") == ["on", "est"]


@pytest.mark.parametrize("made", [FRENCH, *SUBWORDS.values(), CharacterTokenizer("</s>pad unk")], ids=lambda t: t.kind)
def test_text_cannot_bring_in_special_tokens(made):
    assert not {0, 1, 2} & set(made.encode("je </s> <pad> <s> <unk> \x01pad \x01end"))


def test_a_training_text_full_of_special_tokens_is_plain_text():
    texts = ["</s> <pad> <unk> <s> a"] * 10
    for kind in ("unigram", "bpe"):
        made = tokenizer.train(kind, texts, size=40)
        assert made.decode(made.encode(texts[0])) == texts[0]
        assert min(made.encode(texts[0])) > 3
    assert tokenizer.train("word", texts, size=40).words == ("a",)


def test_decoding_stops_at_the_end_token():
    assert FRENCH.decode([1, 4, 5, 2, 6, 7]) == "je pense"
    assert FRENCH.decode([2, 4]) == ""
    assert FRENCH.decode([4, 5, 0, 0]) == "je pense"
    for made in SUBWORDS.values():
        assert made.decode([1, *made.encode("le chat"), 2, *made.encode("dort"), 0]) == "le chat"


@settings(deadline=None)
@given(st.lists(st.sampled_from(FRENCH.words)).map(" ".join))
def test_what_it_encodes_it_decodes(text):
    assert FRENCH.decode(FRENCH.encode(text)) == text


@settings(deadline=None)
@given(ordinary, st.sampled_from(sorted(SUBWORDS)))
def test_pieces_of_words_put_ordinary_text_together_again(text, kind):
    made = SUBWORDS[kind]
    ids = made.encode(text)
    assert made.decode(ids) == text
    assert tokenizer.UNKNOWN not in ids
    assert "".join(made.pieces(ids)).replace("\u2581", " ").removeprefix(" ") == text
    assert made.encode_all([text, "", text]) == [ids, [], ids]


@settings(deadline=None)
@given(st.text(st.sampled_from("a b\n\tc"), max_size=20))
def test_characters_keep_all_white_space(text):
    made = CharacterTokenizer("a b\n\tc")
    assert made.decode(made.encode(text)) == text
    assert len(made.encode(text)) == len(text)


def test_a_piece_has_the_id_that_is_written_so():
    for made in SUBWORDS.values():
        ids = range(4, made.size)
        assert [made.id_of(piece) for piece in made.pieces(ids)] == list(ids)
        assert made.id_of("\x01end") == made.id_of("</s>") == made.id_of("no piece") == 3
    letters = CharacterTokenizer("ab")
    assert [letters.id_of(text) for text in ("b", "ab", "</s>", "c")] == [5, 3, 3, 3]


def test_unknown_characters_are_named():
    made = SUBWORDS["unigram"]
    assert made.unknown("le chat ☃ dort Ω") == ["☃", "Ω"]
    assert made.decode(made.encode("le ☃ dort")) == "le <unk> dort"
    assert CharacterTokenizer("ab").unknown("abcbcd") == ["c", "d"]
    assert CharacterTokenizer("ab").encode("acb") == [4, 3, 5]


def test_normalization_is_part_of_the_tokenizer():
    text = ["ab \u00a0c \ufb01n"] * 3  # a no-break space and the ligature fi
    same = tokenizer.train("bpe", text, size=30, normalization="identity")
    assert same.decode(same.encode(text[0])) == text[0]
    nfkc = tokenizer.train("bpe", text, size=30)
    assert nfkc.decode(nfkc.encode(text[0])) == "ab c fin"
    for made in (same, nfkc):
        assert made.decode(made.encode("  c   ab\tc\x07 ")) == "c ab c"


def test_what_is_no_text_does_not_stop_it():
    made = SUBWORDS["unigram"]
    assert made.decode(made.encode("le \ud800chat")) == "le chat"
    assert made.encode("") == made.encode(" \t ") == []
    assert made.decode(made.encode("chat" * 25_000)) == "chat" * 25_000


def test_lower_case_belongs_to_the_tokenizer(tmp_path):
    for kind in tokenizer.KINDS:
        made = tokenizer.train(kind, ["Le Chat DORT"] * 9, size=30, lower=True)
        made.save(tmp_path / kind)
        assert tokenizer.load(tmp_path / kind).decode(made.encode("LE chat")) == "le chat"


def test_a_vocabulary_of_words_and_characters_is_made_of_the_most_frequent():
    texts = ["b a b c", "b a d </s>"]
    assert WordTokenizer.train(texts, size=100).words == ("b", "a", "c", "d")
    assert WordTokenizer.train(texts, size=100, min_count=2).words == ("b", "a")
    assert WordTokenizer.train(texts, size=7).words == ("b", "a", "c")
    assert CharacterTokenizer.train(["aab", "abc"], size=100).characters == "abc"
    assert CharacterTokenizer.train(["aab", "abc"], size=5).characters == "a"
    # a and b make up 5 of 6 characters.
    assert CharacterTokenizer.train(["aab", "abc"], size=100, coverage=5 / 6).characters == "ab"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_same_text_gives_the_same_bytes_in_another_process(kind):
    code = (
        "import hashlib, json, sys; from dlkit.data import tokenizer\n"
        "texts = json.load(sys.stdin)\n"
        f"print(hashlib.sha256(tokenizer.train({kind!r}, texts, size=120).model).hexdigest())"
        "\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, input=json.dumps(TEXT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(SUBWORDS[kind].model).hexdigest()
    assert done.stderr == ""  # SentencePiece is silent


def test_a_vocabulary_that_does_not_hold_the_characters_says_what_would():
    with pytest.raises(UsageError, match=r"data.vocabulary 10 is less than the characters") as caught:
        tokenizer.train("bpe", TEXT, size=10)
    least = int(caught.value.hint.split()[3].rstrip(","))
    assert tokenizer.train("bpe", TEXT, size=least).size == least
    with pytest.raises(UsageError):
        tokenizer.train("bpe", TEXT, size=least - 1)


@pytest.mark.parametrize("texts", [[], [""], [" ", "\t"]])
def test_without_text_there_is_nothing_to_learn(texts):
    for kind in ("unigram", "bpe"):
        with pytest.raises(DataError, match="no text"):
            tokenizer.train(kind, texts, size=100)


def test_a_saved_tokenizer_reads_the_same(tmp_path):
    original = WordTokenizer(["ça", "l'été", '"', "\\", "語"])
    original.save(tmp_path / "tokenizer.json")
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.words == original.words
    assert loaded.encode("語 ça") == [8, 4]


@pytest.mark.parametrize("made", [FRENCH, CharacterTokenizer('a"\\\n語'), *SUBWORDS.values()], ids=lambda t: t.kind)
def test_all_kinds_are_kept_in_one_file(tmp_path, made):
    made.save(tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded == made and hash(loaded) == hash(made)
    assert (loaded.kind, loaded.size) == (made.kind, made.size)
    assert loaded.encode("Le chat n'est pas là") == made.encode("Le chat n'est pas là")
    assert loaded != WordTokenizer(["autre"])


def test_a_vocabulary_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"kind": "words", "words": ["je", "pense"]}')
    assert tokenizer.load(tmp_path / "tokenizer.json").encode("pense je") == [5, 4]


@pytest.mark.parametrize("words", [["a", "b", "a"], ["</s>"], ["a b"], [""], ["a\n"]])
def test_what_is_no_vocabulary_is_refused(words):
    with pytest.raises(DataError, match="no vocabulary"):
        WordTokenizer(words)


@pytest.mark.parametrize("characters", [["a", "b", "a"], ["ab"], [""]])
def test_what_are_no_characters_is_refused(characters):
    with pytest.raises(DataError, match="no vocabulary"):
        CharacterTokenizer(characters)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"kind": "words", "words": ["a"',
        "[]",
        "[" * 100_000,
        json.dumps({"kind": "words"}),
        json.dumps({"kind": "words", "words": "abc"}),
        json.dumps({"kind": "words", "words": ["a", 1]}),
        json.dumps({"kind": "words", "words": ["a", "a"]}),
        json.dumps({"kind": "char", "lower": False, "characters": ["a"]}),
        json.dumps({"kind": "char", "lower": False, "characters": "aa"}),
        json.dumps({"kind": "pictures", "words": ["a"]}),
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_a_data_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="is not a tokenizer"):
        tokenizer.load(path)


def written(model, checksum=None, encoded=None):
    return json.dumps({
        "kind": "bpe",
        "lower": False,
        "sha256": checksum or hashlib.sha256(model).hexdigest(),
        "model": encoded or base64.b64encode(model).decode(),
    })  # fmt: skip


def other_ids():
    """A SentencePiece model as its own defaults make it: <unk> 0, <s> 1, </s> 2, no padding."""
    import io

    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=out, vocab_size=60, model_type="bpe", minloglevel=2
    )
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        written(SUBWORDS["bpe"].model[:-100]),
        written(b""),
        written(b"no model"),
        written(SUBWORDS["bpe"].model, checksum="0" * 64),
        written(SUBWORDS["bpe"].model, encoded="no base64!"),
        written(other_ids()),
    ],
    ids=["cut", "empty", "text", "checksum", "encoding", "other ids"],
)
def test_a_damaged_or_foreign_model_is_a_data_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match="is not a tokenizer"):
        tokenizer.load(path)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_long_lines_are_learned_from_as_short_ones_are(kind):
    """SentencePiece would pass over a line of so many bytes."""
    document = " ".join(TEXT * 9)
    assert len(document.encode()) > 4192
    of_long, of_short = tokenizer.train(kind, [document], size=100), tokenizer.train(kind, TEXT * 9, size=100)
    assert of_long.unknown(document) == []
    assert len(of_long.encode(document)) < 0.8 * len(document), "it has learned pieces of several characters"
    if kind == "bpe":
        assert of_long == of_short, "it learns from words; the unigram kind draws its candidates from whole lines"
    mixed = tokenizer.train(kind, [document, "Zut!"], size=100)
    assert mixed.unknown(f"{document} Zut!") == []


def test_a_long_line_is_cut_between_words(monkeypatch):
    """As far as there are spaces; nothing is lost."""
    import sentencepiece

    def train(*, sentence_iterator, **_):
        given.extend(sentence_iterator)
        raise RuntimeError("enough")

    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", train)
    text, given = f"{'w' * 2500} {'abcdef ' * 500}end", []
    with pytest.raises(RuntimeError, match="enough"):
        tokenizer.train("bpe", [text], size=100)
    assert "".join(given) == text
    assert max(len(part.encode()) for part in given) <= 4192
    assert {word for part in given for word in part.split()} == {"w" * 1000, "w" * 500, "abcdef", "end"}


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_text_without_spaces_is_learned_from_to_its_end(kind):
    text = "ab" * 3000 + "c"
    made = tokenizer.train(kind, [text, "d"], size=30)
    assert made.unknown("a b c d") == []
    assert made.decode(made.encode(text)) == text
    assert len(made.encode(text)) < 2000, "it has learned longer pieces"


def test_options_make_the_tokenizer_that_they_name():
    assert TokenizerOptions(min_count=2, lower=True).train(["A b a", "B c"]).words == ("a", "b")
    assert TokenizerOptions(tokenizer="char", lower=True, coverage=0.91).train(["A" * 99 + "b"]).characters == "a"
    made = TokenizerOptions(tokenizer="bpe", vocabulary=60, normalization="identity").train(TEXT)
    assert (made.kind, made.lower) == ("bpe", False)
    assert made.model == tokenizer.train("bpe", TEXT, size=60, normalization="identity").model


def test_the_files_of_a_run_settle_all_that_a_tokenizer_is_made_by():
    """The table of tasks is read without a tokenizer's module."""
    assert tuple(f"data.{field.name}" for field in fields(TokenizerOptions)) == OF_TOKENIZER


def test_foreign_ids_are_named():
    with pytest.raises(DataError, match=r"other special ids: \[-1, 1, 2, 0\]"):
        SubwordTokenizer(other_ids(), kind="bpe")


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot read the tokenizer .*: No such file"):
        tokenizer.load(tmp_path / "tokenizer.json")
