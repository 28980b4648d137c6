"""FDRL (Ruan et al., CVPR 2021): feature decomposition and reconstruction on a ResNet-18.

    python run.py --config=experiments/fdrl.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/fdrl.py:fer2013        # real faces

The recipe is the baseline's (experiments/presets.py), so that the two compare.
"""

from experiments.presets import VARIANTS
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("fdrl", "fdrl", variant, VARIANTS)
