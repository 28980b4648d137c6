"""Writes the fixtures of this folder with PyTorch:  python -m tests.parity.record [CASE ...]"""

import sys

import numpy as np

from tests.parity.cases import CASES
from tests.parity.test_parity import FIXTURES, as_numpy


def main(names):
    FIXTURES.mkdir(exist_ok=True)
    for name in names or CASES:
        arrays = as_numpy(CASES[name].theirs())
        np.savez_compressed(FIXTURES / f"{name}.npz", **{key.replace("/", "."): value for key, value in arrays.items()})
        print(f"{name}: {(FIXTURES / f'{name}.npz').stat().st_size / 1024:.1f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
