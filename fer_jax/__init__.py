"""Facial expression recognition in JAX and Flax: every method of the literature on equal terms."""

__version__ = "0.2.0"
