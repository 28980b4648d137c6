"""Our networks, methods and optimizers give PyTorch's numbers: against recorded ones always, live with `-m torch`."""

import pathlib

import numpy as np
import pytest

from tests.parity.cases import CASES

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("name", CASES)
def test_ours_equal_what_pytorch_gave(name):
    compare(as_numpy(CASES[name].ours()), recorded(name), CASES[name].tolerance)


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_pytorch_still_gives_the_same(name):
    pytest.importorskip("torch")
    compare(as_numpy(CASES[name].theirs()), recorded(name), CASES[name].tolerance)


def test_every_fixture_is_small_and_belongs_to_a_case():
    found = {path.stem: path.stat().st_size for path in FIXTURES.glob("*.npz")}
    assert set(found) == set(CASES)
    assert max(found.values()) <= 200 << 10


def recorded(name):
    with np.load(FIXTURES / f"{name}.npz") as stored:
        return dict(stored)


def compare(got, want, tolerance):
    assert {key.replace("/", ".") for key in got} == set(want)
    for key, value in got.items():
        expected = want[key.replace("/", ".")]
        np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=key)


def as_numpy(arrays):
    """Both sides' arrays as float32 NumPy, a torch tensor or parameter included."""
    return {
        key: np.asarray(value.detach() if hasattr(value, "detach") else value, np.float32)
        for key, value in arrays.items()
    }
