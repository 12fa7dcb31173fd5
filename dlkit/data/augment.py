"""Augmentation of images on the host.

There are three kinds, and each has its place: `PIXELS` change images before they are standardized, `IMAGES` and
`TURNS` after it, when zero is the mean, and `MIXES` mix the images of a batch in the end. Within a kind the order is
that of the recipe; of several mixes each example draws one.

What chance does to an example depends on (seed, epoch, example) and nothing else, save with whom it is mixed: with
another example of its global batch. So it does not matter how many devices share a batch, or where a run was resumed.
"""

import inspect
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dlkit.data.images import standardize
from dlkit.errors import UsageError, unknown

Keys = NDArray[np.uint64]
Pixels = NDArray[np.uint8]
Images = NDArray[np.float32]
Batch = dict[str, NDArray]

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(state: Keys, position: Keys) -> Keys:
    """The output at `position` (0 is the first) of the SplitMix64 generator seeded with `state`, element by element.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", with the mixing function that Vigna
    published in splitmix64.c (David Stafford's variant 13). The state after k steps is seed + k * gamma: any output can
    be had without those before it.
    """
    mixed = state + (position + np.uint64(1)) * _GAMMA  # modulo 2**64, as the generator wants
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def example_keys(seed: int, epoch: int, examples: ArrayLike) -> Keys:
    """One key for each example of an epoch.

    Args:
        seed: the seed of the run, non-negative.
        epoch: which pass over the data, non-negative.
        examples: (n,) indices of the examples in their split.

    Returns:
        (n,) uint64.
    """
    of_run = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64)
    of_epoch = splitmix64(of_run, np.array([epoch], dtype=np.uint64))
    return splitmix64(of_epoch, np.asarray(examples, dtype=np.uint64))


def uniform(keys: Keys, draws: int, *, purpose: str) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for each key; another purpose gives other numbers, as if independent.

    Returns:
        (n, draws) float64.
    """
    of_purpose = splitmix64(keys, np.array([zlib.crc32(purpose.encode())], dtype=np.uint64))
    bits = splitmix64(of_purpose[:, np.newaxis], np.arange(draws, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def symmetric_beta(keys: Keys, alpha: float, *, purpose: str) -> NDArray[np.float64]:
    """One number of the distribution Beta(alpha, alpha) for each key, (n,).

    Devroye 1996, "Random variate generation in one line of code": from two uniform numbers and without rejection, by
    way of Student's t with 2 alpha degrees of freedom.
    """
    draws = uniform(keys, 2, purpose=purpose)
    cosine = np.cos(2 * np.pi * draws[:, 1])
    with np.errstate(over="ignore", divide="ignore"):  # infinity is right on the way: 1 / infinity is 0
        ratio = (draws[:, 0] ** (-1 / alpha) - 1) * cosine**2
        return 0.5 + 0.5 * np.sign(cosine) / np.sqrt(1 + 1 / ratio)


# ------------------------------------------------------------------------------------- pixels, before standardization


def trivial(images: Pixels, keys: Keys) -> Pixels:
    """One operation of one strength on each image: TrivialAugment, Wide (Mueller and Hutter 2021).

    The operation is drawn from the 14 of `dlkit.data.trivial`, each as likely, then one of 31 evenly spaced strengths.

    Args:
        images: (n, height, width, channels) uint8, gray or RGB.
        keys: (n,) uint64, of `example_keys`.

    Raises:
        dlkit.errors.UsageError: the images are neither gray nor RGB.
    """
    from PIL import Image

    from dlkit.data.trivial import WIDE, Operation

    channels = images.shape[-1]
    if channels not in {1, 3}:
        raise UsageError(f"trivial changes gray and RGB images, and these have {channels} channels")
    draws = uniform(keys, 3, purpose="trivial")
    operations: list[Operation] = [WIDE[at] for at in (draws[:, 0] * len(WIDE)).astype(np.int64)]
    strengths = ((draws[:, 1] * 31).astype(np.int64) / 30).tolist()
    signs = np.where(draws[:, 2] < 0.5, -1, 1).tolist()
    sources = images if channels == 3 else images[..., 0]
    changed = np.empty_like(images)
    targets = changed if channels == 3 else changed[..., 0]
    for target, source, operation, strength, sign in zip(targets, sources, operations, strengths, signs, strict=True):
        target[...] = np.asarray(operation(Image.fromarray(source), strength, sign))
    return changed


# ----------------------------------------------------------------------------------- images, after the standardization


def crop(images: Images, keys: Keys) -> Images:
    """Pads each side with 1/8 of the image (4 pixels of 32) in zeros and cuts out a random window of the old size.

    He et al. 2015, section 4.2. In standardized images zero is the mean.

    Args:
        images: (n, height, width, channels) float32, standardized.
        keys: (n,) uint64, of `example_keys`.
    """
    count, height, width, _ = images.shape
    margin_y, margin_x = height // 8, width // 8
    draws = uniform(keys, 2, purpose="crop")
    tops = (draws[:, 0] * (2 * margin_y + 1)).astype(np.int64)
    lefts = (draws[:, 1] * (2 * margin_x + 1)).astype(np.int64)
    padded = np.pad(images, ((0, 0), (margin_y, margin_y), (margin_x, margin_x), (0, 0)))
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))  # (n, tops, lefts, channels, height, width)
    return np.moveaxis(windows[np.arange(count), tops, lefts], 1, -1)


def flip(images: Images, keys: Keys) -> Images:
    """Mirrors each image left to right with probability 1/2. Arguments as for `crop`."""
    return mirror(images, are_mirrored(keys))


def are_mirrored(keys: Keys) -> NDArray[np.bool_]:
    """Which images `flip` and `crop_flip` mirror, (n,): texts about them have to know."""
    return uniform(keys, 1, purpose="flip")[:, 0] < 0.5


def mirror(images: Images, mirrored: NDArray[np.bool_]) -> Images:
    """Mirrors some of the images left to right.

    Args:
        images: (n, height, width, channels).
        mirrored: (n,), which ones.
    """
    flipped = images.copy()
    flipped[mirrored] = images[mirrored, :, ::-1]
    return flipped


def alternation(seed: int, epoch: int, examples: ArrayLike) -> NDArray[np.bool_]:
    """Which examples the augmentation `alternate_flip` mirrors in an epoch, (n,): half, and in the next one the others.

    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.6: where `flip` shows one side of an image
    twice in a row every other time, this shows both sides of each image in any two epochs. Arguments as for
    `example_keys`.
    """
    first = uniform(example_keys(seed, 0, examples), 1, purpose="alternate flip")[:, 0] < 0.5
    return first ^ bool(epoch % 2)


def crop_flip(images: Images, keys: Keys) -> Images:
    """A random crop, then a random flip, as He et al. 2015, section 4.2, train on CIFAR-10. Arguments as for `crop`."""
    return flip(crop(images, keys), keys)


def cutout(images: Images, keys: Keys, *, size: Share = 0.5) -> Images:
    """Sets a square to zero, the mean; its centre is anywhere, so a part of it may lie outside.

    DeVries and Taylor 2017, section 3: 16x16 of 32x32 for CIFAR-10. Arguments as for `crop`, and:

    Args:
        images: see `crop`.
        keys: see `crop`.
        size: side of the square as a share of the image's shorter side.
    """
    sides = np.full(len(images), max(1, round(size * min(images.shape[1:3]))))
    changed = images.copy()
    for image, top, bottom, left, right in zip(changed, *_boxes(images, keys, sides, sides, "cutout"), strict=True):
        image[top:bottom, left:right] = 0
    return changed


def _boxes(
    images: Images, keys: Keys, heights: NDArray[np.int64], widths: NDArray[np.int64], purpose: str
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Tops, bottoms, lefts and rights of boxes (n,) around a pixel that is drawn, clipped at the border."""
    edges = []
    draws = uniform(keys, 2, purpose=purpose)
    for draw, side, sides in zip(draws.T, images.shape[1:3], (heights, widths), strict=True):
        first = (draw * side).astype(np.int64) - sides // 2
        edges += [np.maximum(first, 0).tolist(), np.minimum(first + sides, side).tolist()]
    top, bottom, left, right = edges
    return top, bottom, left, right


# ------------------------------------------------------------------------------------------------ mixes of two examples


def mixup(images: Images, others: Images, keys: Keys, *, alpha: Positive = 0.2) -> tuple[Images, NDArray[np.float32]]:
    """The weighted mean of two images (Zhang et al. 2018, equation 1); the weight is drawn for each example.

    Args:
        images: (n, height, width, channels) float32, standardized.
        others: the images to mix them with, of the same shape.
        keys: (n,) uint64, of `example_keys`.
        alpha: the weight is of Beta(alpha, alpha): near 0 or 1 for small values, near 1/2 for large ones. The paper
            takes 0.2 for ImageNet (section 3.1) and 1 for CIFAR-10 (section 3.2).

    Returns:
        The mixed images, and the share (n,) that `images` have in them.
    """
    shares = symmetric_beta(keys, alpha, purpose="mixup").astype(np.float32)
    own = shares[:, np.newaxis, np.newaxis, np.newaxis]
    mixed = others * (1 - own)
    mixed += images * own
    return mixed, shares


def cutmix(images: Images, others: Images, keys: Keys, *, alpha: Positive = 1.0) -> tuple[Images, NDArray[np.float32]]:
    """Pastes a box of another image at the same place (Yun et al. 2019, section 3.1).

    The box has the image's form and an area of 1 - Beta(alpha, alpha); its centre is anywhere. What is clipped at the
    border is not pasted, and the share says what is left to see of the image.

    Args:
        images: see `mixup`.
        others: see `mixup`.
        keys: see `mixup`.
        alpha: of the area's distribution; 1, as in the paper, makes every area as likely.

    Returns:
        The mixed images, and the share (n,) that `images` have in them.
    """
    _, height, width, _ = images.shape
    side = np.sqrt(1 - symmetric_beta(keys, alpha, purpose="cutmix area"))
    heights, widths = (side * height).astype(np.int64), (side * width).astype(np.int64)
    boxes = _boxes(images, keys, heights, widths, "cutmix place")
    mixed = images.copy()
    for image, other, top, bottom, left, right in zip(mixed, others, *boxes, strict=True):
        image[top:bottom, left:right] = other[top:bottom, left:right]
    tops, bottoms, lefts, rights = map(np.array, boxes)
    return mixed, (1 - (bottoms - tops) * (rights - lefts) / (height * width)).astype(np.float32)


# ----------------------------------------------------------------------------------------- all of them, in their places

PIXELS: dict[str, Callable[[Pixels, Keys], Pixels]] = {"trivial": trivial}
IMAGES: dict[str, Callable[..., Images]] = {"crop": crop, "flip": flip, "crop_flip": crop_flip, "cutout": cutout}
TURNS: dict[str, Callable[[Images, NDArray[np.bool_]], Images]] = {"alternate_flip": mirror}
MIXES: dict[str, Callable[..., tuple[Images, NDArray[np.float32]]]] = {"mixup": mixup, "cutmix": cutmix}
AUGMENTATIONS: dict[str, Callable[..., Any]] = PIXELS | IMAGES | TURNS | MIXES


def option_names(name: str) -> dict[str, str]:
    """The options of an augmentation: key of a recipe's [data] -> parameter of the function.

    Example:
        >>> option_names("mixup")
        {'mixup_alpha': 'alpha'}
    """
    parameters = inspect.signature(AUGMENTATIONS[name]).parameters.values()
    return {f"{name}_{each.name}": each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


def check_names(names: Iterable[str]) -> None:
    """Raises a UsageError for a name that is none of `AUGMENTATIONS`."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)


def augment(
    names: Sequence[str],
    pixels: Pixels,
    labels: NDArray[np.int32],
    keys: Keys,
    *,
    mean: ArrayLike,
    std: ArrayLike,
    options: Mapping[str, float] | None = None,
    partners: NDArray[np.int64] | None = None,
    mirrored: NDArray[np.bool_] | None = None,
) -> Batch:
    """Standardizes a batch and applies the named augmentations, each kind at its place. `pixels` stay as they are.

    Args:
        names: keys of `AUGMENTATIONS`.
        pixels: (n, height, width, channels) uint8.
        labels: (n,) int32.
        keys: (n,) uint64, of `example_keys`.
        mean: (channels,), see `dlkit.data.images.standardize`.
        std: (channels,), likewise.
        options: of `option_names`; other keys are left alone.
        partners: (m,), the places of the images that a mix takes for the first m; the rest are there to be taken only.
            Without them the images are a whole batch, which has the `partners` of its keys.
        mirrored: (n,), of `alternation`: for `alternate_flip`, which cannot do without.

    Returns:
        `images` float32, of the shape of `pixels` or of its first m, and `labels`; with a mix also `other_labels` (n,)
        int32, and `shares` (n,) float32: how much of an example is of its own label, the rest being of the other.

    Raises:
        dlkit.errors.UsageError: there is no such augmentation, or it is not for such images.
        ValueError: an `alternate_flip` that is not told what to mirror.

    Example:
        >>> keys = example_keys(seed=0, epoch=3, examples=[17, 4])
        >>> augment(["crop_flip", "mixup"], pixels[[17, 4]], labels[[17, 4]], keys, mean=mean, std=std)
    """
    check_names(names)
    given = options or {}
    functions = {
        name: partial(
            AUGMENTATIONS[name], **{own: given[key] for key, own in option_names(name).items() if key in given}
        )
        for name in names
    }
    for name in names:
        if name in PIXELS:
            pixels = functions[name](pixels, keys)
    images = standardize(pixels, mean, std)
    for name in names:
        if name in IMAGES:
            images = functions[name](images, keys)
        elif name in TURNS:
            if mirrored is None:
                raise ValueError(f"{name} has to be told which images to mirror")
            images = functions[name](images, mirrored)
    count = len(images) if partners is None else len(partners)
    batch: Batch = {"images": images[:count], "labels": labels[:count]}
    if not mixes(names):
        return batch
    others = partners_of(keys) if partners is None else partners
    ways = [functions[name] for name in functions if name in MIXES]
    mixed, shares = _mixed(ways, batch["images"], images[others], keys[:count])
    return batch | {"images": mixed, "other_labels": labels[others], "shares": shares}


def mixes(names: Iterable[str]) -> bool:
    """Whether an augmentation among these mixes examples, so that one takes the images of two."""
    return any(name in MIXES for name in names)


def partners_of(keys: Keys) -> NDArray[np.int64]:
    """Which example of a batch each one is mixed with, (n,), from the keys of them all.

    They stand in a ring in an order that is drawn: everyone has a partner, who is another one unless it is alone, and
    nobody has two.
    """
    ring = np.argsort(uniform(keys, 1, purpose="partner")[:, 0])
    partners = np.empty_like(ring)
    partners[ring] = np.roll(ring, 1)
    return partners


def _mixed(
    ways: Sequence[Callable[..., tuple[Images, NDArray[np.float32]]]], images: Images, others: Images, keys: Keys
) -> tuple[Images, NDArray[np.float32]]:
    """Mixes each image with the other one in the way that it draws, and says how much of it is left."""
    drawn = (uniform(keys, 1, purpose="mix")[:, 0] * len(ways)).astype(np.int64)
    mixed, shares = images.copy(), np.ones(len(images), np.float32)
    for number, mix in enumerate(ways):
        rows = drawn == number
        mixed[rows], shares[rows] = mix(images[rows], others[rows], keys[rows])
    return mixed, shares
