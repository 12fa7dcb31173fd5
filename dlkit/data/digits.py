"""Handwritten digits that come with dlkit: 1,797 real 8x8 images (Alpaydin and Kaynak 1998, UCI), in files/digits.npz.

The split is fixed, so results compare across machines and versions. It is stratified over the digits but not over the
writers: the same 13 people wrote all three splits, so test accuracy speaks of new digits and not of new writers.
"""

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from dlkit.data.images import ImageData, ImageSplit
from dlkit.errors import UsageError

CLASSES = [str(digit) for digit in range(10)]
INK = 16  # the largest value of a pixel: each counts the ink in a block of 4x4 of the scanned bitmap

# The test split, drawn once, before anything was trained: 360 rows, of each digit its share of the whole.
# fmt: off
TEST_ROWS = (
    3, 7, 13, 19, 36, 38, 43, 48, 53, 55, 60, 62, 65, 66, 69, 70, 72, 93, 98, 104, 112, 114, 115, 133, 137, 143,
    144, 145, 151, 153, 154, 156, 163, 169, 175, 178, 180, 182, 192, 195, 201, 203, 206, 217, 219, 223, 224, 232,
    238, 256, 257, 260, 261, 262, 269, 270, 271, 272, 273, 287, 295, 296, 297, 311, 316, 317, 322, 343, 350, 352,
    355, 357, 359, 363, 365, 371, 390, 391, 415, 419, 424, 429, 431, 434, 435, 447, 451, 453, 455, 456, 457, 462,
    468, 470, 471, 473, 477, 480, 483, 485, 486, 488, 495, 501, 507, 508, 510, 512, 517, 518, 529, 536, 537, 541,
    543, 546, 549, 552, 554, 558, 561, 570, 574, 577, 578, 585, 588, 589, 591, 592, 594, 600, 601, 612, 613, 617,
    618, 620, 622, 625, 626, 632, 640, 647, 655, 656, 658, 680, 681, 683, 684, 685, 686, 692, 711, 717, 735, 740,
    745, 751, 754, 763, 764, 777, 791, 796, 801, 803, 804, 807, 826, 827, 828, 836, 844, 848, 849, 851, 858, 868,
    871, 879, 881, 882, 883, 886, 889, 892, 895, 897, 902, 910, 913, 920, 921, 932, 942, 947, 948, 952, 954, 956,
    959, 969, 971, 975, 976, 981, 983, 984, 991, 1020, 1028, 1033, 1040, 1043, 1046, 1055, 1059, 1062, 1072, 1075,
    1077, 1080, 1083, 1085, 1089, 1094, 1097, 1106, 1113, 1120, 1126, 1128, 1130, 1131, 1133, 1143, 1144, 1156,
    1158, 1160, 1165, 1178, 1179, 1181, 1197, 1210, 1212, 1222, 1225, 1231, 1235, 1245, 1247, 1248, 1249, 1256,
    1257, 1260, 1265, 1266, 1272, 1280, 1281, 1283, 1290, 1291, 1300, 1303, 1305, 1307, 1309, 1311, 1316, 1324,
    1326, 1337, 1343, 1346, 1349, 1355, 1357, 1362, 1373, 1378, 1380, 1384, 1399, 1402, 1408, 1412, 1414, 1416,
    1417, 1419, 1423, 1425, 1427, 1446, 1447, 1452, 1464, 1465, 1468, 1475, 1486, 1491, 1492, 1501, 1506, 1510,
    1514, 1516, 1525, 1527, 1531, 1538, 1544, 1553, 1559, 1565, 1571, 1575, 1580, 1583, 1589, 1594, 1598, 1604,
    1607, 1609, 1622, 1627, 1630, 1633, 1651, 1658, 1659, 1663, 1678, 1684, 1694, 1697, 1702, 1708, 1710, 1729,
    1732, 1737, 1740, 1751, 1762, 1774, 1782, 1783, 1784, 1792, 1795, 1796,
)
# fmt: on


def digits(*, size: int = 32) -> ImageData:
    """The UCI digits as `size` x `size` gray images, white ink on black.

    Splits: 1,293 train, 144 validation, 360 test. LeNet's input is 32x32 (LeCun et al. 1998), hence the default.

    Args:
        size: side of the images in pixels, 8 (as published) to 256; larger ones are interpolated bilinearly.

    Raises:
        dlkit.errors.UsageError: the size is out of range.

    Example:
        >>> len(digits().splits["test"])
        360
    """
    if not 8 <= size <= 256:
        raise UsageError(f"digits have no size {size}", "choose data.size from 8 to 256")
    images, labels = read()
    pixels = resize(images.astype(np.float32), size) * (255 / INK)
    pixels = np.rint(pixels).astype(np.uint8)[..., np.newaxis]  # (n, size, size, 1)
    rows = split_rows(labels)
    return ImageData("digits", CLASSES, {name: ImageSplit(pixels[at], labels[at]) for name, at in rows.items()})


def read() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The images as published, (1797, 8, 8) uint8 of 0 to 16, and their labels, (1797,) int32."""
    with resources.files("dlkit.data").joinpath("files/digits.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        return arrays["images"], arrays["labels"].astype(np.int32)


def split_rows(labels: NDArray[np.int32]) -> dict[str, NDArray[np.int64]]:
    """The rows of each split: `TEST_ROWS`, then every tenth of the others, taken digit by digit, then what is left."""
    test = np.array(TEST_ROWS)
    others = np.setdiff1d(np.arange(len(labels)), test)
    by_digit = others[np.argsort(labels[others], kind="stable")]
    validation = np.sort(by_digit[::10])
    return {"train": np.setdiff1d(others, validation), "validation": validation, "test": test}


def resize(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Bilinear interpolation of square images, (n, side, side), to a larger `size`.

    Pixels are areas with the value at their centre; beyond the outer centres the value stays as it is.
    """
    side = images.shape[1]
    centres = (np.arange(size) + 0.5) * side / size - 0.5
    weights = np.maximum(0, 1 - np.abs(np.clip(centres, 0, side - 1)[:, None] - np.arange(side)))  # (size, side)
    weights = weights.astype(np.float32)
    return weights @ images @ weights.T
