"""Decoding: it never sees a model, only `start(source) -> state, memory` and `step(tokens, state, memory) -> Step`."""
