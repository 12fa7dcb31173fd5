"""Writes reference/multi_head_attention.npz: weights and results of torch.nn.MultiheadAttention.

By hand, in an environment of its own: `pip install torch numpy`, then run this file.
"""

from pathlib import Path

import numpy as np
import torch

WIDTH, HEADS, QUERIES, STATES = 6, 3, 4, 5


def main() -> None:
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.8)
    queries = torch.randn(2, QUERIES, WIDTH, dtype=torch.float64)
    states = torch.randn(2, STATES, WIDTH, dtype=torch.float64)
    hidden = torch.tensor([[False] * STATES, [False, False, True, True, True]])  # PyTorch marks what is hidden
    future = torch.triu(torch.ones(QUERIES, QUERIES, dtype=torch.bool), diagonal=1)

    arrays = {name: weight.detach() for name, weight in layer.named_parameters()}
    arrays |= {"queries": queries, "states": states, "real": ~hidden}
    options = {"need_weights": True, "average_attn_weights": False}
    arrays["cross_output"], arrays["cross_weights"] = layer(queries, states, states, key_padding_mask=hidden, **options)
    arrays["causal_output"], arrays["causal_weights"] = layer(queries, queries, queries, attn_mask=future, **options)
    folder = Path(__file__).parent / "reference"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(
        folder / "multi_head_attention.npz", **{name: array.detach().numpy() for name, array in arrays.items()}
    )


if __name__ == "__main__":
    main()
