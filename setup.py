"""Adds experiments/ to the packages of pyproject.toml: installed inside fer_jax, it takes no name in site-packages."""

import setuptools

PLACE = "fer_jax.bundled."  # fer_jax/config looks for experiments here when there is no clone
EXPERIMENTS = setuptools.find_namespace_packages(include=["experiments", "experiments.*"])

setuptools.setup(
    packages=setuptools.find_packages(include=["fer_jax*", "tfds_builders*"]) + [PLACE + name for name in EXPERIMENTS],
    package_dir={PLACE + "experiments": "experiments"},
)
