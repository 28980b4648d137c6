"""Oulu-CASIA NIR&VIS (Zhao et al., Image and Vision Computing 2011)."""
