"""Writes reference/*.npz: the logits of nets written a second time, in PyTorch, from the papers.

By hand, in an environment of its own: `pip install torch numpy`, then `python tests/models/make_reference.py`. It
imports nothing of dlkit. Only the names of the layers are shared, since the weights are derived from them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from reference_weights import CASES, CLASSES, batch_norm, bias, images, kernel
from torch import Tensor

FOLDER = Path(__file__).parent / "reference"


def tensor(array: np.ndarray) -> Tensor:
    """In float64, so that what differs is the other side's rounding."""
    return torch.from_numpy(array).double()


def conv(x: Tensor, name: str, out: int, size: int, *, stride: int = 1, pad: int = 0, groups: int = 1) -> Tensor:
    """A convolution without bias; `pad` zeros on each side."""
    weight = tensor(kernel(name, (size, size, x.shape[1] // groups, out))).permute(3, 2, 0, 1)
    return F.conv2d(x, weight, None, stride, pad, 1, groups)


def plus_bias(x: Tensor, name: str) -> Tensor:
    """The bias of the layer whose maps are `x`."""
    return x + tensor(bias(name, x.shape[1])).view(1, -1, 1, 1)


def norm(x: Tensor, name: str) -> Tensor:
    """Batch norm at inference, written out; epsilon as in torch.nn.BatchNorm2d."""
    gamma, beta, mean, variance = (tensor(v).view(1, -1, 1, 1) for v in batch_norm(name, x.shape[1]).values())
    return (x - mean) / (variance + 1e-5) ** 0.5 * gamma + beta


def linear(x: Tensor, name: str, out: int) -> Tensor:
    """A dense layer with bias."""
    return x @ tensor(kernel(name, (x.shape[1], out))) + tensor(bias(name, out))


def flat(x: Tensor) -> Tensor:
    """Maps as one vector, in the order height, width, map."""
    return x.permute(0, 2, 3, 1).flatten(1)


def basic_residual(x: Tensor, at: str, out: int, stride: int) -> Tensor:
    """F of He et al. 2015, figure 5 left."""
    f = F.relu(norm(conv(x, f"{at}_conv1", out, 3, stride=stride, pad=1), f"{at}_norm1"))
    return norm(conv(f, f"{at}_conv2", out, 3, pad=1), f"{at}_norm2")


def bottleneck_residual(x: Tensor, at: str, out: int, stride: int) -> Tensor:
    """F of figure 5 right; table 1 of the paper: the first layer of a stage has the stride."""
    f = F.relu(norm(conv(x, f"{at}_conv1", out // 4, 1, stride=stride), f"{at}_norm1"))
    f = F.relu(norm(conv(f, f"{at}_conv2", out // 4, 3, pad=1), f"{at}_norm2"))
    return norm(conv(f, f"{at}_conv3", out, 1), f"{at}_norm3")


def imagenet_resnet(x: Tensor, residual: Callable[..., Tensor], blocks: list[int], widths: list[int]) -> Tensor:
    """He et al. 2015, table 1, with projections where the dimensions increase."""
    x = F.relu(norm(conv(x, "stem_conv", 64, 7, stride=2, pad=3), "stem_norm"))
    x = F.max_pool2d(x, 3, 2, padding=1)
    for stage in range(4):
        for block in range(blocks[stage]):
            at = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage and not block else 1
            f = residual(x, at, widths[stage], stride)
            if block == 0 and widths[stage] != x.shape[1]:
                x = norm(conv(x, f"{at}_shortcut_conv", widths[stage], 1, stride=stride), f"{at}_shortcut_norm")
            x = F.relu(f + x)
    return linear(x.mean((2, 3)), "head", CLASSES)


def resnet18(x: Tensor) -> Tensor:
    """Table 1, 18-layer."""
    return imagenet_resnet(x, basic_residual, [2, 2, 2, 2], [64, 128, 256, 512])


def resnet50(x: Tensor) -> Tensor:
    """Table 1, 50-layer."""
    return imagenet_resnet(x, bottleneck_residual, [3, 4, 6, 3], [256, 512, 1024, 2048])


def resnet20(x: Tensor) -> Tensor:
    """He et al. 2015, section 4.2, n = 3."""
    x = F.relu(norm(conv(x, "stem_conv", 16, 3, pad=1), "stem_norm"))
    for stage, width in enumerate([16, 32, 64]):
        for block in range(3):
            f = basic_residual(x, f"stage{stage + 1}_block{block + 1}", width, 2 if stage and not block else 1)
            if f.shape[1] > x.shape[1]:
                x = x[:, :, ::2, ::2]
                x = torch.cat([x, torch.zeros_like(x)], 1)
            x = F.relu(f + x)
    return linear(x.mean((2, 3)), "head", CLASSES)


def vgg16_norm(x: Tensor) -> Tensor:
    """Simonyan and Zisserman 2015, table 1 column D, batch norm in place of the convolutions' biases."""
    for stage, widths in enumerate([[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3], 1):
        for number, width in enumerate(widths, 1):
            x = F.relu(norm(conv(x, f"stage{stage}_conv{number}", width, 3, pad=1), f"stage{stage}_norm{number}"))
        x = F.max_pool2d(x, 2)
    x = F.relu(linear(flat(x), "dense1", 4096))
    return linear(F.relu(linear(x, "dense2", 4096)), "head", CLASSES)


def response_norm(x: Tensor) -> Tensor:
    """Krizhevsky et al. 2012, section 3.3, map by map; k 2, n 5, alpha 1e-4, beta 0.75."""
    maps = x.shape[1]
    parts = []
    for i in range(maps):
        near = x[:, max(0, i - 2) : min(maps - 1, i + 2) + 1]
        parts.append(x[:, i] / (2 + 1e-4 * (near**2).sum(1)) ** 0.75)
    return torch.stack(parts, 1)


def alexnet_features(x: Tensor, groups: int, after: Callable[[Tensor], Tensor]) -> Tensor:
    """Krizhevsky et al. 2012, figure 2; `after` follows the first two convolutions."""
    x = after(F.relu(plus_bias(conv(x, "conv1", 96, 11, stride=4, pad=2), "conv1")))
    x = after(F.relu(plus_bias(conv(x, "conv2", 256, 5, pad=2, groups=groups), "conv2")))
    x = F.relu(plus_bias(conv(x, "conv3", 384, 3, pad=1), "conv3"))
    x = F.relu(plus_bias(conv(x, "conv4", 384, 3, pad=1, groups=groups), "conv4"))
    x = F.relu(plus_bias(conv(x, "conv5", 256, 3, pad=1, groups=groups), "conv5"))
    x = F.relu(linear(flat(F.max_pool2d(x, 3, 2)), "dense1", 4096))
    return linear(F.relu(linear(x, "dense2", 4096)), "head", CLASSES)


def alexnet(x: Tensor) -> Tensor:
    """In one tower; pool, then normalize."""
    return alexnet_features(x, 1, lambda maps: response_norm(F.max_pool2d(maps, 3, 2)))


def alexnet_paper(x: Tensor) -> Tensor:
    """In two halves; normalize, then pool."""
    return alexnet_features(x, 2, lambda maps: F.max_pool2d(response_norm(maps), 3, 2))


NETS = {net.__name__: net for net in (resnet18, resnet50, resnet20, vgg16_norm, alexnet, alexnet_paper)}


def main() -> None:
    """Computes and writes all logits."""
    FOLDER.mkdir(exist_ok=True)
    for name, case in CASES.items():
        pixels = images(case)
        with torch.inference_mode():
            logits = NETS[name](tensor(pixels).permute(0, 3, 1, 2)).numpy()
        # The pixels tell a changed generator of NumPy from a changed net.
        np.savez(FOLDER / f"{name}.npz", logits=logits, first_pixels=pixels.ravel()[:8])
        print(f"{name:<14} logits of size {np.abs(logits).mean():.2f}")


if __name__ == "__main__":
    main()
