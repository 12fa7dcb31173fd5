"""Several models that decode as one."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dlkit.decode.step import Decodable, Step, reorder_of, with_room


class Ensemble:
    """Models that say together what comes next: their probabilities are averaged at each step.

    They need one target vocabulary. Where they read the source with tokenizers of their own, each is given its own ids.

    Args:
        models: at least one.
    """

    def __init__(self, models: Sequence[Decodable]) -> None:
        self.models = tuple(models)

    def start(self, source: Any, *, max_len: tf.Tensor | int = 0) -> tuple[Any, Any]:
        """States and memories of all models, for one batch of source ids or for a tuple of one a model."""
        sources = source if isinstance(source, tuple) else (source,) * len(self.models)
        begun = [model.start(own, max_len=max_len) for model, own in zip(self.models, sources, strict=True)]
        return tuple(state for state, _ in begun), tuple(memory for _, memory in begun)

    def with_room(self, state: Any, memory: Any, *, steps: int, beams: int) -> tuple[Any, Any]:
        """Each model makes its own state and memory ready."""
        ready = [
            with_room(model, own, remembered, steps=steps, beams=beams)
            for model, own, remembered in zip(self.models, state, memory, strict=True)
        ]
        return tuple(state for state, _ in ready), tuple(memory for _, memory in ready)

    def step(self, tokens: tf.Tensor, state: Any, memory: Any) -> Step:
        """Goes on with tokens (batch, beams); the attention is that of the first model that has one."""
        made = [
            model.step(tokens, own, remembered)
            for model, own, remembered in zip(self.models, state, memory, strict=True)
        ]
        attention = next((one.attention for one in made if one.attention is not None), None)
        return Step(mean_logits([one.logits for one in made]), tuple(one.state for one in made), attention)

    def reorder(self, state: Any, parents: tf.Tensor) -> Any:
        """Each model moves its own state."""
        return tuple(reorder_of(model)(own, parents) for model, own in zip(self.models, state, strict=True))


def mean_logits(logits: Sequence[tf.Tensor]) -> tf.Tensor:
    """Logits whose probabilities are the mean of the models' probabilities, in float32; of one model its own.

    Args:
        logits: for each model (..., vocabulary).
    """
    if len(logits) == 1:
        return logits[0]
    log_probabilities = [tf.nn.log_softmax(tf.cast(one, tf.float32)) for one in logits]
    return tf.reduce_logsumexp(tf.stack(log_probabilities), axis=0) - tf.math.log(float(len(logits)))
