"""C4: cut edges or zeros around them, and a stride beside a pool."""

from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.errors import UsageError
from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import prepared
from dlkit.layers.initializers import initializer
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count


def padding_and_stride(
    *,
    kernel: Annotated[int, Field(ge=3, le=15)] = 5,
    filters: Count = 16,
    images: Annotated[int, Field(ge=1, le=1000)] = 200,
    stride: Annotated[int, Field(ge=2, le=8)] = 2,
    standardized: bool = True,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """What a convolution with random kernels makes of the edges of colour images, and what a stride leaves out.

    Outputs near the edge see zeros where there is no image. Zero is black, or the average colour once the mean is
    subtracted: then they have the mean that all outputs have.

    Args:
        kernel: side of the kernels, an odd number.
        filters: kernels, drawn from N(0, 2 / fan_in).
        images: from `synthetic:shapes`.
        stride: positions from one output to the next.
        standardized: whether the mean is subtracted where it is to help; without, that verdict turns.
        seed: of the kernels.

    Raises:
        dlkit.errors.UsageError: an even kernel, which has no middle.
    """
    if kernel % 2 == 0:
        raise UsageError(f"a kernel of {kernel} has no middle", "choose an odd number")
    made = prepared("lenet", "synthetic:shapes", {"data.train": images, "data.size": 32}, seed=seed)
    standard = made.task.batch("train", np.arange(images), epoch=None)["images"]
    mean, std = (np.asarray(made.task.info[key], np.float32) for key in ("mean", "std"))
    raw = standard * std + mean  # 0 is black, 1 is white
    keras.utils.set_random_seed(seed)
    kernels = initializer("he")((kernel, kernel, raw.shape[-1], filters))
    radius = (kernel - 1) // 2
    side = raw.shape[1]
    drift = {
        "as they are": _drift(raw, kernels, radius),
        "mean subtracted": _drift(standard if standardized else raw, kernels, radius),
    }
    cut = _convolved(standard, kernels, zeros=0)
    same = _convolved(standard, kernels, zeros=radius)
    strided = _convolved(standard, kernels, zeros=radius, stride=stride)
    skipped = same[:, ::stride, ::stride]
    pooled = _pooled(same, window=stride, stride=stride)
    both = min(pooled.shape[1], strided.shape[1])
    apart = pooled[:, :both, :both] - strided[:, :both, :both]
    off_pool = float(np.sqrt(np.mean(apart**2)) / same.std())
    distances = list(range(min(8, side // 2)))
    return Finding(
        columns=["convolution", "output"],
        rows=[
            [f"{side}x{side}, {kernel}x{kernel}, edges cut", f"{cut.shape[1]}x{cut.shape[2]}"],
            [f"{side}x{side}, {kernel}x{kernel}, zeros around", f"{same.shape[1]}x{same.shape[2]}"],
            [f"the same with a stride of {stride}", f"{strided.shape[1]}x{strided.shape[2]}"],
        ],
        right=["output"],
        verdicts=[
            Verdict(
                f"cut edges take the radius (k - 1) / 2 = {radius} from each side, zeros keep the size",
                cut.shape[1] == side - 2 * radius and same.shape[1] == side,
                f"{side} becomes {cut.shape[1]} and {same.shape[1]}",
            ),
            Verdict(
                "a stride skips positions: it gives what stride 1 gives there",
                bool(np.allclose(strided, skipped, atol=1e-4)),
                f"largest difference {np.abs(strided - skipped).max():.2g}",
            ),
            Verdict(
                "and is not the same as pooling", off_pool > 0.1,
                f"a max pool differs by {off_pool:.2f} standard deviations",
            ),
            Verdict(
                "with the mean subtracted zeros are the average: edges are at most a quarter as far off",
                drift["mean subtracted"][0] <= drift["as they are"][0] / 4,
                f"mean of the outermost outputs is off by {drift['mean subtracted'][0]:.3f} against "
                f"{drift['as they are'][0]:.3f} standard deviations",
            ),
        ],
        charts=[
            Lines(
                f"{kernel}x{kernel} convolution with zeros around", "distance from the edge, pixels",
                "off the mean of the middle, standard deviations",
                [Line(f"images {how}", distances, [each[at] for at in distances]) for how, each in drift.items()],
            )
        ],
        records=[{"images": how, "off": each} for how, each in drift.items()],
        notes=[f"{images} images of synthetic:shapes, {filters} random kernels"],
    )  # fmt: skip


def _drift(images: NDArray[np.float32], kernels: tf.Tensor, radius: int) -> list[float]:
    """How far the mean of the outputs at each distance from the edge is from that in the middle, over all kernels.

    In standard deviations of the kernel's outputs in the middle.
    """
    outputs = _convolved(images, kernels, zeros=radius)
    side = outputs.shape[1]
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    distance = np.minimum.reduce([rows, columns, side - 1 - rows, side - 1 - columns])
    middle = outputs[:, distance >= radius]
    centre, spread = middle.mean((0, 1)), middle.std((0, 1))
    means = [outputs[:, distance == at].mean((0, 1)) for at in range(side // 2)]
    return [float(np.mean(np.abs(mean - centre) / spread)) for mean in means]


def _convolved(images: NDArray[np.float32], kernels: tf.Tensor, *, zeros: int, stride: int = 1) -> NDArray[np.float32]:
    """The outputs for images with so many zeros on each side, at any stride: "same" would shift what a stride sees."""
    around = [[0, 0], [zeros, zeros], [zeros, zeros], [0, 0]]
    return tf.nn.conv2d(images, kernels, stride, around).numpy()


def _pooled(outputs: NDArray[np.float32], *, window: int, stride: int) -> NDArray[np.float32]:
    """The greatest of each window."""
    return tf.nn.max_pool2d(outputs, window, stride, "VALID").numpy()
