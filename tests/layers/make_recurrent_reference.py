"""Writes reference/recurrent.npz: what PyTorch's recurrent layers make of padded sequences.

By hand, in an environment of its own: `pip install torch numpy`, then
`python tests/layers/make_recurrent_reference.py`. It imports nothing of dlkit.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FEATURES, UNITS, LENGTHS = 3, 4, [5, 2, 4]
LAYERS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def main() -> None:
    """Two levels, both directions, in float64; weights, inputs, results and the gradient of the inputs."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    arrays = {}
    for name, kind in LAYERS.items():
        layer = kind(FEATURES, UNITS, num_layers=2, bidirectional=True, batch_first=True)
        for key, weight in layer.named_parameters():
            torch.nn.init.normal_(weight)
            if name == "gru" and key.startswith("bias_hh"):
                weight.data[2 * UNITS :] = 0  # the paper's candidate has no bias inside of the reset gate's product
            arrays[f"{name}/{key}"] = weight.detach().numpy()
        inputs = torch.randn(len(LENGTHS), max(LENGTHS), FEATURES, requires_grad=True)
        packed = pack_padded_sequence(inputs, LENGTHS, batch_first=True, enforce_sorted=False)
        outputs, state = layer(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True)
        hidden, *cells = state if name == "lstm" else (state,)
        (outputs.square().sum() + sum(x.sin().sum() for x in (hidden, *cells))).backward()
        arrays |= {f"{name}/inputs": inputs.detach().numpy(), f"{name}/gradient": inputs.grad.numpy()}
        # (levels * directions, batch, units)
        arrays |= {f"{name}/outputs": outputs.detach().numpy(), f"{name}/h": hidden.detach().numpy()}
        if cells:
            arrays[f"{name}/c"] = cells[0].detach().numpy()
    np.savez_compressed(Path(__file__).parent / "reference" / "recurrent.npz", lengths=LENGTHS, **arrays)


if __name__ == "__main__":
    main()
