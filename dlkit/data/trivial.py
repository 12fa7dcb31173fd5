"""The operations of TrivialAugment with its Wide ranges (Mueller and Hutter 2021), on Pillow images."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps


@dataclass(frozen=True)
class Operation:
    """One operation and the magnitudes that the strengths from 0 to 1 stand for.

    Args:
        name: as in the paper.
        function: from an image and a magnitude to another image.
        weakest: the magnitude of strength 0.
        strongest: the magnitude of strength 1.
        signed: whether the magnitude is as likely to be negative.
    """

    name: str
    function: Callable[[Image.Image, float], Image.Image]
    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False

    def __call__(self, image: Image.Image, strength: float, sign: int) -> Image.Image:
        """Changes an image; `sign` is 1 or -1."""
        magnitude = self.weakest + strength * (self.strongest - self.weakest)
        return self.function(image, sign * magnitude if self.signed else magnitude)


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    """Takes the pixel (x, y) from (a x + b y + c, d x + e y + f); what comes in from outside is black."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


# Shears are about the upper left corner, and neighbours are taken and not averaged, as in the authors' code.
WIDE = [
    Operation("Identity", lambda image, _: image),
    Operation("ShearX", lambda image, slope: _moved(image, 1, slope, 0, 0, 1, 0), 0, 0.99, signed=True),
    Operation("ShearY", lambda image, slope: _moved(image, 1, 0, 0, slope, 1, 0), 0, 0.99, signed=True),
    Operation("TranslateX", lambda image, pixels: _moved(image, 1, 0, pixels, 0, 1, 0), 0, 32, signed=True),
    Operation("TranslateY", lambda image, pixels: _moved(image, 1, 0, 0, 0, 1, pixels), 0, 32, signed=True),
    Operation("Rotate", lambda image, degrees: image.rotate(degrees), 0, 135, signed=True),
    Operation("Brightness", lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), 0.01, 2),
    Operation("Color", lambda image, factor: ImageEnhance.Color(image).enhance(factor), 0.01, 2),
    Operation("Contrast", lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), 0.01, 2),
    Operation("Sharpness", lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), 0.01, 2),
    Operation("Posterize", lambda image, bits: ImageOps.posterize(image, round(bits)), 8, 2),
    Operation("Solarize", lambda image, threshold: ImageOps.solarize(image, round(threshold)), 256, 0),
    Operation("AutoContrast", lambda image, _: ImageOps.autocontrast(image)),
    Operation("Equalize", lambda image, _: ImageOps.equalize(image)),
]
