"""Facial expression recognition in JAX and Flax: every method of the literature on equal terms."""
