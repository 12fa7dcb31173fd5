"""Every view on every family of models: a table with a row for each record, or one line that says why not."""

import copy
import json
import re

import pytest
from probe_pictures import assert_readable

from dlkit import console, models
from dlkit.errors import UsageError
from dlkit.probe import page, panels
from dlkit.probe.views import VIEWS, Subject, show

TEXTS = ["data.train=64", "data.validation=4", "data.test=4", "model.width=8"]
FEW_IMAGES = ["train.limit=2", "train.batch_size=2"]
FAMILIES = {
    "mlp": ["model.hidden=[8]"],
    "lenet": [],
    "alexnet": ["data.size=63", *FEW_IMAGES],
    "vgg11": ["model.dense_units=8", *FEW_IMAGES],
    "airbench": ["model.width=2", *FEW_IMAGES],
    "resnet18": ["model.stem=7x7", *FEW_IMAGES],
    "resnet20": [],
    "plain20": FEW_IMAGES,
    "heads": ["model.trunk=lenet", "model.heads=2", "model.trunk_options={norm='batch'}"],
    "nested": ["data.size=16"],
    "rnn": ["data.length=6", "data.train=8", "data.test=4", "model.width=4"],
    "lstm": ["data.length=6", "data.train=8", "data.test=4", "model.width=4", "model.layers=2"],
    "gru": ["data.length=6", "data.train=8", "data.test=4", "model.width=4", "model.bidirectional=true"],
    "text_bag": [*TEXTS, "model.pairs=50"],
    "text_lstm": TEXTS,
    "text_cnn": [*TEXTS, "model.maps=4"],
    "text_transformer": [*TEXTS, "model.ffn=8", "model.heads=2", "model.pool=cls"],
    "tagger_gru": TEXTS,
    "tagger_cnn": [*TEXTS, "model.layers=2"],
    "tagger_transformer": [*TEXTS, "model.ffn=8", "model.heads=2"],
    "lstm_lm": ["data.block=8", "model.width=8"],
    "tcn_lm": ["data.block=8", "model.width=8", "model.layers=2"],
    "gpt": ["data.block=8", "model.width=8", "model.heads=2", "model.layers=1"],
    "seq2seq": TEXTS,
    "seq2seq_attention": TEXTS,
    "transformer": [*TEXTS, "model.ffn=8", "model.heads=2", "model.layers=1", "model.decoder_layers=1"],
    "captioner": [*TEXTS, "model.encoder=lenet", "model.encoder_options={}"],
    "captioner_attention": [*TEXTS, "model.encoder=lenet", "model.encoder_options={}"],
    "video_lstm": ["data.train=8", "data.validation=2", "data.test=2", "model.width=8", "model.filters=2"],
}
EVERYWHERE = {"activations", "saliency", "gradients", "jacobian"}
OF_IMAGES = {"features", "filters", "gradcam", "receptive"}
EXPECTED = {
    "mlp": EVERYWHERE | {"features", "shift"},
    "lenet": EVERYWHERE | OF_IMAGES | {"shift"},
    "alexnet": EVERYWHERE | OF_IMAGES | {"shift"},
    "vgg11": EVERYWHERE | OF_IMAGES | {"shift"},
    "airbench": EVERYWHERE | OF_IMAGES | {"shift"},
    "resnet18": EVERYWHERE | OF_IMAGES | {"shift"},
    "resnet20": EVERYWHERE | OF_IMAGES | {"shift"},
    "plain20": EVERYWHERE | OF_IMAGES | {"shift"},
    "heads": EVERYWHERE | OF_IMAGES | {"shift"},
    "nested": EVERYWHERE | OF_IMAGES | {"shift"},
    "rnn": EVERYWHERE,
    "lstm": EVERYWHERE,
    "gru": EVERYWHERE,
    "text_bag": EVERYWHERE | {"embeddings"},
    "text_lstm": EVERYWHERE | {"embeddings"},
    "text_cnn": EVERYWHERE | {"embeddings"},
    "text_transformer": EVERYWHERE | {"embeddings", "positions", "attention"},
    "tagger_gru": EVERYWHERE | {"embeddings"},
    "tagger_cnn": EVERYWHERE | {"embeddings"},
    "tagger_transformer": EVERYWHERE | {"embeddings", "positions", "attention"},
    "lstm_lm": EVERYWHERE | {"embeddings"},
    "tcn_lm": EVERYWHERE | {"embeddings"},
    "gpt": EVERYWHERE | {"embeddings", "positions", "attention"},
    "seq2seq": EVERYWHERE | {"embeddings"},
    "seq2seq_attention": EVERYWHERE | {"embeddings", "attention"},
    "transformer": EVERYWHERE | {"embeddings", "positions", "attention"},
    "captioner": EVERYWHERE | OF_IMAGES | {"embeddings"},
    "captioner_attention": EVERYWHERE | OF_IMAGES | {"embeddings", "attention"},
    "video_lstm": EVERYWHERE | OF_IMAGES,
}
# Families whose pictures of a view are looked at, one of each form.
DRAWN = [
    ("activations", "gru"), ("features", "captioner_attention"), ("filters", "video_lstm"), ("saliency", "video_lstm"),
    ("saliency", "text_lstm"), ("saliency", "lenet"), ("gradcam", "lenet"), ("gradients", "lstm_lm"),
    ("jacobian", "gru"), ("jacobian", "lenet"), ("jacobian", "resnet18"), ("attention", "transformer"),
    ("attention", "captioner_attention"), ("positions", "gpt"), ("embeddings", "seq2seq"), ("shift", "mlp"),
    ("receptive", "lenet"),
]  # fmt: skip


@pytest.fixture(scope="module")
def subjects():
    """One subject of each family, whose model and data are made once."""
    return {}


@pytest.fixture(autouse=True)
def _user_s_own(monkeypatch):
    """A package of a user has a classifier with a net inside, as an entry point would name it."""
    table = models.targets() | {"nested": ("image_classification", "nested_classifier:nested")}
    monkeypatch.setattr(models, "targets", lambda: table)


def of(subjects, family):
    if family not in subjects:
        subjects[family] = Subject(family, sets=FAMILIES[family], seed=1)
    return subjects[family]


SLOW = {"resnet18", "resnet20", "plain20"}  # deep nets; the pictures of resnet18 are looked at all the same
# Of these nets those of a few layers of each kind are looked at; all else is looked at as a whole.
JACOBIANS_OF = {
    "alexnet": ["conv1", "lrn1", "*5", "head"],
    "vgg11": ["stage1_conv1", "stage5*", "head"],
    "resnet18": ["stem_pool", "stage2_block1_conv1", "stage2_block1 (whole)", "head"],
    "airbench": ["whitening", "stage3*", "scale"],
}


def looked_at(subject, name):
    """The subject of a view, with the model and the data that it has already."""
    if name != "jacobian" or subject.operand not in JACOBIANS_OF:
        return subject
    assert subject.model is not None
    few = copy.copy(subject)
    object.__setattr__(few, "layers", JACOBIANS_OF[subject.operand])
    return few


@pytest.mark.parametrize("family", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES])
def test_every_view_or_a_reason(subjects, family):
    subject, shown = of(subjects, family), set()
    for name in VIEWS:
        try:
            view = show(name, looked_at(subject, name))
        except UsageError as failure:
            assert "\n" not in failure.message + failure.hint
            assert family in failure.message
            continue
        shown.add(name)
        assert len(view.rows) > 0, name
        assert all(len(row) == len(view.columns) for row in view.rows), name
        assert set(view.right) <= {*view.columns, "frame"}, name
        assert view.notes or name == "features", name
        # Of layers by themselves or, in recurrent nets, of states across time.
        assert name != "jacobian" or "largest" in view.columns
        if (family, name) == ("nested", "jacobian"):
            assert {"trunk/stage1_block1 (whole)", "stage2_block1 (whole)"} <= {row["layer"] for row in view.records}
        json.dumps(console.finite({**view.facts, view.key: list(view.records)}), allow_nan=False)
    assert shown == EXPECTED[family]


def test_of_every_view_a_picture_is_looked_at():
    assert {name for name, _ in DRAWN} == set(VIEWS)


@pytest.mark.parametrize(("name", "family"), DRAWN)
def test_pictures_are_readable_and_pages_need_no_network(subjects, name, family):
    view = show(name, looked_at(of(subjects, family), name))
    drawn = view.draw()
    assert_readable(drawn)
    for part in drawn.each() if isinstance(drawn, panels.Sheet) else ():
        assert_readable(part)
    text = page.of_view(view, title="<run> & co")
    assert "&lt;run&gt; &amp; co" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert text.count("<tr>") == 1 + len(view.rows)
    assert "prefers-color-scheme: dark" in text
