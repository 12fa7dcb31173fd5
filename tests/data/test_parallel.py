import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit import data
from dlkit.data.parallel import is_parallel, is_undivided, parallel
from dlkit.data.text_files import read_lines
from dlkit.data.tokenizer import WordTokenizer
from dlkit.errors import DataError, DlkitError, UsageError

EN, DE = ["a dog", "a cat", "two birds"], ["ein Hund", "eine Katze", "zwei Vögel"]


def write(path, lines, *, end="\n", bom=False):
    content = (b"\xef\xbb\xbf" if bom else b"") + "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for split, suffix in (("train", ""), ("val", ".gz"), ("test_2016_flickr", "")):
        write(tmp_path / f"{split}.en{suffix}", [f"{split} {line}" for line in EN])
        write(tmp_path / f"{split}.de{suffix}", [f"{split} {line}" for line in DE])
    return tmp_path


def texts(loaded, split="train"):
    return list(zip(loaded.texts[split].source, loaded.texts[split].target, strict=True))


def failure(*args, **options):
    with pytest.raises(DlkitError) as caught:
        parallel(*map(str, args), **options)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


# ------------------------------------------------------------------------------------------------------------- folders


def test_a_folder_of_texts(folder):
    loaded = data.load(str(folder), source="en", target="de")
    assert loaded.languages == ("en", "de")
    assert list(loaded.texts) == ["train", "validation", "test"]
    assert texts(loaded) == [(f"train {a}", f"train {b}") for a, b in zip(EN, DE, strict=True)]
    assert texts(loaded, "validation")[2] == ("val two birds", "val zwei Vögel")
    assert texts(loaded, "test")[0] == ("test_2016_flickr a dog", "test_2016_flickr ein Hund")
    assert texts(data.load(str(folder), source="de"))[0] == ("train ein Hund", "train a dog")


@pytest.mark.parametrize(
    ("stems", "splits"),
    [
        (["training", "valid"], ["train", "validation"]),
        (["train", "dev", "newstest2014"], ["train", "validation", "test"]),
        (["Train", "validation", "test", "test_hard"], ["train", "validation", "test", "test_hard"]),
        (["train", "val", "test_2016", "test_2017"], ["train", "validation", "test_2016", "test_2017"]),
    ],
)
def test_names_of_splits(tmp_path, stems, splits):
    for stem in stems:
        write(tmp_path / f"{stem}.en", [stem])
        write(tmp_path / f"{stem}.pt-BR", [stem])
    loaded = parallel(str(tmp_path), source="en")
    assert loaded.languages == ("en", "pt-BR")
    assert sorted(loaded.texts) == sorted(splits)
    assert all(set(pairs) <= {(stem, stem) for stem in stems} for pairs in (texts(loaded, split) for split in splits))


def test_other_files_are_told(folder):
    for name in ("extra.en", "extra.de", "README.md", "train.txt"):
        write(folder / name, ["x"])
    loaded = parallel(str(folder), source="en")
    assert loaded.notes == ("left out extra.de, extra.en: no split is called so",)
    assert loaded.languages == ("en", "de")


def test_a_third_language_concerns_only_those_who_ask_for_it(folder):
    write(folder / "train.fr", ["un chien", "un chat", "deux oiseaux"])
    assert list(parallel(str(folder), source="en", target="de").texts) == ["train", "validation", "test"]
    assert "has de, en, fr" in failure(folder, source="en").message
    assert "has val.en.gz but no val.fr" in failure(folder, source="fr", target="en").message
    for name in ("val.en.gz", "test_2016_flickr.en"):
        (folder / name).unlink()
    (folder / "val.de.gz").unlink()
    assert list(parallel(str(folder), source="fr", target="en", validation=0).texts) == ["train"]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({}, "data.source and data.target are missing: {} has de, en", "--source en --target de"),
        ({"source": "fr"}, "{} has no texts in fr", "has de, en"),
        ({"source": "en", "target": "deu"}, "{} has no texts in deu", "did you mean de?"),
        ({"source": "en", "target": "en"}, "source and target are both en", "two languages"),
        ({"source": "en", "validation": 5}, "data.validation is for data without such a split", "leave it out"),
        ({"source": "en", "test_file": "a.tsv"}, "data.validation_file and data.test_file are not for folders", "own"),
    ],
)
def test_languages_and_options_that_do_not_fit(folder, options, message, hint):
    told = failure(folder, **options)
    assert message.format(folder) in told.message
    assert hint in told.hint


def test_both_languages_of_a_split_have_to_be_there(folder):
    (folder / "val.de.gz").unlink()
    assert f"{folder} has val.en.gz but no val.de" in failure(folder, source="en").message


def test_the_same_text_twice(folder):
    write(folder / "train.en.gz", EN)
    assert "twice, plain and compressed" in failure(folder, source="en").message
    (folder / "train.en.gz").unlink()
    write(folder / "valid.en", EN)
    assert "val and valid are the same split" in failure(folder, source="en").message


def test_missing_places(tmp_path):
    assert "no such folder" in failure(tmp_path / "nowhere").message
    assert "no texts to train on" in failure(tmp_path).message


# --------------------------------------------------------------------------------------------------------------- files


def test_two_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.en", EN)
    write(tmp_path / "t.de.gz", DE, end="\r\n", bom=True)
    write(tmp_path / "v.tsv", ["v\tw"])
    loaded = data.load("t.en, t.de.gz", validation_file="v.tsv", test_file="t.en,t.de.gz")
    assert loaded.languages == ("en", "de")
    assert texts(loaded) == texts(loaded, "test") == list(zip(EN, DE, strict=True))
    assert texts(loaded, "validation") == [("v", "w")]
    assert "`t.de.gz,t.en` is the other way" in failure("t.en,t.de.gz", source="de").hint


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.TXT", "pairs.tsv.gz"])
def test_a_table(tmp_path, name):
    path = write(tmp_path / name, [f"{a}\t{b}" for a, b in zip(EN, DE, strict=True)], end="\r\n", bom=True)
    if not name.endswith("TXT"):
        assert texts(data.load(path, split="random", validation=0, test=0)) == list(zip(EN, DE, strict=True))
    assert texts(parallel(path, source="2", validation=0, test=0)) == list(zip(DE, EN, strict=True))


def test_columns_of_a_wider_table(tmp_path):
    path = write(tmp_path / "pairs.tsv", ["1\ta dog\tein Hund", "2\ta cat\teine Katze"])
    told = failure(path)
    assert told.message == f"{path} line 1 has 3 columns, not 2"
    assert "--source 1 --target 2" in told.hint
    assert texts(parallel(path, source="3", target="2", validation=0, test=0)) == [
        ("ein Hund", "a dog"),
        ("eine Katze", "a cat"),
    ]
    assert texts(data.load(path, source=3, target="2", validation=0, test=0))[0] == ("ein Hund", "a dog"), (
        "a number, too"
    )
    assert "line 1 has 3 columns, and column 4" in failure(path, source="4", target="1").message
    assert "number of a column, not en" in failure(path, source="en").message
    assert "both column 2" in failure(path, source="2", target="2").message


def test_the_line_with_other_columns_is_named(tmp_path):
    path = write(tmp_path / "pairs.tsv", ["a\tb", "", "c", "d\te"])
    told = failure(path)
    assert told.message == f"{path} line 3 has 1 column, not 2"
    write(tmp_path / "pairs.tsv", ["a\tb", "", "c\t", "\tb"])
    loaded = parallel(path, tokenizer="char", validation=0, test=0)
    assert texts(loaded) == [("a", "b"), ("", ""), ("c", ""), ("", "b")]
    assert loaded.report.dropped["with an empty side"] == 3


def test_files_of_different_length_are_named_with_both_counts(tmp_path):
    a, b = write(tmp_path / "a.en", ["x"] * 1200), write(tmp_path / "a.de", ["x"] * 1199)
    told = failure(f"{a},{b}")
    assert isinstance(told, DataError)
    assert told.message == f"{a} has 1,200 lines but {b} has 1,199"


def test_what_is_no_utf8_is_told_with_its_line(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes("é\tb\nc\td\ne\t".encode() + b"\xe9\nf\tg\n")
    assert failure(path).message == f"{path} line 3 is not UTF-8"
    path.write_bytes("a\tb\n".encode("utf-16"))
    assert failure(path).message == f"{path} line 1 is not UTF-8"


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-9], lambda c: c[: len(c) // 2], lambda c: b"plain\ttext", lambda c: c[:30] + b"xxxx" + c[34:]],
)
def test_a_damaged_gz_is_a_data_error(tmp_path, damage):
    path = tmp_path / "a.tsv.gz"
    content = gzip.compress("".join(f"{i * 7919}\tb{i}\n" for i in range(500)).encode())
    path.write_bytes(damage(content))
    assert failure(path).message == f"{path} is no whole gzip file"


def test_missing_and_unreadable_files(tmp_path):
    assert failure(tmp_path / "a.tsv").message == f"no such file: {tmp_path}/a.tsv"
    (tmp_path / "b.tsv").mkdir()
    assert "is a directory" in failure(tmp_path / "b.tsv").message
    assert "no such file" in failure(f"{tmp_path}/x.en,{tmp_path}/x.de").message


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))), st.booleans(), st.booleans()
)
def test_only_line_feeds_end_lines(tmp_path_factory, lines, crlf, last_end):
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    end = "\r\n" if crlf else "\n"
    content = end.join(lines) + (end if last_end and lines else "")
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    expected = lines if last_end or (lines and lines[-1]) else lines[:-1]
    assert read_lines(path) == expected


def test_odd_characters_move_no_line(tmp_path):
    odd = ["a\x0bb", "c\x0cd", "e\x1cf", "g\x85h", "i\u2028j", "k\u2029l", "m\x00n", "o\rp", "\x1b[31mq"]
    path = write(tmp_path / "a.en", odd)
    loaded = parallel(f"{path},{path}", tokenizer="word", min_count=1, validation=0, test=0)
    assert texts(loaded) == list(zip(odd, odd, strict=True))
    assert "7 training pairs with control characters" in loaded.report.lines()
    assert loaded.source_tokenizer.encode("m\x00n") == loaded.source_tokenizer.encode("m n")


def test_a_line_of_100000_characters(tmp_path):
    lines = [*("word " + str(i) for i in range(50)), "w" * 100_000, "word " * 20_000]
    path = write(tmp_path / "a.en", lines)
    for kind in ("bpe", "char", "word"):
        loaded = parallel(f"{path},{path}", tokenizer=kind, vocabulary=60, validation=0, test=0, max_length=1000)
        assert len(loaded.splits["train"]) == {"bpe": 50, "char": 50, "word": 51}[kind]


# --------------------------------------------------------------------------------------------------- parts and dispatch


def test_parts_are_held_out_of_files_without(tmp_path):
    path = write(tmp_path / "a.tsv", [f"a{i} b c d e\tx{i} y" for i in range(200)])
    loaded = parallel(path, split="random")
    assert {name: len(part) for name, part in loaded.texts.items()} == {"train": 180, "validation": 10, "test": 10}
    loaded = parallel(path, split="random", validation=0.1, test=0)
    assert {name: len(part) for name, part in loaded.texts.items()} == {"train": 180, "validation": 20}
    tested = parallel(path, split="random", test_file=path)
    assert {name: len(part) for name, part in tested.texts.items()} == {"train": 190, "validation": 10, "test": 200}


def test_a_test_part_is_held_out_when_it_is_asked_for(tmp_path):
    sides = [f"a{i} b{i} c{i}" for i in range(200)], [f"x{i} y" for i in range(200)]
    for language, lines in zip(("en", "de"), sides, strict=True):
        write(tmp_path / f"train.{language}", lines)
        write(tmp_path / f"val.{language}", lines[:7])
    divided = parallel(str(tmp_path), source="en", test=30, split="random")
    assert {name: len(part) for name, part in divided.texts.items()} == {"train": 170, "validation": 7, "test": 30}
    assert texts(divided, "validation") == list(zip(*(side[:7] for side in sides), strict=True))
    assert sorted(texts(divided) + texts(divided, "test")) == sorted(zip(*sides, strict=True))
    others = parallel(str(tmp_path), source="en", test=0.1, split="random", seed=1)
    assert len(others.texts["test"]) == 20
    for options in ({}, {"test": 0}, {"validation": 0}):
        assert list(parallel(str(tmp_path), source="en", **options).texts) == ["train", "validation"]


@pytest.mark.parametrize(("option", "value"), [("split", "random"), ("seed", 1)])
def test_how_to_divide_what_is_divided_is_refused(folder, option, value):
    told = failure(folder, source="en", **{option: value})
    assert told.message == f"data.{option} changes nothing: the data have the splits train, validation, test"
    assert told.hint == "leave it out"


def test_all_pairs_of_a_folder_without_splits_are_for_tests(folder):
    told = failure(folder, source="en", test="all")
    assert told.message == "data.test=all is for data without splits, not train, validation, test"
    for path in [*folder.glob("val*"), *folder.glob("test*")]:
        path.unlink()
    write(folder / "extra.en", EN)
    loaded = data.load(str(folder), source="en", test="all", tokenizer="word")
    assert list(loaded.texts) == ["test"]
    assert texts(loaded, "test") == [(f"train {a}", f"train {b}") for a, b in zip(EN, DE, strict=True)]
    with pytest.raises(UsageError, match="has nothing to train on: it has only test"):
        _ = loaded.splits
    words = WordTokenizer(["a", "dog", "train"])
    known = loaded.with_tokenizers(words, words)
    assert list(known.splits) == ["test"]
    assert known.splits["test"].source[0].tolist() == [6, 4, 5]
    assert (known.report.read, known.report.dropped, known.report.unknown_pieces) == (0, {}, [])


def test_what_says_itself_what_is_for_tests(folder, tmp_path_factory):
    table = write(tmp_path_factory.mktemp("table") / "pairs.tsv", ["a\tb"])
    assert not any(
        map(is_undivided, [str(folder), table, f"{folder}/train.en,{folder}/train.de", "digits", "./nowhere"])
    )
    (folder / "test_2016_flickr.en").unlink()
    (folder / "test_2016_flickr.de").unlink()
    assert not is_undivided(str(folder)), "it has texts to validate on"
    (folder / "val.en.gz").unlink()
    (folder / "val.de.gz").unlink()
    write(folder / "extra.en", EN)
    assert is_undivided(str(folder))


def test_what_means_parallel_texts(folder, tmp_path_factory, monkeypatch):
    images = tmp_path_factory.mktemp("images")
    (images / "train" / "cat").mkdir(parents=True)
    for name in ("train.csv", "labels.csv", "train.zip", "train.tsv"):
        (images / name).touch()
    assert is_parallel(str(folder))
    assert is_parallel("nowhere/pairs.tsv.gz")
    assert is_parallel("a.en,b.de")
    assert not is_parallel(str(images))
    assert not any(map(is_parallel, ["digits", "cifar10:3.0.2", "imagenette/160px-v2", "a,", "a,b,c", "./nowhere"]))
    strange = images / "a,b"
    strange.mkdir()
    assert not is_parallel(str(strange))
    assert data.builder(str(folder)).func is data.builder("a.txt").func is parallel
    assert data.builder(str(images)).func.__name__ == "folder"


def test_options_are_those_of_the_recipe(folder):
    with pytest.raises(UsageError, match="data.tokenizer must be one of unigram, bpe, word, char"):
        data.load(str(folder), tokenizer="wordpiece")
    with pytest.raises(UsageError, match="unknown key: data.vocabluary"):
        data.load(str(folder), vocabluary=100)
