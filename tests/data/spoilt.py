"""Makes image files that are spoilt in every way, and odd ones that are not."""

import io
import os
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image


def encoded(image, kind, **options):
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(seed, side=8, channels=3):
    """A random image; no two are alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def chunk(kind, content):
    """A chunk of a PNG file (PNG specification, section 5.3)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *, depth=8, colour=0, rows=b""):
    """A PNG file that claims a size, whatever its rows are (PNG specification, section 11.2.2)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def claiming(content, kind, side):
    """The bytes of a JPEG, GIF or BMP file with another size in its header."""
    if kind == "GIF":  # the screen and the first frame (GIF89a, sections 18 and 20)
        frame = content.index(b"\x2c")
        sides = struct.pack("<HH", side, side)
        return content[:6] + sides + content[10 : frame + 5] + sides + content[frame + 9 :]
    if kind == "BMP":
        return content[:18] + struct.pack("<ii", side, side) + content[26:]
    start = content.index(b"\xff\xc0") + 5  # JPEG, ITU-T T.81, B.2.2
    return content[:start] + struct.pack(">HH", side, side) + content[start + 4 :]


def cut(kind, make=noise):
    """Makes files that end too early."""
    return lambda seed: encoded(make(seed, 32), kind)[:-400]


def cmyk(seed, side=8):
    """A random image in the four colours of print."""
    return noise(seed, side).convert("CMYK")


def deep(seed, side=8):
    """A random gray image of 16 bits a sample."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 1 << 16, (side, side), dtype=np.uint16))


def frames(kind, seed, side=8, **options):
    """The bytes of an animation of two frames."""
    return encoded(noise(seed, side), kind, save_all=True, append_images=[noise(seed + 1, side)], **options)


def cut_animation(seed):
    """An animation that ends within its first frame: before even that frame alone would."""
    return frames("GIF", seed, 32)[: len(encoded(noise(seed, 32), "GIF")) - 400]


def claiming_much(kind, side):
    """Makes files whose header claims a huge size."""
    return lambda seed: claiming(encoded(noise(seed), kind), kind, side)


# What cannot be read: suffix -> seed -> bytes.
SPOILT = {
    "empty.jpg": lambda seed: b"",
    "text.png": lambda seed: b"no image at all %d" % seed,
    "postscript.png": lambda seed: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "header.png": lambda seed: b"\x89PNG\r\n\x1a\n" + bytes(50),
    "header.jpg": lambda seed: b"\0\0\0\0" + encoded(noise(seed), "JPEG")[4:],
    "cut.png": cut("PNG"),
    "cut.jpg": cut("JPEG"),
    "cut.gif": cut("GIF"),
    "cut.bmp": cut("BMP"),
    "cut.webp": cut("WEBP"),
    "cut_cmyk.jpg": cut("JPEG", cmyk),
    "cut_16bit.png": cut("PNG", deep),
    "cut_animation.gif": cut_animation,
    "huge.png": lambda seed: png(30_000, 30_000),
    "huge.jpg": claiming_much("JPEG", 60_000),
    "huge.gif": claiming_much("GIF", 60_000),
    "huge.bmp": claiming_much("BMP", 30_000),
}
# What is no file: suffix -> what makes it.
NO_FILES = {
    "circle.png": lambda path: path.symlink_to(path.name),
    "nowhere.jpg": lambda path: path.symlink_to("nothing.jpg"),
    "pipe.png": os.mkfifo,
}
KINDS = [*SPOILT, *NO_FILES]
VARIANTS = 20  # of each of SPOILT


@cache
def _content(kind, seed):
    return SPOILT[kind](seed)


def spoil(folder, count):
    """Fills a folder with so many entries that cannot be read, of every kind in turn; returns their names."""
    names = []
    for number in range(count):
        seed, kind = number // len(KINDS) % VARIANTS, KINDS[number % len(KINDS)]
        path = folder / f"{number:05}_{kind}"
        if kind in SPOILT:
            path.write_bytes(_content(kind, seed))
        else:
            NO_FILES[kind](path)
        names.append(path.name)
    return names


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# What can be converted: name -> what `data check` calls it, None for nothing, and seed -> bytes.
ODD = {
    "cmyk.jpg": ("CMYK", lambda seed: encoded(cmyk(seed), "JPEG")),
    "gray16.png": ("16-bit", lambda seed: encoded(Image.fromarray(np.full((8, 8), 257 * 9, np.uint16)), "PNG")),
    "rgb16.png": ("16-bit", lambda seed: png(8, 8, depth=16, colour=2, rows=(b"\0" + b"\x05\x05" * 24) * 8)),
    "animated.gif": ("animated", lambda seed: frames("GIF", seed)),
    "animated.png": ("animated", lambda seed: frames("PNG", seed)),
    "animated.webp": ("animated", lambda seed: frames("WEBP", seed, lossless=True)),
    "palette.png": ("palette", lambda seed: encoded(noise(seed).quantize(16), "PNG")),
    "alpha.png": ("transparent", lambda seed: encoded(noise(seed).convert("RGBA"), "PNG")),
    "named_otherwise.jpg": (None, lambda seed: encoded(noise(seed), "PNG")),
    "turned.jpg": (None, lambda seed: encoded(noise(seed), "JPEG", exif=_exif(6))),
    "broken_exif.jpg": (None, lambda seed: encoded(noise(seed), "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff")),
}
