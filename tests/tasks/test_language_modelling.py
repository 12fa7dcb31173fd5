"""The loss of a whole part, by hand; and a state that is carried, whatever divides the batches."""

import json
import math
import shutil

import numpy as np
import pytest

from dlkit import recipe, runtime
from dlkit.cli import main
from dlkit.data.corpus import Stream
from dlkit.data.tokenizer import END, PAD, START, UNKNOWN
from dlkit.errors import DataError
from dlkit.tasks import generator, language_modelling
from dlkit.tasks.task import open_task
from dlkit.tasks.translator import Search
from dlkit.train import checkpoints, start
from dlkit.train.evaluation import Evaluation
from dlkit.train.loop import Progress, batches

TEXT = "".join(f"{n} {n * n % 17} {'abc'[n % 3] * (n % 5)}\n" for n in range(60))
SMALL = {
    "gpt": {"model.width": 8, "model.heads": 2, "model.layers": 1, "model.max_length": 8},
    "tcn_lm": {"model.width": 6, "model.layers": 2},
    "lstm_lm": {"model.width": 6, "model.layers": 2},
    "gru_lm": {"model.width": 6, "model.layers": 2},
    "rnn_lm": {"model.width": 6, "model.layers": 2},
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_text(TEXT)
    return str(path)


def prepared(model, file, devices="cpu", **flags):
    flags = {"data.block": 8, "train.batch_size": 5, "train.precision": "float64"} | SMALL[model] | flags
    return start.prepare(recipe.resolve(model, file, flags=flags), devices=devices)


def losses(logits, targets):
    logits = np.asarray(logits, np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, targets[..., np.newaxis], -1)[..., 0]


@pytest.mark.parametrize(("model", "batch_size"), [("gpt", 1), ("gpt", 4), ("gpt", 64), ("tcn_lm", 4)])
def test_the_loss_is_that_of_all_tokens_but_the_first_in_blocks(file, model, batch_size):
    made = prepared(model, file)
    ids = made.task.data.splits["validation"].ids
    found = Evaluation(made.task, made.model, made.devices, batch_size=batch_size)("validation")
    by_hand = [
        loss
        for first in range(0, len(ids) - 1, 8)
        for loss in losses(
            made.model(ids[np.newaxis, first : min(first + 8, len(ids) - 1)]), ids[np.newaxis, first + 1 : first + 9]
        )[0]
    ]
    assert len(by_hand) == len(ids) - 1
    assert found["loss"] == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["bits_per_character"] == pytest.approx(found["loss"] / math.log(2))


@pytest.mark.parametrize(("model", "batch_size"), [("lstm_lm", 1), ("lstm_lm", 64), ("gru_lm", 64), ("rnn_lm", 64)])
def test_with_a_carried_state_it_is_that_of_one_long_pass(file, model, batch_size):
    made = prepared(model, file)
    ids = made.task.data.splits["validation"].ids
    found = Evaluation(made.task, made.model, made.devices, batch_size=batch_size)("validation")
    by_hand = losses(made.model(ids[np.newaxis, :-1]), ids[np.newaxis, 1:])
    assert found["loss"] == pytest.approx(by_hand.mean(), rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_long_text_is_read_in_streams_that_begin_with_nothing(file, batch_size, monkeypatch):
    """Of 55 tokens to predict, 5 streams of at least 10: two blocks of 8 each, so the fifth has nothing to read."""
    monkeypatch.setattr(language_modelling, "STREAM_TOKENS", 10)
    made = prepared("lstm_lm", file)
    ids, rows = made.task.data.splits["train"].ids[:56], []
    monkeypatch.setitem(made.task._splits, "validation", Stream(ids, 55, block=8))
    run = made.model.run

    def noted(inputs, state, **how):
        rows.append(inputs.shape[0])
        return run(inputs, state, **how)

    monkeypatch.setattr(made.model, "run", noted)
    found = Evaluation(made.task, made.model, made.devices, batch_size=batch_size)("validation")
    assert set(rows) == {5}, "as many as there are streams, whatever the batch size"
    by_hand = [
        losses(made.model(ids[np.newaxis, start : min(start + 16, 55)]), ids[np.newaxis, start + 1 : start + 17])[0]
        for start in (0, 16, 32, 48)
    ]
    assert list(map(len, by_hand)) == [16, 16, 16, 7]
    assert found["loss"] == pytest.approx(np.concatenate(by_hand).mean(), rel=1e-9)


def test_lines_that_the_model_has_no_positions_for_are_left_out_and_told(tmp_path, capsys):
    (tmp_path / "train.txt").write_text("abc\nde\n" * 20)
    (tmp_path / "val.txt").write_text("abc\n" + "abcdeabc\n" + "de\n")
    (tmp_path / "test.txt").write_text("abcdeabc\n" * 3)
    made = prepared("gpt", str(tmp_path), **{"data.units": "lines"})
    evaluate = Evaluation(made.task, made.model, made.devices, batch_size=4)
    found = evaluate("validation")
    encode = made.task.tokenizer.encode
    by_hand = [
        loss
        for text in ("abc", "de")
        for loss in losses(made.model(np.array([[START, *encode(text)]])), np.array([[*encode(text), END]]))[0]
    ]
    assert len(by_hand) == made.task.tokens(made.model, "validation") == 7
    assert found["loss"] == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert found["bits_per_character"] == pytest.approx(found["loss"] / math.log(2), rel=1e-9)
    assert "left out of the evaluation: 1 of 3 validation lines, with more than 8 tokens" in capsys.readouterr().err
    with pytest.raises(DataError, match="every test line has more than 8 tokens"):
        evaluate("test")


def test_bits_are_spread_over_the_characters_that_tokens_stand_for(file):
    made = prepared("gpt", file, **{"data.tokenizer": "word"})
    part = made.task.data.splits["validation"]
    text = made.task.data.texts["validation"][0]
    assert part.characters == len(text.removesuffix("\n")) + 1
    derived = made.task.derived_metrics(made.model, "validation", {"loss": 2 * math.log(2)})
    assert derived == pytest.approx({"perplexity": 4, "bits_per_character": 2 * part.predicted / part.characters})


def test_a_text_is_altered_where_its_tokens_read_back_are_another(tmp_path):
    """Of four lines one has a capital, and one two spaces side by side."""
    path = tmp_path / "x.txt"
    path.write_text("ab cd\nAb cd\nab  cd\ncd ab\n")

    def share(**how):
        return open_task("language_modelling", {"name": str(path), "validation": 0, **how}).altered_share("train")

    assert [share(), share(lower=True), share(tokenizer="word", lower=True)] == [0, 1 / 4, 2 / 4]


def test_an_epoch_of_shuffled_blocks_reads_the_text_once_and_depends_on_seed_and_epoch_alone(file):
    task = open_task("language_modelling", {"name": file, "block": 8}, seed=3)
    plans = [np.concatenate(task.plan("train", batch_size=5, epoch=epoch)) for epoch in (0, 1, 0)]
    np.testing.assert_array_equal(plans[0], plans[2])
    assert not np.array_equal(plans[0], plans[1])
    assert len(set(plans[1].tolist())) == len(plans[1]) == task.size("train")
    assert len({place % 8 for place in plans[1].tolist() if place}) == 1, "all blocks have the same phase"


def test_a_text_of_one_block_is_read_from_its_beginning_in_every_epoch(file):
    task = open_task("language_modelling", {"name": file, "block": 10_000}, seed=3)
    assert task.size("train") == 1
    plans = [task.plan("train", batch_size=5, epoch=epoch) for epoch in range(20)]
    assert [[batch.tolist() for batch in plan] for plan in plans] == [[[0]]] * 20


# ------------------------------------------------------------------------------------------------------ carried state


def trained(file, devices="cpu", steps=5, **flags):
    made = prepared("lstm_lm", file, devices, **{"train.optimizer": "sgd", "model.dropout": 0.3} | flags)
    update = start.training_step(made)
    drawn = batches(made.task, made.recipe.train, Progress(), made.devices)
    for step, batch in zip(range(steps), drawn, strict=False):
        update(batch.batch, step=step, lr=0.5, size=batch.size, begins=batch.position == 0)
    return update.arrays()


def test_streams_go_on_where_they_stopped(file):
    task = prepared("lstm_lm", file).task
    plan = task.plan("train", batch_size=5, epoch=0)
    first, second = (task.batch("train", plan[at], epoch=0) for at in (0, 1))
    np.testing.assert_array_equal(second["inputs"][:, 0], first["targets"][:, -1])
    whole = np.concatenate([task.batch("train", indices, epoch=0)["targets"] for indices in plan], 1)
    assert whole[whole > 0].tolist() == task.data.splits["train"].ids[1:].tolist()


@pytest.mark.parametrize("model", ["lstm_lm", "gru_lm"])
def test_the_training_loss_with_a_carried_state_is_that_of_one_long_pass(file, model):
    """With a learning rate of 0 the weights stay as they are, so that one pass over all blocks has all the losses."""
    made = prepared(model, file, **{"train.optimizer": "sgd"})
    update = start.training_step(made)
    plan = made.task.plan("train", batch_size=5, epoch=0)[:3]
    inputs, targets = (
        np.concatenate([made.task.batch("train", places, epoch=0)[key] for places in plan], 1)
        for key in ("inputs", "targets")
    )
    by_hand = losses(made.model(inputs), targets)
    for at, places in enumerate(plan):
        batch = made.task.batch("train", places, epoch=0)
        measured = update(batch, step=at, lr=0.0, size=5, begins=at == 0)
        mean = float(measured["loss"]) / float(measured["weight"])
        assert mean == pytest.approx(by_hand[:, 8 * at : 8 * at + 8].mean(), rel=1e-9), at


@pytest.mark.parametrize(("devices", "accumulate"), [("cpu", 2), ("cpu:2", 2)])
def test_devices_and_micro_batches_carry_the_same_state(file, devices, accumulate):
    one, other = trained(file), trained(file, devices, **{"train.accumulate": accumulate})
    assert set(one["carry"]) == {"carry0", "carry1", "carry2", "carry3"}
    for group, arrays in one.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(other[group][name], array, rtol=1e-9, atol=1e-12, err_msg=f"{group}/{name}")


def test_without_a_carried_state_the_update_is_another(file):
    one, other = trained(file), trained(file, **{"data.carry": False})
    assert "carry" not in other
    assert any(not np.allclose(one["weights"][name], other["weights"][name]) for name in one["weights"])


def test_a_resumed_run_goes_on_with_the_state_that_it_carried(file, tmp_path):
    arguments = ["train", "lstm_lm", "--data", file, "--runs-dir", str(tmp_path), "-q"]
    sets = {"model.width": 6, "data.block": 8, "train.steps": 6, "train.checkpoint_every": 3, "train.batch_size": 4}
    assert main([*arguments, *(word for key, value in sets.items() for word in ("--set", f"{key}={value}"))]) == 0
    (run,) = tmp_path.glob("x*") if list(tmp_path.glob("x*")) else tmp_path.glob("lstm_lm_*")
    last = run / "checkpoints" / "step-6"
    before = {group: checkpoints.read(last, group) for group in ("weights", "carry")}
    assert any(array.any() for array in before["carry"].values())
    shutil.rmtree(last)
    (run / "checkpoints" / "best").unlink()
    assert main(["train", "--resume", str(run), "-q"]) == 0
    for group, arrays in before.items():
        for name, array in checkpoints.read(last, group).items():
            np.testing.assert_allclose(array, arrays[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("gpt", {"data.block": 16}, "learned positions for 8"),
        ("gpt", {"data.carry": True}, "no state that could be carried"),
        ("gpt", {"data.carry": False}, "no state that could be carried"),
        ("tcn_lm", {"data.carry": False}, "no state that could be carried"),
        ("lstm_lm", {"data.carry": True, "data.units": "lines"}, "lines know nothing of each other"),
        ("lstm_lm", {"data.carry": False, "data.units": "lines"}, "lines know nothing of each other"),
        ("lstm_lm", {"train.sampling": "linear"}, "not for language models"),
    ],
)
def test_what_does_not_fit_is_told(file, model, flags, message):
    from dlkit.errors import UsageError

    runtime.import_tensorflow()
    with pytest.raises(UsageError, match=message):
        prepared(model, file, **flags)


# ------------------------------------------------------------------------------------------------------- odd texts


@pytest.mark.parametrize(
    ("model", "rows"), [("gpt", 1), ("tcn_lm", 1), ("rnn_lm", 32), ("lstm_lm", 32), ("gru_lm", 32)]
)
def test_a_text_of_one_line_is_trained_on_evaluated_and_written(tmp_path, capsys, model, rows):
    """Of 18 letters 16 are for training. Of 32 streams 31 are empty, and are computed all the same."""
    file = tmp_path / "one.txt"
    file.write_text("to be or not to be")
    sets = {"model.width": 8, "model.layers": 1, "model.dropout": 0.1}
    sets |= {"train.steps": 2, "train.batch_size": 32, "data.block": 64}
    sets |= {"model.heads": 2} if model == "gpt" else {}
    arguments = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    assert (
        main(["train", model, "--data", str(file), "--runs-dir", str(tmp_path), "--name", "run", "-q", *arguments]) == 0
    )
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "train", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 15
    assert 0 < found["loss"] < 2 * math.log(11), "a guess among seven letters and four special tokens has log 11"
    made = start.prepare(recipe.resolve(model, str(file), flags=sets), devices="cpu")
    assert made.task.rows(32) == rows
    write = generator.load(run)
    assert all(np.isfinite(weight.numpy()).all() for weight in write.model.weights)
    (found,) = write(Search(method="greedy", max_len=5))
    logits = np.array(write.model(np.array([[write.info["first"], *found.ids[:-1]]]))[0], np.float64)
    logits[:, [PAD, START, END, UNKNOWN]] = -np.inf  # which are never written
    assert found.ids == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    ("names", "test"), [(["train.txt"], "all"), (["train.txt", "val.txt"], None), (["test.txt"], None)]
)
def test_another_folder_is_tested_on_as_a_whole_where_it_has_no_splits(file, tmp_path, names, test):
    own = {"name": file, "tokenizer": "word", "validation": 0.2}
    for name in names:
        (tmp_path / name).write_text("a b\n")
    section = language_modelling.other_text(own, str(tmp_path), is_known=False, folder=None)
    assert section == {"name": str(tmp_path), "tokenizer": "word"} | ({"test": test} if test else {})
    assert "validation" in language_modelling.other_text(own, file, is_known=True, folder=None)
