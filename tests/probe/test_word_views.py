"""Neighbours, principal components, positions and attention."""

import numpy as np
import pytest

from dlkit.errors import UsageError
from dlkit.probe.attention_view import Heads, attention
from dlkit.probe.embeddings import in_two_dimensions, neighbours
from dlkit.probe.one_example import example
from dlkit.probe.position_view import Places, change_of_order, places
from dlkit.probe.views import Subject, show

FEW = ["data.train=64", "data.validation=4", "data.test=4"]
SMALL = ["model.width=8", "model.ffn=8", "model.heads=2", "model.layers=1"]


def test_neighbours_by_their_angles():
    """Cosines with (1, 0): of (2, 2) 0.71, of (0, 3) 0, of (-1, 0) -1; special rows and rows of zeros are no words."""
    vectors = np.array([[1, 0]] * 4 + [[1, 0], [2, 2], [0, 3], [-1, 0], [0, 0]], float)
    found = neighbours(vectors, 4)
    assert [row for row, _ in found] == [5, 6, 7]
    assert [cosine for _, cosine in found] == pytest.approx([0.5**0.5, 0, -1])
    assert neighbours(vectors, 8) == []


def test_two_dimensions_keep_the_distances_of_a_plane():
    plane = np.random.default_rng(0).normal(size=(7, 2)) * [3, 1]
    turned = plane @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0][:2]
    points, shares = in_two_dimensions(turned + 4)
    apart = lambda x: np.linalg.norm(x[:, np.newaxis] - x, axis=-1)  # noqa: E731
    np.testing.assert_allclose(apart(points), apart(plane), atol=1e-9)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] > shares[1]


def test_a_head_in_numbers():
    """One head looks at one key, another at all four alike; and one always at the place before."""
    one, all_alike = np.eye(4), np.full((4, 4), 0.25)
    heads = Heads("self", np.stack([one, all_alike]), list("abcd"), list("abcd"))
    assert heads.looked_at.tolist() == pytest.approx([1, 4])
    assert heads.most.tolist() == [1, 0.25]
    assert heads.from_diagonal().tolist() == [0, 0]
    before = np.roll(np.eye(4), -1, axis=1)[1:]  # rows 1 to 3 look at 2, 3 and 0
    back = Heads("self", np.array([[[1, 0, 0], [1, 0, 0], [0, 1, 0]]], float), list("abc"), list("abc"))
    assert back.from_diagonal().tolist() == pytest.approx([2 / 3])
    assert Heads("cross", before[np.newaxis], list("abc"), list("wxyz")).from_diagonal() is None


def test_every_attention_of_a_transformer_and_what_looks_at_what():
    subject = Subject("transformer", text="a b c", sets=[*SMALL, *FEW])
    one = example(subject)
    found = {heads.layer: heads for heads in attention(subject, one)}
    assert one.source == ["a", "b", "c", "</s>"]
    assert list(found) == [
        "encoder_block1_self_attention", "decoder_block1_self_attention", "decoder_block1_cross_attention"
    ]  # fmt: skip
    encoder, own, cross = found.values()
    assert (encoder.queries, encoder.keys) == (one.source, one.source)
    assert (own.queries, own.keys) == (["<s>", *one.target[:-1]],) * 2
    assert (cross.queries, cross.keys) == (one.target, one.source)
    for heads in found.values():
        assert heads.weights.shape == (2, len(heads.queries), len(heads.keys))
        np.testing.assert_allclose(heads.weights.sum(axis=-1), 1, rtol=1e-5)
    assert np.triu(own.weights[0], 1).max() < 1e-6  # nobody looks ahead
    # The same by the model's own account.
    source, target_in = one.batch["source"], one.batch["target_in"]
    for name, weights in subject.model.attention_weights((source, target_in)).items():
        np.testing.assert_allclose(found[name].weights, weights[0], atol=1e-6)


@pytest.mark.parametrize("context_to", ["readout", "next_input"])
def test_recurrent_attention_is_that_of_each_step(context_to):
    """Also where the decoder looks before each step, and its attention is called once for each."""
    subject = Subject("seq2seq_attention", sets=["model.width=8", *FEW, f"model.context_to={context_to}"])
    one = example(subject)
    (heads,) = attention(subject, one)
    assert heads.weights.shape == (1, len(one.target), len(one.source))
    np.testing.assert_allclose(heads.weights.sum(axis=-1), 1, rtol=1e-5)
    state, memory = subject.model.start(one.batch["source"])
    for at, token in enumerate(one.batch["target_in"][0]):
        step = subject.model.step(np.array([[token]]), state, memory)
        state = step.state
        np.testing.assert_allclose(heads.weights[0, at], step.attention[0, 0], atol=1e-5)


def test_positions_by_the_formula():
    """The product of two sinusoids depends on their distance d alone: the mean of cos(d / 10000^(2i/w))."""
    (source, _) = places(Subject("transformer", sets=[*SMALL, *FEW]))
    rates = 10_000.0 ** -(np.arange(4) / 4)
    for distance in (1, 5, 40):
        assert source.at_distance(distance) == pytest.approx(np.cos(distance * rates).mean(), abs=1e-5)
    assert source.at_distance(200) is None


def test_learned_positions_are_the_table():
    found = places(Subject("gpt", sets=["model.width=8", "model.max_length=64", "model.layers=1"]))
    assert [(one.layer, one.kind, one.vectors.shape) for one in found] == [("positions", "learned", (64, 8))]
    ends = Places("p", "learned", np.array([[1.0, 0], [0, 1], [-1, 0]]))
    assert (ends.at_distance(1), ends.at_distance(2)) == (0, -1)


@pytest.mark.parametrize(
    "model", ["transformer", "text_transformer", "text_transformer with a token of its own", "tagger_transformer"]
)
def test_to_attention_alone_a_text_is_a_bag_of_words(model):
    """Without positions the words in reverse order get the vectors that they have in order, to rounding."""
    name, _, own = model.partition(" ")
    sets = [*SMALL, *FEW, *(["model.pool=cls"] if own else [])]
    changes = {
        kind: change_of_order(Subject(name, sets=[*sets, f"model.positions={kind}"], seed=1))
        for kind in ("none", "sinusoidal", "learned")
    }
    assert changes["none"] < 1e-5
    assert min(changes["sinusoidal"], changes["learned"]) > 0.05


def test_a_view_of_no_positions():
    view = show("positions", Subject("transformer", sets=[*SMALL, *FEW, "model.positions=none"], seed=1))
    assert [row[:2] for row in view.rows] == [("source_positions", "none"), ("target_positions", "none")]
    assert "a bag of words" in view.notes[1]
    assert view.facts["change_of_order"] < 1e-5
    assert len(view.draw().axes) == 1


def test_the_picture_says_which_words_were_asked_for():
    small = ["model.width=8", "model.layers=1", "data.block=8"]
    for words in ([], ["e"]):
        said = show("embeddings", Subject("gpt", words=words, sets=small)).draw().get_supxlabel()
        assert ("Orange and bold: what was asked for; blue: what lies closest" in " ".join(said.split())) == bool(words)


def test_a_model_that_looks_back_alone_has_an_order_in_any_case():
    assert change_of_order(Subject("gpt", sets=["model.width=8", "model.layers=1"])) is None


@pytest.mark.parametrize(
    ("view", "subject", "message"),
    [
        ("positions", Subject("seq2seq", sets=[*FEW]), "adds no positions"),
        ("positions", Subject("tagger_cnn", sets=[*FEW]), "adds no positions"),
        ("attention", Subject("seq2seq", sets=[*FEW]), "seq2seq has no attention"),
        ("embeddings", Subject("seq2seq", sets=[*FEW, "model.embedding=one_hot"]), "no table of word"),
        ("embeddings", Subject("transformer", words=["ab c"], sets=[*SMALL, *FEW]), "ab c is "),
        ("attention", Subject("gpt", text="", sets=["model.width=8"]), "no token in that text"),
        ("attention", Subject("gpt", text="ab", index=1, sets=["model.width=8"]), "--text is a text"),
        ("saliency", Subject("lenet", text="ab"), "lenet reads no text"),
        ("saliency", Subject("gpt", text="ab", label="a", sets=["model.width=8"]), "gpt tells no class"),
        ("gradients", Subject("lenet", against=["mlp"]), "no gradient by distance"),
        ("jacobian", Subject("lstm", against=["lenet"], sets=["data.train=8", "data.length=4"]), "another task"),
    ],
)
def test_what_a_model_has_not(view, subject, message):
    with pytest.raises(UsageError, match=message):
        show(view, subject)
