"""`dlkit evaluate` of translators: figures against sacrebleu and arithmetic, outputs against `translate`."""

import json
import shutil

import numpy as np
import pytest
import sacrebleu
from matplotlib.figure import Figure

from dlkit import recipe, runs, runtime
from dlkit.cli import main
from dlkit.errors import DataError
from dlkit.probe import translation
from dlkit.recipe import DecodeSection
from dlkit.tasks import translator
from dlkit.tasks.translation import Translation
from dlkit.train import checkpoints, start, translation_quality, translator_ensembles
from dlkit.train.ensembles import evaluate_ensemble
from dlkit.train.evaluation import Evaluation
from dlkit.train.run_evaluation import Candidate
from dlkit.train.setting import Setting

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TEST = [
    (f"Le chat {number} dort.", f"The cat number {number} sleeps" + " well" * (at % 3) + ".")
    for at, number in enumerate(NUMBERS)
]


def write_table(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table to train on and one to test on."""
    root = tmp_path_factory.mktemp("texts")
    write_table(root / "train.tsv", [(f"Le {a} {b}.", f"The {a} {b}.") for a in NUMBERS for b in NUMBERS])
    write_table(root / "test.tsv", TEST)
    return root


def saved(folder, name, *sets, data=None, weights=1.0, seed=0):
    """A run of a small net with random weights."""
    overrides = [("train.seed", str(seed), "set"), ("model.width", "16", "set"), ("model.layers", "1", "set")]
    if data is None:
        data = str(folder / "train.tsv")
        overrides += [("data.test_file", str(folder / "test.tsv"), "set"), ("data.tokenizer", "char", "set")]
    overrides += [(*text.split("=", 1), "set") for text in sets]
    prepared = start.prepare(recipe.resolve("seq2seq", data, overrides=overrides))
    task = prepared.task
    info = {"task": prepared.recipe.task, "data": task.info, "model_arguments": task.model_arguments()}
    run = runs.create(folder, prepared.recipe, info, name=name, prepare=task.save)
    arrays = {path: np.asarray(variable) * weights for path, variable in runs.named_variables(prepared.model).items()}
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": arrays}, {"step": 1})
    run.point("best", "step-1")
    return run.path


@pytest.fixture(scope="module")
def random(folder):
    """A net that babbles, so much that searches differ."""
    return saved(folder, "random", "decode.max_len=20", "decode.beams=3", "data.lower=true", weights=3.0)


@pytest.fixture(scope="module")
def first(folder):
    return saved(folder, "first")


@pytest.fixture(scope="module")
def second(folder):
    """Reads the same texts in other pieces."""
    return saved(folder, "second", "data.tokenizer=word", "data.min_count=1", seed=1)


@pytest.fixture
def scripted(monkeypatch):
    """Lets runs write what the test says, a list for each run's name, and have a loss of 1.5; notes their searches."""
    script, searches = {}, []

    def outputs(self, model, split, search, *, batch_size, translator=None):
        searches.append((self.folder.name, search, batch_size))
        yield from script[self.folder.name][: self.size(split)]

    monkeypatch.setattr(Translation, "outputs", outputs)
    monkeypatch.setattr(Evaluation, "__call__", lambda self, split, *, decode: {"loss": 1.5, "accuracy": 0.75})
    script["searches"] = searches
    return script


def cells(out):
    return [[line.split() for line in table.splitlines()] for table in out.split("\n\n")]


REFERENCES = [target for _, target in TEST]
WORSE = [text.replace("number", "no") for text in REFERENCES]

# -------------------------------------------------------------------------------------------------------------- figures


def test_outputs_are_those_of_translate_and_figures_those_of_sacrebleu(random, as_json, capsys, tmp_path):
    """With the settings of the recipe, which translate takes, too, and with others, in other batches."""
    (tmp_path / "sources").write_text("".join(f"{source}\n" for source, _ in TEST), encoding="utf-8")
    seen = set()
    for flags in ([], ["--beam", "4", "--length-norm", "gnmt", "--alpha", "2", "--max-len", "9"]):
        translate = ["translate", "--model", str(random), "--file", str(tmp_path / "sources"), *flags, "-q"]
        assert main(translate) == 0
        expected = capsys.readouterr().out.splitlines()
        seen.add(tuple(expected))
        batch = ["--batch-size", "7"] if flags else []
        found = as_json(random, "-o", tmp_path / "out", *flags, *batch)
        assert (tmp_path / "out").read_text(encoding="utf-8").split("\n") == [*expected, ""]
        assert found["output"] == str(tmp_path / "out")
        bleu, chrf = sacrebleu.corpus_bleu(expected, [REFERENCES]), sacrebleu.corpus_chrf(expected, [REFERENCES])
        assert found["bleu"] == pytest.approx(bleu.score)
        assert found["chrf"] == pytest.approx(chrf.score)
        assert found["exact"] == 0
    assert len(seen) == 2, "the searches find different outputs"
    assert found["search"] == {"beams": 4, "length_norm": "gnmt", "alpha": 2, "max_len": 9}


def test_translate_scores_as_the_run_or_the_flags_say(random, folder, capsys):
    """By L, or by ((5 + L) / 6)^2 with L tokens, the end included."""
    gnmt = folder / "gnmt"
    shutil.copytree(random, gnmt)
    text = (gnmt / "recipe.toml").read_text()
    section = '[decode]\nmax_len = 9\nlength_norm = "gnmt"\nalpha = 2.0\n'
    (gnmt / "recipe.toml").write_text(text[: text.index("[decode]")] + section)
    for run, flags, squared in ((random, [], False), (gnmt, [], True), (gnmt, ["--length-norm", "avg"], False)):
        assert main(["translate", "le chat", "--model", str(run), "--json", "-q", *flags]) == 0
        best = json.loads(capsys.readouterr().out)["hypotheses"][0]
        length = len(best["tokens"])
        divisor = ((5 + length) / 6) ** 2 if squared else length
        assert length > 1
        assert best["score"] == pytest.approx(best["log_probability"] / divisor, rel=1e-4)


def test_the_loss_is_that_of_training(random, as_json):
    from dlkit import runtime
    from dlkit.tasks.task import open_task

    run = runs.open_run(random)
    task = open_task(run.task, run.recipe["data"], info=run.info["data"], folder=run.path, max_len=20)
    whole = Evaluation(task, runs.load_model(random), runtime.devices("cpu"), batch_size=4)("test")
    found = as_json(random, "--beam", "1")
    assert (found["loss"], found["accuracy"]) == pytest.approx((whole["loss"], whole["accuracy"]), rel=1e-6)
    assert {name: found[name] for name in ("exact", "bleu", "chrf")} == {
        name: whole[name] for name in ("exact", "bleu", "chrf")
    }, "training decodes greedily"


def test_what_a_reader_sees(scripted, first, evaluate):
    """Two of ten exact, by Wilson (2 + z^2 / 2) / (10 + z^2) +- 0.2268; lengths of references: 5, 6 and 7 words."""
    scripted["first"] = REFERENCES[:2] + WORSE[2:]
    code, out, error = evaluate(first)
    assert code == 0
    metrics, by_length = cells(out)
    assert metrics[1:4] == [
        ["loss", "1.5000"], ["token", "accuracy", "75.00", "%"],
        ["exact", "20.00", "%", "5.67", "to", "50.98", "%", "2", "of", "10"],
    ]  # fmt: skip
    bleu = sacrebleu.corpus_bleu(scripted["first"], [REFERENCES]).score
    assert metrics[4][:2] == ["BLEU", f"{bleu:.2f}"]
    assert [row[0] for row in metrics] == ["metric", "loss", "token", "exact", "BLEU", "chrF"]
    assert " ".join(by_length[0]) == "words of reference sentences exact BLEU chrF length ratio"
    assert [row[:2] + row[-1:] for row in by_length[1:]] == [["5", "4", "1.00"], ["6", "3", "1.00"], ["7", "3", "1.00"]]
    where, search, *signatures = error.splitlines()
    assert where == f"{first}/checkpoints/step-1, raw weights, 10 examples of {first.parent / 'train.tsv'}, test"
    assert search == "search 5 beams, length norm avg, at most 100 tokens"
    assert signatures[0].startswith("BLEU nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signatures[1].startswith("chrF nrefs:1|bs:1000|")
    assert evaluate(first, "--beam", "1")[2].splitlines()[1] == "search greedy, at most 100 tokens"
    low, high = map(float, (metrics[4][2], metrics[4][4]))
    assert low < bleu < high


def test_case_is_left_out_when_told(scripted, first, as_json):
    scripted["first"] = [text.upper() for text in REFERENCES]
    assert as_json(first)["bleu"] < 10
    found = as_json(first, "--lowercase")
    assert found["bleu"] == pytest.approx(100)
    assert "case:lc" in found["signatures"]["bleu"]
    assert all(record["bleu"] == pytest.approx(100) for record in found["by_length"])


def test_the_run_says_how_to_search_and_an_old_one_gets_the_defaults(scripted, random, folder, as_json):
    scripted["random"] = scripted["old"] = REFERENCES
    old = folder / "old"
    shutil.copytree(random, old)
    text = (old / "recipe.toml").read_text()
    (old / "recipe.toml").write_text(text[: text.index("[decode]")] + "[decode]\nmax_len = 7\n")
    assert as_json(random)["search"] == {"beams": 3, "length_norm": "avg", "alpha": 0.6, "max_len": 20}
    assert as_json(old)["search"] == {"beams": 5, "length_norm": "avg", "alpha": 0.6, "max_len": 7}
    assert as_json(old, "--beam", "1", "--limit", "4", "--batch-size", "8")["examples"] == 4
    as_json(old, "--length-norm", "gnmt", "--alpha", "2")
    (_, with_three, rows), (_, with_five, _), (_, greedy, all_rows), (_, with_gnmt, _) = scripted["searches"]
    assert (with_five.length_norm, with_gnmt.length_norm, with_gnmt.alpha) == ("avg", "gnmt", 2)
    assert (with_three.method, with_three.beams, with_three.max_len) == ("beam", 3, 20)
    assert (with_five.method, with_five.beams, with_five.max_len) == ("beam", 5, 7)
    assert greedy.method == "greedy"
    assert (rows, all_rows) == (256 // 3, 8), "so many hypotheses at a time, not sentences"


def test_letters_are_exact_or_not(scripted, tmp_path, evaluate, as_json):
    letters = ["data.train=20", "data.validation=5", "data.test=4", "data.length=3"]
    run = saved(tmp_path, "letters", *letters, data="synthetic:copy")
    other = saved(tmp_path, "other", *letters, data="synthetic:copy", seed=1)
    targets = runs_texts(run)
    scripted["letters"], scripted["other"] = [*targets[:3], "z"], [targets[0], "z", "z", "z"]
    code, out, _ = evaluate(run)
    assert code == 0
    measured, by_length = cells(out)
    assert [row[0] for row in measured] == ["metric", "loss", "token", "exact"]
    assert " ".join(by_length[0]) == "words of reference sentences exact length ratio"
    found = as_json(run)
    assert found["exact"] == 0.75
    assert sum(record["exact"] * record["sentences"] for record in found["by_length"]) == 3
    found = as_json(run, other)
    assert (found["paired"]["only_first"], found["paired"]["both_wrong"]) == (2, 1)
    assert found["paired"]["p_value"] == 0.5, "two coins that fall alike"
    assert "difference in exact" in evaluate(run, other)[1]


def test_runs_side_by_side_by_length_as_table_and_picture(scripted, first, second, evaluate, monkeypatch, tmp_path):
    scripted["first"] = [text if len(text.split()) == 5 else "no" for text in REFERENCES]
    scripted["second"] = [text if len(text.split()) > 5 else "no" for text in REFERENCES]
    drawn = {}
    monkeypatch.setattr(
        translation, "by_length", lambda *args, **options: drawn.update(args=args, **options) or Figure()
    )
    picture = tmp_path / "lengths.png"
    code, out, error = evaluate(first, second, "--png", picture)
    assert code == 0, error
    by_length = cells(out)[1]
    assert [row[0] for row in by_length[1:]] == ["5", "6", "7"]
    assert [row[2:] for row in by_length[1:]] == [["100.00", "0.00"], ["0.00", "100.00"], ["0.00", "100.00"]]
    assert picture.read_bytes().startswith(b"\x89PNG")
    lengths, values = drawn["args"]
    assert lengths == [(5, 5), (6, 6), (7, 7)]
    assert [np.round(series).tolist() for series in values.values()] == [[100, 0, 0], [0, 100, 100]]
    assert list(values) == [str(first), str(second)]


def runs_texts(path):
    from dlkit.tasks.task import open_task

    run = runs.open_run(path)
    return open_task(run.task, run.recipe["data"], info=run.info["data"], folder=path).texts("test").target


def test_a_file_is_whole_or_not_there(monkeypatch, first, evaluate, tmp_path):
    def outputs(self, model, split, search, *, batch_size, translator=None):
        yield "one"
        raise DataError("broken off")

    monkeypatch.setattr(Translation, "outputs", outputs)
    monkeypatch.setattr(Evaluation, "__call__", lambda self, split, *, decode: {"loss": 1.5, "accuracy": 0.75})
    assert evaluate(first, "-o", tmp_path / "out")[0] == 3
    assert list(tmp_path.iterdir()) == []


def test_where_a_file_cannot_be_is_said_before_any_work(monkeypatch, first, evaluate, tmp_path):
    monkeypatch.setattr(Evaluation, "__call__", lambda *_, **__: pytest.fail("it is too late"))
    for place, words in ((tmp_path, "it is a folder"), (tmp_path / "none" / "out", "there is no folder")):
        code, _, error = evaluate(first, "-o", place)
        assert code == 2
        assert words in error


# ----------------------------------------------------------------------------------------------------------- other data


def test_a_table_is_tested_on_as_a_whole_in_its_order(scripted, first, as_json, folder, tmp_path):
    """Also pairs that training would drop: a double, and one that is far too long."""
    pairs = [("a", "b c d e"), ("a", "b c d e"), ("x " * 300, "y " * 300), ("f", "g h i j")]
    scripted["first"] = ["b c d e", "b c d e", "no", "g h i j"]
    found = as_json(first, "--data", write_table(tmp_path / "other.tsv", pairs))
    assert (found["data"], found["split"], found["examples"]) == (str(tmp_path / "other.tsv"), "test", 4)
    assert found["exact"] == 0.75
    scripted["first"] = ["y " * 300]
    assert as_json(first, "--data", write_table(tmp_path / "long.tsv", pairs[2:3]))["exact"] == 1
    scripted["first"] = ["b c d e", "b c d e", "no", "g h i j"]
    swapped = write_table(tmp_path / "swapped.tsv", [(target, source) for source, target in pairs])
    assert as_json(first, "--data", swapped, "--source", "2", "--target", "1")["exact"] == 0.75
    (tmp_path / "x.fr").write_text("a\nb\n")
    (tmp_path / "x.en").write_text("b c d e\nB\n")
    assert as_json(first, "--data", f"{tmp_path / 'x.fr'},{tmp_path / 'x.en'}")["exact"] == 0.5


def test_columns_are_those_of_the_table_of_the_run(scripted, folder, as_json, tmp_path):
    table = write_table(tmp_path / "x.tsv", [("b c d e", "a"), ("g h i j", "f")])
    run = saved(folder, "backwards", 'data.source="2"', 'data.target="1"')
    scripted["backwards"] = ["b c d e", "g h i j"]
    assert as_json(run, "--data", table)["exact"] == 1


def test_data_that_the_run_was_trained_on_are_divided_as_then(scripted, folder, as_json, tmp_path):
    table = write_table(tmp_path / "own.tsv", [(f"{a} {b}", f"{b} {a}") for a in NUMBERS for b in NUMBERS])
    sets = ["data.tokenizer=word", "data.split=random", "data.test=12"]
    run = saved(tmp_path, "own", *sets, data=table)
    scripted["own"] = [""] * 100
    assert as_json(run)["examples"] == as_json(run, "--data", table)["examples"] == 12


def test_another_folder_without_splits_is_tested_on_as_a_whole(scripted, as_json, tmp_path):
    for folder, count in (("own", 10), ("other", 7)):
        (tmp_path / folder).mkdir()
        for language, article in (("fr", "le"), ("en", "the")):
            lines = "".join(f"{article} {number}\n" for number in NUMBERS[:count])
            (tmp_path / folder / f"train.{language}").write_text(lines)
    sets = ["data.source=fr", "data.tokenizer=word", "data.split=random", "data.test=3"]
    run = saved(tmp_path / "runs", "halves", *sets, data=str(tmp_path / "own"))
    scripted["halves"] = [f"the {number}" for number in NUMBERS]
    assert as_json(run, "--data", tmp_path / "own")["examples"] == 3, "its own are divided as in training"
    found = as_json(run, "--data", tmp_path / "other")
    assert (found["examples"], found["exact"]) == (7, 1)
    for language in ("fr", "en"):
        shutil.copy(tmp_path / "other" / f"train.{language}", tmp_path / "other" / f"test.{language}")
        (tmp_path / "other" / f"train.{language}").write_text("un\n")
    assert as_json(run, "--data", tmp_path / "other", "--limit", "9")["examples"] == 7, "its test split"


def test_a_source_that_is_too_long_is_told(random, evaluate, tmp_path):
    table = write_table(tmp_path / "long.tsv", [("a", "b"), ("chat " * 250, "cat"), ("c", "d")])  # 1,250 letters
    code, _, error = evaluate(random, "--data", table, "--max-len", "3", "-o", tmp_path / "out")
    assert code == 0
    assert "1 of 3 test sources are too long to be read, and count as empty" in error
    outputs = (tmp_path / "out").read_text().split("\n")
    assert len(outputs) == 4 and outputs[1] == ""


def test_languages_are_those_of_the_run(scripted, evaluate, as_json, tmp_path):
    articles = {"fr": "le", "en": "the", "de": "die"}
    texts = {language: [f"{article} {number}" for number in NUMBERS] for language, article in articles.items()}
    for language, lines in texts.items():
        for split in ("train", "val", "test"):
            (tmp_path / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines))
    own = tmp_path / "own"
    own.mkdir()
    for language in ("fr", "en"):
        for split in ("train", "val", "test"):
            shutil.copy(tmp_path / f"{split}.{language}", own)
    run = saved(tmp_path / "runs", "french", "data.source=fr", "data.tokenizer=word", data=str(own))
    scripted["french"] = texts["en"]
    assert as_json(run, "--data", tmp_path)["exact"] == 1, "of three languages those two"
    code, out, error = evaluate(run, "--data", tmp_path, "--target", "de", "--json", "-q")
    assert (code, json.loads(out)["exact"]) == (0, 0)
    assert error == f"warning: {tmp_path} goes from fr to de, and {run} from fr to en\n"
    assert "warning" not in evaluate(run, "--data", tmp_path)[2]
    code, _, error = evaluate(run, "--data", tmp_path, "--source", "en", "--target", "fr")
    assert (code, error.splitlines()[-1]) == (2, "hint: --source fr --target en")
    code, _, error = evaluate(run, "--data", f"{own / 'test.en'},{own / 'test.fr'}")
    assert code == 2
    assert error.startswith(f"error: {own / 'test.en'},{own / 'test.fr'} goes from en to fr, and {run} from fr to en\n")


# --------------------------------------------------------------------------------------------------------- several runs


def test_two_runs_with_different_tokenizers_on_the_same_texts(scripted, first, second, as_json, evaluate):
    scripted["first"], scripted["second"] = WORSE, REFERENCES
    found = as_json(first, second)
    gap = 100 - sacrebleu.corpus_bleu(WORSE, [REFERENCES]).score
    assert found["paired"]["difference"] == pytest.approx(-gap)
    assert found["paired"]["p_value"] < 0.05
    assert found["paired"]["better"] == 1
    assert found["verdict"].startswith(f"{second} is better: by {gap:.2f} BLEU (p = 0.00")
    code, out, error = evaluate(first, second)
    assert code == 0
    metrics, _, paired = cells(out)
    assert metrics[0] == ["metric", str(first), str(second)]
    assert [row[0] for row in metrics] == ["metric", "loss", "token", "exact", "BLEU", "chrF"]
    assert paired[1] == ["difference", "in", "BLEU", f"{-gap:+.2f}"]
    assert error.count("BLEU nrefs") == 1
    assert error.splitlines()[-2] == found["verdict"]


def test_a_difference_by_chance_shows_nothing(scripted, first, second, as_json):
    """One is wrong in two sentences, the other in another one."""
    scripted["first"], scripted["second"] = WORSE[:2] + REFERENCES[2:], REFERENCES[:4] + WORSE[4:5] + REFERENCES[5:]
    found = as_json(first, second)
    assert found["paired"]["better"] is None
    assert found["verdict"].startswith("Neither is shown to be better: ")
    scripted["second"] = scripted["first"]
    assert as_json(first, second)["verdict"] == "Neither is better: they have the same BLEU."


def test_more_than_two_stand_side_by_side(scripted, first, second, random, as_json):
    scripted |= {"first": WORSE, "second": REFERENCES, "random": REFERENCES}
    found = as_json(first, second, random, "--beam", "2")
    assert [result["exact"] for result in found["runs"]] == [0, 1, 1]
    assert [result["search"]["beams"] for result in found["runs"]] == [2, 2, 2]
    assert "paired" not in found


def test_other_texts_are_told_before_anything_is_decoded(scripted, first, folder, evaluate, as_json, tmp_path):
    other = saved(folder, "other", f"data.test_file={write_table(tmp_path / 'x.tsv', [*TEST[:9], ('a', 'b')])}")
    code, out, error = evaluate(first, other)
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {first} and {other} are tested on different pairs\nhint: `--data NAME`")
    assert scripted["searches"] == []
    scripted["first"] = scripted["other"] = REFERENCES
    assert as_json(first, other, "--data", folder / "test.tsv")["paired"]["difference"] == 0
    assert as_json(first, other, "--limit", "9")["paired"]["difference"] == 0


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha", "0"], "decode.alpha is for the length norm gnmt, and this one is avg"),
        (["--source", "fr"], "--source is about other data than the run's"),
        (["--confusion"], "--confusion is about classes, and"),
        (["--on-bad", "skip"], "is no folder of images"),
        (["--split", "nope"], "no split nope in"),
        (["--data", "digits"], "digits has no pairs of sequences"),
        (["--beam", "0"], "--beam must be"),
    ],
)
def test_options_that_do_not_fit_translations(first, evaluate, arguments, message):
    code, out, error = evaluate(first, *arguments)
    assert (code, out) == (2, "")
    assert message in error.splitlines()[0]
    assert error.count("\n") == 2


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """What is refused before the model is built needs no weights."""
    prepared = start.prepare(recipe.resolve("mlp", overrides=[("data.size", "8", "set")]))
    task = prepared.task
    info = {"task": prepared.recipe.task, "data": task.info, "model_arguments": task.model_arguments()}
    run = runs.create(tmp_path_factory.mktemp("runs"), prepared.recipe, info, name="digits")
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": {}}, {"step": 1})
    return run.path


@pytest.mark.parametrize(
    "arguments",
    [["--beam", "2"], ["--length-norm", "avg"], ["--alpha", "0"], ["--max-len", "5"], ["--lowercase"], ["-o", "x"],
     ["--data", "digits", "--source", "fr"]],
)  # fmt: skip
def test_options_that_do_not_fit_classes(classifier, evaluate, arguments):
    code, out, error = evaluate(classifier, *arguments)
    assert (code, out) == (2, "")
    what = "translations" if "--source" in arguments else "what is written"
    assert f"is about {what}, and {classifier} is a run of image classification" in error


def test_a_classifier_and_a_translator_are_not_compared(classifier, first, evaluate):
    code, out, error = evaluate(classifier, first)
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {classifier} is a run of image classification, and {first} of translation\n")
    code, out, error = evaluate(first, first, "-o", "x")
    assert (code, out) == (2, "")
    assert error.startswith("error: --output is about one run, and here are 2\n")


# ---------------------------------------------------------------------------------------------------- several together


def test_what_an_ensemble_says_is_of_all_its_members(folder, monkeypatch):
    paths = [saved(folder, f"member-{seed}", "decode.max_len=12", "decode.beams=2", weights=3.0, seed=seed)
             for seed in (0, 1)]  # fmt: skip
    seen, quality = [], translation_quality.quality

    def watched(said, **options):
        seen.append(list(said.outputs))
        return quality(said, **options)

    monkeypatch.setattr(translation_quality, "quality", watched)
    found = evaluate_ensemble([str(path) for path in paths], Setting(batch_size=8), devices="cpu")
    search = translator.Search(beams=2)
    sources = [source for source, _ in TEST]
    expected = [translator.load(paths[:1]), translator.load(paths[1:]), translator.load(paths)]
    assert seen == [each(sources, search) for each in expected]
    assert len({tuple(outputs) for outputs in seen}) == 3  # else nothing would be shown
    differ = np.mean([one != other for one, other in zip(*seen[:2], strict=True)])
    assert found["disagreement"] == pytest.approx(differ)
    assert found["cost"]["answer_seconds"] > 0


def test_an_answer_is_timed_after_its_graph_is_there(folder, monkeypatch, first):
    told = []
    monkeypatch.setattr(translator.Translator, "each", lambda self, groups, *a, **k: told.append("warm") or iter(()))
    monkeypatch.setattr(translation_quality, "translate", lambda *a, **k: told.append("timed") or NOTHING_SAID)
    monkeypatch.setattr(translator_ensembles.time, "perf_counter", lambda: told.append("clock") or 0.0)
    candidate, setting = Candidate.of(str(first)), Setting(batch_size=8)
    task = candidate.task(setting)
    model, _ = candidate.model(task, setting, runtime.devices("cpu", alone=True))
    told.clear()
    translator_ensembles._searched(task, model, DecodeSection(), setting)
    assert told[:4] == ["warm", "clock", "timed", "clock"]


NOTHING_SAID = translation_quality.Translations(["x"], ["x"], is_text=False)
