"""Dropping of suspicious training examples over the baseline.

    python run.py --config=experiments/dropping.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/dropping.py:ferplus_short    # real faces

The rule is the moving average of the loss, and a tenth of each class is dropped. The others, and their control:

    --config.strategy.dropping.rule=aum       # or random
    --config.objective=small_loss             # or agreement, with votes; --config.strategy.dropping.start=10

Labels are made wrong by --config.data.label_noise=symmetric --config.data.label_noise_rate=0.3. In short runs dropping
begins after a third of the epochs.
"""

from experiments import presets
from fer_jax.config.fields import variant_config

VARIANTS = presets.NOISY


def get_config(variant="synthetic"):
    config = variant_config("dropping", "baseline", variant, VARIANTS)
    config.objective = "dropping"
    config.strategy.dropping.start = max(1.0, min(10.0, config.train.epochs // 3))
    return config
