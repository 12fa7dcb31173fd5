import contextlib
import io
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from spoilt import KINDS, ODD, chunk, encoded, noise, png, spoil

from dlkit.data import image_files
from dlkit.data.image_files import open_image, pixel_digest, read_header, read_image
from dlkit.errors import DataError, UsageError


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


def test_every_16_bit_shade_is_rounded_to_the_nearest(tmp_path):
    samples = np.arange(65536).reshape(256, 256)
    path = saved(tmp_path, Image.fromarray(samples.astype(np.uint16)), "a.png")
    np.testing.assert_array_equal(read_image(path, (256, 256, 1))[..., 0], np.rint(samples / 65535 * 255))


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


def scaled_by_hand(values, out, start, scale):
    """Bilinear resampling along the first axis with antialiasing: a triangle of `scale` to each side of the centre."""
    places = np.arange(len(values)) + 0.5
    centres = start + (np.arange(out) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(places - centres[:, None]) / max(scale, 1))
    return np.tensordot(weights / weights.sum(axis=1, keepdims=True), values, axes=1)


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (24, 24), (7, 40), (12, 13)])
def test_the_shorter_side_is_scaled_and_the_middle_cut_out(tmp_path, height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(pixels), "a.png")
    scale = min(height, width) / 12
    rows = scaled_by_hand(pixels.astype(float), 12, (height - 12 * scale) / 2, scale)
    both = scaled_by_hand(rows.T, 12, (width - 12 * scale) / 2, scale).T
    np.testing.assert_allclose(read_image(path, (12, 12, 1))[..., 0], both, atol=1.5)


def test_the_middle_of_an_image_of_the_right_height_is_left_alone(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 30, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(pixels), "a.png")
    np.testing.assert_array_equal(read_image(path, (10, 30, 3)), pixels)
    np.testing.assert_array_equal(read_image(path, (10, 10, 3)), pixels[:, 10:20])
    np.testing.assert_array_equal(read_image(path, (10, 20, 3)), pixels[:, 5:25])


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photograph_is_decoded_smaller_but_looks_the_same(tmp_path, orientation):
    """A ramp from left to right, 1200 x 800 as the camera stores it: upright, 6 makes it one from top to bottom."""
    ramp = np.tile(np.linspace(0, 255, 1200).astype(np.uint8), (800, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(ramp), "a.jpg", quality=95, exif=exif)
    seen = read_image(path, (40, 40, 1))[..., 0]
    expected = np.tile((200 + (np.arange(40) + 0.5) * 20) / 1200 * 255, (40, 1))
    np.testing.assert_allclose(seen, expected.T if orientation == 6 else expected, atol=3)


def test_a_photograph_that_is_decoded_smaller_keeps_its_detail(tmp_path):
    """Blocks of 40 pixels become blocks of 5; decoded at 1/8, one pixel a pixel, their edges would be blurred."""
    blocks = np.random.default_rng(0).choice([0, 255], (12, 12)).astype(np.uint8)
    photograph = Image.fromarray(np.kron(blocks, np.ones((40, 40), np.uint8)))
    seen = read_image(saved(tmp_path, photograph, "a.jpg", quality=95), (72, 72, 1))[..., 0]
    full = scaled_by_hand(scaled_by_hand(np.asarray(photograph, float), 72, 0, 480 / 72).T, 72, 0, 480 / 72).T
    assert np.abs(seen - full).mean() < 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 60), width=st.integers(1, 60), rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_any_size_becomes_any_other(tmp_path, height, width, rows, columns):
    path = saved(tmp_path, Image.new("L", (width, height), 99), "a.png")
    assert (read_image(path, (rows, columns, 1)) == 99).all()


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
    assert fails(tmp_path / ("x" * 300)).startswith("no such file: "), "of a name that no file can have"


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


def test_a_huge_claimed_size_is_refused_before_it_is_decoded(tmp_path):
    for side in (9_500, 30_000, 60_000):
        (tmp_path / "bomb.png").write_bytes(png(side, side, rows=bytes(100)))
        assert "pixels" in fails(tmp_path / "bomb.png")


def test_each_kind_of_spoilt_file_is_a_data_error(tmp_path):
    for name in spoil(tmp_path, len(KINDS)):
        fails(tmp_path / name)


def test_what_a_link_is_missing(tmp_path):
    (tmp_path / "a.png").symlink_to("a.png")
    (tmp_path / "b.png").symlink_to("nothing.png")
    assert "leads in a circle" in fails(tmp_path / "a.png")
    assert "leads nowhere" in fails(tmp_path / "b.png")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "not a file" in fails(tmp_path / "a.png")
    with pytest.raises(DataError) as caught:
        read_header(tmp_path / "a.png")
    assert caught.value.hint == "copy into a file what comes out of it"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = saved(tmp_path, Image.new("L", (8, 8)), "a.png")
    path.chmod(0)
    assert "permission denied" in fails(path)


def test_no_permission_and_no_memory_are_no_damage(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (8, 8)), "a.png")
    for failure, words in ((PermissionError(13, "Permission denied"), "permission denied"), (MemoryError(), "memory")):
        with monkeypatch.context() as patched:
            patched.setattr(Image, "open", lambda *_, failure=failure, **__: (_ for _ in ()).throw(failure))
            assert words in fails(path)


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_converted(tmp_path, name):
    (tmp_path / name).write_bytes(ODD[name][1](1))
    assert read_image(tmp_path / name, (8, 8, 3)).shape == (8, 8, 3)


def test_16_bit_colours(tmp_path):
    (tmp_path / "a.png").write_bytes(ODD["rgb16.png"][1](0))  # every sample is 0x0505 = 257 * 5
    assert set(read_image(tmp_path / "a.png", (8, 8, 3)).ravel()) == {5}


def test_broken_metadata_do_not_spoil_an_image(tmp_path):
    content = encoded(noise(1), "JPEG")
    broken = encoded(noise(1), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "b.jpg").write_bytes(broken)
    np.testing.assert_array_equal(read_image(tmp_path / "b.jpg", (8, 8, 3)), read_image(tmp_path / "a.jpg", (8, 8, 3)))
    assert read_header(tmp_path / "b.jpg")[:3] == (8, 8, False)


def test_warnings_of_pillow_stay_silent_in_many_threads_and_the_filters_of_others_alone(tmp_path):
    """An animated PNG that says it has no frames makes Pillow warn."""
    content = encoded(noise(1), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(content[:33] + chunk(b"acTL", bytes(8)) + content[33:])  # behind the header
    with pytest.warns(UserWarning, match="APNG"):
        Image.open(path).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(lambda _: read_image(path, (8, 8, 3)), range(200)))) == 200
        assert warnings.filters[-len(before) :] == before
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)


# Headers and digests


@pytest.mark.parametrize(
    ("name", "image", "gray"),
    [
        ("a.png", Image.new("L", (9, 5)), True),
        ("a.png", Image.new("LA", (9, 5)), True),
        ("a.png", Image.new("1", (9, 5)), True),
        ("a.png", Image.fromarray(np.zeros((5, 9), np.uint16)), True),
        ("a.gif", Image.new("L", (9, 5), 7), True),
        ("a.jpg", Image.new("L", (9, 5)), True),
        ("a.png", Image.new("L", (9, 5)).convert("P"), True),
        ("a.png", columns((255, 0, 0), (0, 0, 255)).crop((0, 0, 9, 5)).quantize(2), False),
        ("a.png", Image.new("RGB", (9, 5)), False),
        ("a.jpg", Image.new("CMYK", (9, 5)), False),
    ],
)
def test_the_header_tells_the_size_and_whether_there_is_colour(tmp_path, name, image, gray):
    header = read_header(saved(tmp_path, image, name))
    assert (header.height, header.width, header.is_gray) == (5, 9, gray)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_the_header_gives_the_upright_size(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 8
    assert read_header(saved(tmp_path, Image.new("RGB", (9, 5)), name, exif=exif))[:2] == (9, 5)


def test_the_header_decodes_no_pixels(tmp_path, monkeypatch):
    """The rows of this PNG are missing, and its orientation, if it had one, could stand behind them."""
    (tmp_path / "a.png").write_bytes(png(9000, 9000))
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size))
    assert read_header(tmp_path / "a.png")[:2] == (9000, 9000)
    assert decoded == []


def test_the_mark_differs_for_other_content_of_the_same_size(tmp_path):
    content = bytearray(encoded(noise(0, 200), "BMP"))
    marks = set()
    for place in (None, 100, len(content) - 1):
        changed = bytearray(content)
        if place is not None:
            changed[place] ^= 255
        (tmp_path / "a.bmp").write_bytes(changed)
        marks.add(read_header(tmp_path / "a.bmp").mark)
    assert len(marks) == 3
    assert {mark.partition(":")[0] for mark in marks} == {str(len(content))}


def digest_of(path):
    with open_image(path) as image:
        return pixel_digest(image)


def test_the_digest_is_of_the_pixels_and_not_of_the_file(tmp_path):
    image = noise(0)
    first = digest_of(saved(tmp_path, image, "a.png"))
    for name in ("b.bmp", "c.png"):
        assert digest_of(saved(tmp_path, image, name, **({"compress_level": 1} if "png" in name else {}))) == first
    assert digest_of(saved(tmp_path, image.convert("RGBA"), "d.png")) == first
    assert digest_of(saved(tmp_path, image.transpose(Image.Transpose.ROTATE_90), "e.png")) != first
    wide, high = Image.new("L", (4, 2)), Image.new("L", (2, 4))
    assert digest_of(saved(tmp_path, wide, "f.png")) != digest_of(saved(tmp_path, high, "g.png"))


def test_one_large_image_is_decoded_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "LARGE", 50)
    working, most = [], []
    inner = image_files._upright_8_bit

    def counted(image, mode):
        working.append(threading.get_ident())
        most.append(len(working))
        try:
            return inner(image, mode)
        finally:
            working.remove(threading.get_ident())

    monkeypatch.setattr(image_files, "_upright_8_bit", counted)
    path = saved(tmp_path, noise(0, 64), "a.png")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_image(path, (32, 32, 3)), range(100)))
    assert max(most) == 1


def test_large_images_become_the_same_as_small_parts_of_them(tmp_path, monkeypatch):
    """Conversion goes strip by strip: an image of many strips is that of its quarters."""
    pixels = np.random.default_rng(0).integers(0, 256, (700, 3100, 4), dtype=np.uint8)
    for mode, shape in (("RGBA", pixels), ("LA", pixels[..., :2]), ("I;16", pixels.view(np.uint16)[..., 0])):
        whole = Image.fromarray(np.ascontiguousarray(shape))
        assert whole.mode == mode
        read = read_image(saved(tmp_path, whole, "a.png", compress_level=0), (700, 3100, 3))
        for top, left in ((0, 0), (0, 1550), (350, 0), (350, 1550)):
            part = saved(tmp_path, whole.crop((left, top, left + 1550, top + 350)), "b.png", compress_level=0)
            np.testing.assert_array_equal(read_image(part, (350, 1550, 3)), read[top : top + 350, left : left + 1550])


# The most that this process has had in memory; what `resource` says may be that of the process that started it.
PEAK = """
import re, sys
from pathlib import Path
from dlkit.data.image_files import open_image, pixel_digest, read_image
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
read_image(sys.argv[1], (8, 8, 3))
before = peak()
read_image(sys.argv[2], (8, 8, 3))
with open_image(sys.argv[2]) as image:
    pixel_digest(image)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process takes")
@pytest.mark.parametrize(("colour", "depth", "samples"), [(6, 8, 4), (4, 8, 2), (2, 8, 3), (0, 16, 1)])
def test_what_a_large_image_takes_at_its_peak(tmp_path, colour, depth, samples):
    """8 bytes a pixel, 720 MB for the largest: one image in colour as Pillow has it, 4 bytes a pixel, and another."""
    side = 2500
    rows = (b"\0" + bytes(side * samples * depth // 8)) * side
    (tmp_path / "large.png").write_bytes(png(side, side, depth=depth, colour=colour, rows=rows))
    (tmp_path / "small.png").write_bytes(ODD["alpha.png"][1](0))
    command = [sys.executable, "-c", PEAK, tmp_path / "small.png", tmp_path / "large.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) / side**2 < 10, "with what a strip takes"


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
