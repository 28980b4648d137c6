"""Dropping suspicious training examples, on top of the baseline.

    python run.py --config=experiments/dropping.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/dropping.py:ferplus_short    # real faces

A tenth of each class is dropped: the examples with the largest moving average of the loss. Other rules, and a control:

    --config.strategy.dropping.rule=aum       # or random
    --config.objective=small_loss             # or agreement, with votes; --config.strategy.dropping.start=10

To add wrong labels: --config.data.label_noise=symmetric --config.data.label_noise_rate=0.3. In short runs dropping
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
