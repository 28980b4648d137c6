"""VAC (Guo et al., CVPR 2019) on top of the baseline: attention that transforms with the image.

python run.py --config=experiments/vac.py                    # synthetic faces, minutes on two CPU cores
python run.py --config=experiments/vac.py:rafdb --config.init_from=WEIGHTS

    --config.strategy.vac.flip_weight=0 --config.strategy.vac.scale_weight=0    only the views, no consistency loss
    --config.strategy.vac.rotate=10                                             add a view turned by up to 10 degrees
    --config.strategy.vac.scale=1                                               only mirror images
    --config.strategy.vac.standardize=False                                     maps without scaling, the authors' form
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("vac", "baseline", variant, VARIANTS)
    config.objective = "vac"
    if config.data.image_size == 48:
        config.strategy.vac.scale = 5 / 6  # 40 of 48 pixels: maps of 6x6 and 5x5 places, not twice 6x6
    return config


def fer2013_short(config):
    """FER-2013 by the common recipe for two CPU cores, half as many epochs: about 20 minutes. Maps have 2x2 places."""
    presets.fer2013_short(config)
    config.train.epochs = 6.0


def rafdb(config):
    """RAF-DB at 224 and 192 pixels by ResNet-50 from ImageNet's weights (config.init_from): the paper's recipe."""
    presets.rafdb_ambiguous(config)
    config.model.depth = 50
    config.train.batch_size = 16  # 64 views
    config.train.epochs = 12.0
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "step"
    config.schedule.boundaries_epochs = (3.0, 6.0, 9.0)
    config.schedule.factor = 0.5


VARIANTS = presets.NOISY | {"fer2013_short": fer2013_short, "rafdb": rafdb}
