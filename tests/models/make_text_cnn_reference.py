"""Writes reference/text_cnn.npz: weights of the net of Kim 2014 and what PyTorch makes of some texts with them.

By hand, in an environment of its own: `pip install torch numpy`, then `python make_text_cnn_reference.py`. Each text
goes through alone, without padding but for the zeros on both sides that Kim's code puts there.
"""

from pathlib import Path

import numpy as np
import torch
from text_cnn_reference import CLASSES, MAPS, TEXTS, VOCABULARY, WIDTH, WINDOWS
from torch.nn import functional


def main():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
    convs = [torch.nn.Conv1d(WIDTH, MAPS, window) for window in WINDOWS]
    head = torch.nn.Linear(MAPS * len(WINDOWS), CLASSES)
    logits = []
    with torch.no_grad():
        for text in TEXTS:
            x = embedding(torch.tensor([text])).transpose(1, 2)
            pooled = []
            for conv in convs:
                around = conv.kernel_size[0] - 1
                pooled.append(torch.relu(conv(functional.pad(x, (around, around)))).amax(dim=2))
            logits.append(head(torch.cat(pooled, dim=1))[0].numpy())
        arrays = {"embedding": embedding.weight.numpy(), "head": head.weight.numpy().T, "head_bias": head.bias.numpy()}
        for number, conv in enumerate(convs, 1):
            arrays |= {f"conv{number}": conv.weight.numpy().transpose(2, 1, 0), f"bias{number}": conv.bias.numpy()}
    np.savez(Path(__file__).parent / "reference" / "text_cnn.npz", logits=np.array(logits), **arrays)


if __name__ == "__main__":
    main()
