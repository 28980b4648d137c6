"""LDL-ALSG (Chen et al., CVPR 2020): similar predictions for faces with similar landmarks and action units.

    python run.py --config=experiments/ldl_alsg.py               # synthetic faces: landmarks and units are known
    python -m tfds_builders landmarks fer2013                    # once, before the next command
    python run.py --config=experiments/ldl_alsg.py:fer2013       # real faces, landmarks only

The paper trains a ResNet-50 on one-hot labels of laboratory pictures and of RAF-DB and tests it on other data sets; its
optimizer and epochs are not published. Choice: SGD with momentum 0.9 at 0.01, batches of 64, a cosine over 40 epochs.
`--config.strategy.ldl_alsg.form=pyldl` follows the public re-implementation in PyLDL.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("ldl_alsg", "baseline", variant, VARIANTS)


def synthetic(config):
    presets.synthetic(config)
    config.objective = "ldl_alsg"


def smoke(config):
    presets.smoke(config)
    config.objective = "ldl_alsg"


def landmarks_only(config):
    """Real faces have landmarks from a detector and no action units."""
    config.objective = "ldl_alsg"
    config.data.points = "face24"  # reads the landmarks beside the prepared data
    config.strategy.ldl_alsg.landmarks = 1.0
    config.strategy.ldl_alsg.action_units = 0.0


def fer2013(config):
    presets.fer2013(config)
    landmarks_only(config)


def fer2013_short(config):
    presets.fer2013_short(config)
    landmarks_only(config)


def rafdb(config):
    """As far as the paper's recipe is known, with our choices for the rest."""
    presets.rafdb(config)
    landmarks_only(config)
    config.model.depth = 50
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.schedule.name = "cosine"
    config.schedule.boundaries_epochs = ()


VARIANTS = {
    "synthetic": synthetic,
    "smoke": smoke,
    "fer2013": fer2013,
    "fer2013_short": fer2013_short,
    "rafdb": rafdb,
}
