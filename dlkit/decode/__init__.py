"""Decoding over a step function: `step(tokens, state) -> (logits, state)`."""
