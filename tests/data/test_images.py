import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dlkit.data.images import ImageData, ImageSplit, read_image, standardize, statistics
from dlkit.errors import DataError, UsageError


def split_of(images):
    images = np.asarray(images, np.uint8)
    return ImageSplit(images, np.zeros(len(images), np.int32))


def test_fetch_follows_the_indices():
    split = ImageSplit(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), np.array([7, 8, 9], np.int32))
    assert len(split) == 3
    assert split.fetch([2, 0, 2]).ravel().tolist() == [2, 0, 2]
    assert split.fetch([]).shape == (0, 1, 1, 1)


def test_shape_is_that_of_one_image():
    assert ImageData("x", ["a"], {"train": split_of(np.zeros((2, 5, 4, 3)))}).shape == (5, 4, 3)


def test_statistics_by_hand():
    """Red is 0 and 255: mean 1/2, deviation 1/2. Green is 51 throughout: mean 1/5, deviation 0."""
    mean, std = statistics(split_of([[[[0, 51], [255, 51]]]]))
    np.testing.assert_allclose(mean, [0.5, 0.2], rtol=1e-15)
    np.testing.assert_allclose(std, [0.5, 0.0], atol=1e-15)


def test_statistics_equal_numpy_over_more_than_one_chunk():
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 2, 3), dtype=np.uint8)
    mean, std = statistics(split_of(images))
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_statistics_of_nothing_is_an_error():
    with pytest.raises(DataError):
        statistics(split_of(np.zeros((0, 2, 2, 1))))


def test_standardized_training_data_have_mean_0_and_deviation_1():
    images = np.random.default_rng(1).integers(0, 200, (50, 4, 4, 3), dtype=np.uint8)
    scaled = standardize(images, *statistics(split_of(images)))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_standardize_centres_a_constant_channel():
    images = np.full((1, 2, 2, 1), 51, np.uint8)
    np.testing.assert_allclose(standardize(images, [0.2], [0.0]), 0, atol=1e-7)


# Reading files


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def columns(left, right, mode="RGB"):
    """An 8x4 image of two colours."""
    image = Image.new(mode, (8, 4), left)
    image.paste(right, (4, 0, 8, 4))
    return image


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.webp"])
def test_lossless_files_come_back_pixel_by_pixel(tmp_path, name):
    path = saved(tmp_path, columns((255, 0, 0), (0, 0, 255)), name, **({"lossless": True} if "webp" in name else {}))
    pixels = read_image(path, (4, 8, 3))
    assert pixels.dtype == np.uint8
    assert pixels[:, :4].reshape(-1, 3).tolist() == [[255, 0, 0]] * 16
    assert pixels[:, 4:].reshape(-1, 3).tolist() == [[0, 0, 255]] * 16


def test_colour_becomes_gray_by_luma_and_gray_becomes_colour(tmp_path):
    """ITU-R 601-2: 0.299 * 255 = 76 for red, 0.114 * 255 = 29 for blue."""
    path = saved(tmp_path, columns((255, 0, 0), (0, 0, 255)), "a.png")
    gray = read_image(path, (4, 8, 1))
    assert gray.shape == (4, 8, 1)
    assert set(gray[:, :4].ravel()) == {76}
    assert set(gray[:, 4:].ravel()) == {29}
    path = saved(tmp_path, columns(10, 200, "L"), "b.png")
    assert read_image(path, (4, 8, 3))[0, 0].tolist() == [10, 10, 10]


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    samples = np.array([[0, 257, 257 * 200, 65535]], np.uint16)
    path = saved(tmp_path, Image.fromarray(samples), "a.png")
    assert read_image(path, (1, 4, 1)).ravel().tolist() == [0, 1, 200, 255]


def test_one_bit_palette_and_cmyk(tmp_path):
    assert read_image(saved(tmp_path, columns(0, 1, "1"), "a.png"), (4, 8, 1))[0, ::7, 0].tolist() == [0, 255]
    palette = columns((255, 0, 0), (0, 0, 255)).quantize(2)
    assert read_image(saved(tmp_path, palette, "b.png"), (4, 8, 3))[0, 0].tolist() == [255, 0, 0]
    # No ink is white and full black ink is black, give or take the JPEG.
    cmyk = saved(tmp_path, columns((0, 0, 0, 0), (0, 0, 0, 255), "CMYK"), "c.jpg")
    assert read_image(cmyk, (4, 8, 1))[0, ::7, 0] == pytest.approx([255, 0], abs=3)


def test_transparent_becomes_white(tmp_path):
    clear_and_half = columns((0, 0, 0, 0), (0, 0, 0, 128), "RGBA")
    pixels = read_image(saved(tmp_path, clear_and_half, "a.png"), (4, 8, 1))[0, ::7, 0]
    assert pixels == pytest.approx([255, 127], abs=1)
    gray = read_image(saved(tmp_path, columns((0, 0), (0, 255), "LA"), "b.png"), (4, 8, 1))[0, ::7, 0]
    assert gray.tolist() == [255, 0]
    palette = columns(0, 1, "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    pixels = read_image(saved(tmp_path, palette, "c.png", transparency=b"\x00\xff"), (4, 8, 3))[0, ::7]
    assert pixels.tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_camera_orientation_comes_out_upright(tmp_path, orientation):
    """The file holds the upright image as a camera in that position stores it (Exif 2.3, tag 0x0112)."""
    upright = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),  # shown after a quarter turn clockwise, so stored a quarter turn back
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "a.png", exif=exif)
    assert read_image(path, (2, 3, 1))[..., 0].tolist() == upright.tolist()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (4, 4), shade) for shade in (40, 200)]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert set(read_image(path, (4, 4, 1)).ravel()) == {40}


def test_shrinking_averages_instead_of_skipping(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    path = saved(tmp_path, Image.fromarray(stripes), "a.png")
    assert read_image(path, (8, 8, 1)).ravel() == pytest.approx(np.full(64, 127.5), abs=8)


def fails(path, shape=(8, 8, 1)):
    with pytest.raises(DataError) as caught:
        read_image(path, shape)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_missing_file_and_a_folder(tmp_path):
    assert "no such file" in fails(tmp_path / "nothing.png")
    assert "not a file" in fails(tmp_path)


def test_what_is_no_image(tmp_path):
    for content in (b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"):
        (tmp_path / "a.png").write_bytes(content)
        assert "not an image" in fails(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.webp"])
def test_a_truncated_file(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[:-500])
    fails(path)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_huge_claimed_size_is_refused_before_it_is_decoded(tmp_path):
    for side in (9_500, 30_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        assert "pixels" in fails(tmp_path / "bomb.png")


def test_other_numbers_of_channels(tmp_path):
    path = saved(tmp_path, Image.new("L", (4, 4)), "a.png")
    with pytest.raises(UsageError, match="2 channels"):
        read_image(path, (4, 4, 2))


def whole_files():
    files = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        stream = io.BytesIO()
        columns((255, 0, 0), (0, 0, 255)).save(stream, kind)
        files.append(stream.getvalue())
    return files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.sampled_from(whole_files()),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
)
def test_damaged_bytes_give_an_image_or_a_data_error(tmp_path, content, edits):
    damaged = bytearray(content)
    for place, value in edits:
        damaged[int(place * (len(damaged) - 1))] = value
    (tmp_path / "a").write_bytes(damaged)
    with contextlib.suppress(DataError):
        assert read_image(tmp_path / "a", (8, 8, 3)).shape == (8, 8, 3)
