"""Translators whose answers are known: a Transformer that is made by hand to copy its input, token by token."""

import functools
import json

import numpy as np

from dlkit import recipe, runs
from dlkit.models.transformer import transformer
from dlkit.tasks import translator
from dlkit.tasks.translator import save_tokenizers
from dlkit.train import checkpoints

LENGTH = 24  # rows of the tables of positions


@functools.cache
def _loaded(names, options, *, load=translator.load):
    return load(list(names), **dict(options))


def load_once(names, **options):
    """In place of `translator.load`: the same for commands one after the other, which then share their graphs."""
    return _loaded(tuple(names), tuple(options.items()))


def copier(vocabulary, *, shift, certainty):
    """The weights of a net whose source and target have one feature for each word and one for each position.

    Each target position looks at the source position of its number, or `shift` further on, and says the word that it
    finds there. What norms do to such features leaves the greatest the greatest.
    """
    width = vocabulary + LENGTH
    options = {"layers": 1, "decoder_layers": 1, "width": width, "ffn": 4, "heads": 1, "norm": "pre", "biases": False}
    options |= {"positions": "learned", "max_length": LENGTH, "tied": "none"}
    shapes = runs.named_variables(transformer(vocabulary, vocabulary, **options))
    noise = np.random.default_rng(0)  # since nobody quantizes a matrix of zeros
    weights = {path: noise.normal(path.endswith("gamma"), 0.01, v.shape) for path, v in shapes.items()}
    features = np.eye(width)
    words, positions = features[:vocabulary], features[vocabulary:]
    weights["source_embedding/embeddings"] = words / np.sqrt(width)
    weights["source_positions/table"], weights["target_positions/table"] = np.roll(positions, shift, axis=0), positions
    weights["decoder_block1_cross_attention/query_kernel"] = 30 * positions.T @ positions
    weights["decoder_block1_cross_attention/key_value_kernel"] = np.hstack([positions.T @ positions, words.T @ words])
    weights["decoder_block1_cross_attention/output_kernel"] = features
    weights["transformer/head_words"] = certainty * words
    return options, {path: array.astype(np.float32) for path, array in weights.items()}


def make(path, source, target, *sets, shift=0, certainty=3):
    """A run of the copier, without any training; one that copies all but the first `shift` tokens."""
    options, weights = copier(source.size, shift=shift, certainty=certainty)
    overrides = {f"model.{key}": json.dumps(value) for key, value in options.items()} | {"decode.max_len": str(LENGTH)}
    overrides |= dict(text.split("=", 1) for text in sets)
    (path / "checkpoints").mkdir(parents=True)
    resolved = recipe.resolve("transformer", "tatoeba", overrides=[(*item, "set") for item in overrides.items()])
    (path / "recipe.toml").write_text(resolved.to_toml())
    arguments = {"source_vocabulary": source.size, "target_vocabulary": target.size}
    info = {"format": 1, "task": "translation", "recipe": "x", "data": {}, "model_arguments": arguments}
    (path / "run.json").write_text(json.dumps(info))
    save_tokenizers(path, (source, target))
    checkpoints.write(path / "checkpoints" / "step-7", {"weights": weights}, {"step": 7})
    return path
