"""What every test shares: four virtual CPU devices, strict dtypes, parsed flags, and where real data lies."""

import os
import pathlib

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import jax
import pytest
from absl import flags

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    # Grain defines absl flags and reads them when it iterates: they must count as parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder with the packed FER-2013 and FER+ (`$FER_JAX_TEST_DATA`, else `../shared/data`)."""
    folder = pathlib.Path(os.environ.get("FER_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "fer2013_unique_png.npz").exists():
        pytest.skip(f"needs the real FER-2013 under {folder}; set FER_JAX_TEST_DATA to its folder")
    return folder
