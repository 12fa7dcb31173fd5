"""Writes reference/transformer.npz: weights and outputs of torch.nn.Transformer.

By hand, in an environment of its own: `pip install torch numpy`, then run this file. It imports nothing of dlkit.
"""

from pathlib import Path

import numpy as np
import torch

WIDTH, HEADS, FFN, LAYERS = 8, 2, 12, 2
LENGTHS = [5, 3]  # of the sources
TARGET = 4


def net(norm_first: bool) -> torch.nn.Transformer:
    """PyTorch's Transformer; it ends with two norms in any case, the paper's only where norms come first."""
    made = torch.nn.Transformer(WIDTH, HEADS, LAYERS, LAYERS, FFN, 0.0, batch_first=True, norm_first=norm_first)
    if not norm_first:
        made.encoder.norm = made.decoder.norm = None
    return made.double()


def main() -> None:
    torch.manual_seed(0)
    pre, post = net(norm_first=True), net(norm_first=False)
    for weight in pre.parameters():
        weight.data = torch.randn(weight.shape).mul(0.5).double()  # exact in float32
    post.load_state_dict(pre.state_dict(), strict=False)
    # Embeddings with positions, as they enter the first block.
    source = torch.randn(len(LENGTHS), max(LENGTHS), WIDTH).double()
    target = torch.randn(len(LENGTHS), TARGET, WIDTH).double()
    padding = torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None]
    future = torch.triu(torch.ones(TARGET, TARGET, dtype=torch.bool), diagonal=1)
    masks = {"tgt_mask": future, "src_key_padding_mask": padding, "memory_key_padding_mask": padding}

    arrays = {name: weight.float() for name, weight in pre.state_dict().items()}
    arrays |= {"source": source.float(), "target": target.float()}
    arrays |= {"pre": pre(source, target, **masks), "post": post(source, target, **masks)}
    np.savez_compressed(
        Path(__file__).parent / "reference" / "transformer.npz",
        **{name: array.detach().numpy() for name, array in arrays.items()},
    )


if __name__ == "__main__":
    main()
