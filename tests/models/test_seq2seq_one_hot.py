"""One-hot words in front of the recurrent translators: what a table of embeddings would give that is the identity."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, runs
from dlkit.cli import main
from dlkit.data.pairs import pad
from dlkit.data.tokenizer import END, START
from dlkit.errors import UsageError
from dlkit.models.seq2seq import OneHot
from dlkit.summary import unallocated

SOURCE = pad([[5, 6, 7, 8, END], [9, END], [4, 4, 6, END]])
TARGET_IN = pad([[START, 8, 7], [START, 9, 10, 5, 4], [START]])
WIDTH = 11  # a table of so many ids can be the identity

OPTIONS = [
    {"name": "seq2seq"},
    {"name": "seq2seq", "cell": "gru", "layers": 1, "reverse_source": False},
    {"name": "seq2seq_attention", "cell": "rnn", "bidirectional": False},
    {"name": "seq2seq_attention", "layers": 1, "bidirectional": False, "context_to": "next_input"},
]
every_kind = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))


def net(embedding="one_hot", **options):
    keras.utils.set_random_seed(0)
    arguments = {"source_vocabulary": WIDTH, "target_vocabulary": WIDTH, "width": WIDTH, "init": "gaussian:0.7"}
    return models.build(**arguments | options, embedding=embedding)


@every_kind
def test_equals_a_table_that_is_the_identity(options):
    keras.config.set_dtype_policy("float64")
    model, with_tables = net(**options), net("learned", **options)
    weights = {weight.path: weight for weight in model.weights}
    for weight in with_tables.weights:
        weight.assign(np.eye(WIDTH) if weight.path.endswith("embeddings") else weights.pop(weight.path))
    assert not weights
    np.testing.assert_allclose(model((SOURCE, TARGET_IN)), with_tables((SOURCE, TARGET_IN)), rtol=1e-10)
    (state, memory), begun = model.start(SOURCE), with_tables.start(SOURCE)
    stepped = model.step(TARGET_IN[:, :1], state, memory)
    np.testing.assert_allclose(stepped.logits, with_tables.step(TARGET_IN[:, :1], *begun).logits, rtol=1e-10)


def test_words_by_hand():
    np.testing.assert_array_equal(OneHot(3)(tf.constant([[2, 0]])), [[[0, 0, 1], [1, 0, 0]]])


def test_counts_are_arithmetic():
    """W of the first layers is as high as the vocabulary, that of the others as the width; no tables."""
    source, target, width = 30, 29, 128
    sizes = {"source_vocabulary": source, "target_vocabulary": target, "width": width, "embedding": "one_hot"}
    matrix, head = width * width, (width + 1) * target
    with unallocated():
        plain = models.build("seq2seq", **sizes, layers=2)
        looking = models.build("seq2seq_attention", **sizes, layers=1, context_to="next_input", bidirectional=False)
    words = 4 * (source + target) * width  # into the gates of an LSTM on either side
    assert plain.count_params() == words + 4 * 2 * (matrix + width) + 2 * 4 * (2 * matrix + width) + head
    context, key = 4 * matrix, matrix
    assert looking.count_params() == words + 4 * 2 * (matrix + width) + context + key + head


@every_kind
def test_no_word_is_dropped(options):
    """Dropout acts between layers and in front of the logits; take these away, and training draws nothing."""
    model = net(dropout=0.5, **options | {"layers": 1})
    calm = model((SOURCE, TARGET_IN))
    assert np.abs(model((SOURCE, TARGET_IN), training=True) - calm).max() > 0.01
    model.head_dropout.rate = 0
    np.testing.assert_array_equal(model((SOURCE, TARGET_IN), training=True), calm)


@pytest.mark.parametrize("name", ["seq2seq", "seq2seq_attention"])
def test_mistakes_are_usage_errors(name):
    with pytest.raises(UsageError, match="no table") as raised:
        net(name=name, tied_embeddings=True)
    assert "model.embedding=learned" in raised.value.hint
    with pytest.raises(UsageError, match="model.embedding"):
        net("one-hot", name=name)
    with pytest.raises(UsageError, match="unknown embedding: onehot"):
        models.builder(name)(11, 11, embedding="onehot")


def test_trains_and_is_summarized_and_translates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["model.embedding=one_hot", "model.cell=rnn", "model.width=16", "model.layers=1", "data.length=4"]
    few = ["data.train=256", "data.validation=8", "data.test=8", "train.log_every=1", "train.lr=0.01"]
    settings = [part for setting in [*small, *few] for part in ("--set", setting)]
    data = ["--data", "synthetic:reverse", *settings]
    assert main(["train", "seq2seq", *data, "--steps", "20", "--name", "x", "-q"]) == 0
    losses = [line["loss"] for line in runs.open_run(tmp_path / "runs" / "x").metrics() if line["kind"] == "train"]
    assert len(losses) == 20
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    capsys.readouterr()
    assert main(["summarize", "runs/x", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    outputs = {layer["name"]: layer["output"] for layer in report["layers"]}
    vocabulary = report["output"][-1]
    assert vocabulary not in (16, 64)
    assert outputs["source_embedding"][-1] == outputs["target_embedding"][-1] == vocabulary
    assert main(["translate", "a b c", "--model", "runs/x", "-q"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
