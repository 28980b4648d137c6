"""RUL (Zhang, Wang and Deng, NeurIPS 2021): relative uncertainty on a ResNet-18.

    python run.py --config=experiments/rul.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/rul.py:fer2013_short    # real faces

For training with wrong labels the authors add relabeling, without saying at which epoch it begins:

    --config.data.label_noise=symmetric --config.data.label_noise_rate=0.3
    --config.objective=relabel --config.strategy.relabel.start=5    # or 10, 20

Ablations: --config.model.mixing=equal, --config.loss.options.shares=weights; the paper's pairs of different labels:
--config.model.other_label=True. The recipe for RAF-DB is that of the authors' code; it starts from a ResNet-18 trained
on MS-Celeb-1M: --config.init_from=FILE (docs/weights.md).
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("rul", "rul", variant, VARIANTS)


def rafdb(config):
    """RAF-DB: Adam at 2e-4, ten times as fast for the classifier."""
    presets.rafdb_flip_or_noise(config)
    config.optimizer.groups = (("^classifier/", {"lr_multiplier": 10.0}),)


VARIANTS = presets.NOISY | {"rafdb": rafdb}
