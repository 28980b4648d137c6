"""SCN (Wang et al., CVPR 2020) on top of the baseline: importance weights, rank regularization and relabeling.

    python run.py --config=experiments/scn.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/scn.py:fer2013_short    # real faces

To add wrong labels: --config.data.label_noise=symmetric --config.data.label_noise_rate=0.3.

The recipe for RAF-DB is that of the code that the authors have adopted; the paper uses batches of 1,024, SGD at 0.1
divided by 10 after 15 and 30 of 40 epochs, and delta1 0.15. Both start from a network pre-trained on faces:
--config.init_from=FILE (docs/weights.md). In short runs relabeling begins after a third of the epochs.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("scn", "baseline", variant, VARIANTS)
    config.objective = "scn"
    config.strategy.scn.delta1 = 0.07
    config.strategy.scn.start = min(10.0, config.train.epochs // 3)
    return config


def rafdb(config):
    """RAF-DB: 70 epochs of Adam at its usual 1e-3."""
    presets.rafdb_flip_or_noise(config)
    config.train.epochs = 70.0
    config.optimizer.learning_rate = 1e-3


VARIANTS = presets.NOISY | {"rafdb": rafdb}
