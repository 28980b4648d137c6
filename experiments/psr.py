"""PSR (Vo, Lee, Yang and Kim, IEEE Access 2020): a pyramid of sizes with super-resolution, on VGG-16-BN.

python run.py --config=experiments/psr.py                # synthetic faces, minutes on two CPU cores
"""

from experiments import presets
from fer_jax.training.config import choose_variant, default_config


def get_config(variant="synthetic"):
    config = default_config("psr", variant, "psr")
    choose_variant(variant, VARIANTS, "experiments/psr.py")(config)
    return config


def synthetic(config):
    """Synthetic faces at 48 pixels, by a quarter of VGG-16's width and a narrow EDSR."""
    presets.synthetic(config)
    config.model.width = 16
    config.model.sr_blocks = 4
    config.model.sr_width = 16
    config.model.hidden = 128
    config.train.epochs = 6.0


def smoke(config):
    """Seconds: a few steps of a very narrow network."""
    presets.smoke(config)
    config.model.width = 4
    config.model.sr_blocks = 1
    config.model.sr_width = 4
    config.model.hidden = 16


VARIANTS = {"synthetic": synthetic, "smoke": smoke}
