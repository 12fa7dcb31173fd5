"""The operations of TrivialAugment by hand: their directions and their magnitudes."""

import numpy as np
import pytest
from PIL import Image

from dlkit.data.trivial import WIDE

BY_NAME = {operation.name: operation for operation in WIDE}


def changed(name, array, strength, sign=1):
    return np.asarray(BY_NAME[name](Image.fromarray(np.asarray(array, np.uint8)), strength, sign)).astype(int)


def test_the_operations_and_ranges_of_the_paper():
    """Mueller and Hutter 2021, the wide ranges; a factor of 1 changes nothing, and 8 bits and 256 are all there are."""
    expected = {
        "Identity": (0, 0, False), "ShearX": (0, 0.99, True), "ShearY": (0, 0.99, True), "TranslateX": (0, 32, True),
        "TranslateY": (0, 32, True), "Rotate": (0, 135, True), "Brightness": (0.01, 2, False),
        "Color": (0.01, 2, False), "Contrast": (0.01, 2, False), "Sharpness": (0.01, 2, False),
        "Posterize": (8, 2, False), "Solarize": (256, 0, False), "AutoContrast": (0, 0, False),
        "Equalize": (0, 0, False),
    }  # fmt: skip
    assert {op.name: (op.weakest, op.strongest, op.signed) for op in WIDE} == expected


@pytest.mark.parametrize("name", ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_places_stay_without_strength(name):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    assert np.array_equal(changed(name, array, 0), array)
    assert np.array_equal(changed(name, array, 0, -1), array)


def test_shears_move_each_line_by_its_distance():
    """Slope 0.99: the line k is moved by k pixels, and black comes in."""
    column = np.zeros((6, 6))
    column[:, 3] = 200
    left, right = (changed("ShearX", column, 1, sign) for sign in (1, -1))
    for line in range(6):
        expected_left, expected_right = np.zeros(6), np.zeros(6)
        if 3 - line >= 0:
            expected_left[3 - line] = 200
        if 3 + line < 6:
            expected_right[3 + line] = 200
        assert left[line].tolist() == expected_left.tolist()
        assert right[line].tolist() == expected_right.tolist()
    assert np.array_equal(changed("ShearY", column.T, 1), left.T)
    assert np.array_equal(changed("ShearY", column.T, 1, -1), right.T)


def test_translations_move_by_up_to_32_pixels():
    array = np.random.default_rng(0).integers(1, 256, (40, 40))
    assert np.array_equal(changed("TranslateX", array, 1)[:, :8], array[:, 32:])
    assert not changed("TranslateX", array, 1)[:, 8:].any()
    assert np.array_equal(changed("TranslateX", array, 0.5, -1)[:, 16:], array[:, :24])
    assert np.array_equal(changed("TranslateY", array, 0.25)[:32], array[8:])
    assert np.array_equal(changed("TranslateY", array, 0.25, -1)[8:], array[:32])


def test_rotations_by_right_angles():
    """135 degrees in full, so two thirds are 90: against the clock, or with it."""
    array = np.random.default_rng(0).integers(0, 256, (9, 9, 3))
    assert np.array_equal(changed("Rotate", array, 2 / 3), np.rot90(array))
    assert np.array_equal(changed("Rotate", array, 2 / 3, -1), np.rot90(array, -1))


def test_brightness_is_a_factor():
    array = [[0, 50, 100, 200]]
    np.testing.assert_allclose(changed("Brightness", array, 0), [[0, 0, 1, 2]], atol=1)
    np.testing.assert_allclose(changed("Brightness", array, 1), [[0, 100, 200, 255]], atol=1)
    np.testing.assert_allclose(changed("Brightness", array, 0.5), [[0, 50, 100, 201]], atol=1)  # 1.005


def test_colour_goes_from_gray_to_twice_its_distance_from_gray():
    """The gray of a pixel, ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B, so 76 of pure red and 84 of (100, 80, 60)."""
    array = [[[255, 0, 0], [100, 80, 60]]]
    np.testing.assert_allclose(changed("Color", array, 0)[0], [[78, 75, 75], [84, 84, 84]], atol=1)
    strongest = changed("Color", array, 1)[0]
    np.testing.assert_allclose(strongest, [[255, 0, 0], [200 - 84, 160 - 84, 120 - 84]], atol=1)


def test_contrast_is_about_the_mean():
    """The mean of 60 and 120 is 90: a hundredth of the distance from it, or twice."""
    np.testing.assert_allclose(changed("Contrast", [[60, 120]], 0), [[90, 90]], atol=1)
    np.testing.assert_allclose(changed("Contrast", [[60, 120]], 1), [[30, 150]], atol=1)


def test_sharpness_goes_from_smooth_to_twice_its_distance_from_smooth():
    """Smoothed with weights of 5/13 in the middle and 1/13 around, a dot of 130 is 50 among 10."""
    dot = np.zeros((5, 5))
    dot[2, 2] = 130
    smooth, sharp = changed("Sharpness", dot, 0), changed("Sharpness", dot, 1)
    np.testing.assert_allclose(smooth[1:4, 1:4], [[10, 10, 10], [10, 51, 10], [10, 10, 10]], atol=1)
    assert sharp[2, 2] == pytest.approx(2 * 130 - 50, abs=1)
    assert sharp[1, 1] == 0


def test_posterize_keeps_8_to_2_bits():
    values = np.arange(256).reshape(16, 16)
    assert np.array_equal(changed("Posterize", values, 0), values)
    assert np.array_equal(changed("Posterize", values, 0.5), values & 0b1111_1000)
    assert np.array_equal(changed("Posterize", values, 1), values & 0b1100_0000)


def test_solarize_inverts_what_is_above_a_threshold():
    values = np.arange(256).reshape(16, 16)
    assert np.array_equal(changed("Solarize", values, 0), values)
    assert np.array_equal(changed("Solarize", values, 0.5), np.where(values < 128, values, 255 - values))
    assert np.array_equal(changed("Solarize", values, 1), 255 - values)


def test_autocontrast_spreads_the_values_over_the_range():
    np.testing.assert_allclose(changed("AutoContrast", [[50, 75, 100]], 0.3), [[0, 127.5, 255]], atol=1)


def test_equalize_makes_values_even():
    """Four values, as many of each, however near: a fourth of the range from one to the next."""
    values = np.repeat([10, 12, 13, 200], 256).reshape(32, 32)
    found = np.unique(changed("Equalize", values, 0.3))
    np.testing.assert_allclose(found, [0, 85, 170, 255], atol=2)
