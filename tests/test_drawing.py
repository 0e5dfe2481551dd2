"""A digit drawn by hand: MNIST's own digits, moved and enlarged, come back as they are."""

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthcore.explore import drawing
from lthcore.runs import download, store


@pytest.mark.parametrize("number", range(10))
def test_a_digit_of_mnist_comes_back_wherever_it_is_drawn(number):
    digit = download.digits("full")[0][number]
    large = np.kron(digit, np.ones((3, 3), np.uint8))  # 84 x 84
    for place in (0, 28):
        ink = np.zeros((112, 112), np.uint8)
        ink[place : place + 84, place : place + 84] = large
        again = drawing.as_mnist(ink)
        assert np.corrcoef(again.ravel(), digit.ravel())[0, 1] > 0.95


@given(st.integers(0, 111), st.integers(0, 111), st.integers(1, 112), st.integers(1, 112), st.integers(1, 255))
def test_whatever_is_drawn_fits_and_is_in_the_middle(row, column, height, width, shade):
    ink = np.zeros((112, 112), np.uint8)
    ink[row : row + height, column : column + width] = shade
    digit = drawing.as_mnist(ink)
    rows, columns = np.nonzero(digit)
    assert digit.shape == (28, 28) and digit.max() <= shade
    assert max(np.ptp(rows), np.ptp(columns)) == 19
    assert abs(np.average(rows) - 14) <= 1 and abs(np.average(columns) - 14) <= 1


def test_nothing_drawn_is_no_digit():
    canvas = drawing.Canvas()
    assert canvas.digit is None
    for blank in (bytes(112 * 112), b"another page's", bytes(10)):
        canvas.pixels = blank
        assert canvas.digit is None
    canvas.pixels = memoryview(bytes(112 * 50) + b"\xff" * 112 + bytes(112 * 61))  # as a page's bytes arrive
    assert canvas.digit.shape == (28, 28) and canvas.digit.any()


def test_a_wheel_holds_its_script():
    given = tomllib.loads((store.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert any(
        (store.ROOT / "lthcore/explore").glob(pattern) for pattern in given["lthcore.explore"] if "js" in pattern
    )
    assert "export default" in drawing.Canvas._esm
