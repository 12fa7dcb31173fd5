"""What decoding has to find, in plain Python: every sequence there is, and the beam search in the lecture's words."""

import itertools

import numpy as np
import tensorflow as tf

from dlkit.decode.step import Step

PAD, START, END = 0, 1, 2
CODES = 997  # of prefixes; a prime, so that prefixes hardly ever share one


class ScriptedModel:
    """A model whose logits are random numbers that depend on the row and on its whole prefix.

    The attention is random, too: over as many source positions as asked for.
    """

    def __init__(self, rows=1, vocabulary=6, *, seed=0, scale=2.0, source_time=3):
        random = np.random.default_rng(seed)
        self.table = (scale * random.standard_normal((rows, CODES, vocabulary))).astype(np.float32)
        self.weights = random.dirichlet(np.ones(source_time), (rows, CODES)).astype(np.float32)
        self.vocabulary = vocabulary

    def start(self, source, *, max_len=0):
        """`source` (batch, 1 or more): its first column says which row of the script each row is."""
        rows = tf.cast(source[:, :1], tf.int32)
        return {"code": tf.zeros_like(rows)}, {"row": rows[:, 0]}

    def step(self, tokens, state, memory):
        code = (state["code"] * 31 + tokens + 1) % CODES
        row = tf.broadcast_to(memory["row"][:, None], tf.shape(tokens))
        at = tf.stack([row, code], axis=-1)
        return Step(tf.gather_nd(self.table, at), {"code": code}, tf.gather_nd(self.weights, at))

    def code(self, prefix):
        code = 0
        for token in (START, *prefix):
            code = (code * 31 + token + 1) % CODES
        return code

    def log_probabilities(self, row, prefix):
        logits = self.table[row, self.code(prefix)].astype(np.float64)
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()

    def log_probability(self, row, tokens):
        return sum(self.log_probabilities(row, tokens[:at])[token] for at, token in enumerate(tokens))


def normalized(log_probability, length, norm, alpha=0.6):
    return log_probability / {"avg": length, "gnmt": (5 + length) ** alpha / (5 + 1) ** alpha, "none": 1}[norm]


def every_sequence(vocabulary, max_len):
    """All outputs of at most `max_len` tokens, the end token included."""
    words = [token for token in range(vocabulary) if token not in {PAD, END}]
    for length in range(max_len):
        for prefix in itertools.product(words, repeat=length):
            yield (*prefix, END)


def ranked(model, row, sequences, norm, alpha=0.6):
    """(score, log-probability, tokens) of sequences, the best first."""
    scored = [(model.log_probability(row, tokens), tokens) for tokens in sequences]
    return sorted(((normalized(p, len(tokens), norm, alpha), p, tokens) for p, tokens in scored), reverse=True)


def lecture_search(model, row, *, beams, max_len, norm, alpha=0.6, n_best=1, min_len=0, prefix=(), patience=1):
    """Keep the k best prefixes, expand each, keep k; a hypothesis that ends is set aside.

    Stop when enough have ended and the best prefix, as it stands, is behind them.
    """
    enough = patience * beams
    alive, ended = [((), 0.0)], []
    for length in range(1, max_len + 1):
        grown, forced = [], length <= len(prefix) and length < max_len
        for tokens, total in alive:
            each = model.log_probabilities(row, tokens)
            for token in range(1, model.vocabulary):
                if length == max_len:
                    allowed = token == END
                elif forced:
                    allowed = token == prefix[length - 1]
                else:
                    allowed = token != END or length >= min_len
                if allowed:
                    grown.append(((*tokens, token), total + each[token]))
        grown.sort(key=lambda one: -one[1])
        ended += [one for one in grown[:beams] if one[0][-1] == END and not forced]
        alive = [one for one in grown if one[0][-1] != END or forced][:beams]
        if not alive:
            break
        scores = sorted((normalized(total, len(tokens), norm, alpha) for tokens, total in ended), reverse=True)
        if len(ended) >= enough and scores[int(np.ceil(min(enough, beams))) - 1] >= normalized(
            alive[0][1], length, norm, alpha
        ):
            break
    scored = [(normalized(total, len(tokens), norm, alpha), total, tokens) for tokens, total in ended]
    return sorted(scored, reverse=True)[:n_best]


def forced_scores(model, source, targets):
    """(batch, time) log-probability of each token of given outputs, by a model that goes step by step; 0 at padding."""
    state, memory = model.start(source)
    given = np.pad(targets, ((0, 0), (1, 0)), constant_values=START)
    scores = np.zeros(targets.shape)
    for at in range(targets.shape[1]):
        made = model.step(tf.constant(given[:, at : at + 1], tf.int32), state, memory)
        state, logits = made.state, made.logits[:, 0].numpy().astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        scores[:, at] = log_probabilities[np.arange(len(targets)), targets[:, at]]
    return np.where(targets != PAD, scores, 0)


def source_of(rows, time=1):
    """Source ids for `ScriptedModel.start`."""
    return np.repeat(np.array(rows, np.int32)[:, None], time, axis=1)


def sequences(decoded, row):
    """The hypotheses of a row as tuples of tokens, those that do not exist left out."""
    pairs = zip(np.asarray(decoded.tokens[row]), np.asarray(decoded.lengths[row]), strict=True)
    return [tuple(tokens[:length].tolist()) for tokens, length in pairs if length]
