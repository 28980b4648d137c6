"""Strategies that run over any method that they fit, one file each: see `fer_jax.methods.objective`."""
