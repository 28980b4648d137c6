"""EDSR on faces: the pre-training of PSR's super-resolution (Vo et al., IEEE Access 2020).

    python run.py --config=experiments/psr_sr.py
    python run.py --config=experiments/psr.py:synthetic_after_sr

The variants share faces, input sizes, pixel scale and held-out examples with those of experiments/psr.py, so that the
network trains on the images that it will enlarge there, and on none that select PSR's model.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("psr_sr", "psr_sr", variant, VARIANTS)


def synthetic(config):
    """The narrow EDSR of the synthetic PSR: minutes on two CPU cores."""
    presets.synthetic(config)
    _recipe(config, epochs=6.0)
    _narrow(config)


def smoke(config):
    """Seconds."""
    presets.smoke(config)
    _recipe(config, epochs=2.0)
    _narrow(config)
    config.model.blocks = 1
    config.model.width = 4
    config.train.log_every_steps = 5


def ferplus(config):
    """FER+ faces enlarged to 96 pixels: 60,000 steps of the whole network, for an accelerator."""
    presets.fer2013_data(config)
    presets.ferplus_votes(config)
    presets.imagenet_pixels(config)
    _recipe(config, epochs=34.0)
    config.data.image_size = 96


def fer2013_short(config):
    """The narrow network on the faces of FER-2013 at 48 pixels."""
    presets.fer2013_data(config)
    _recipe(config, epochs=2.0)
    _narrow(config)


def ferplus_short(config):
    """The same on those of FER+."""
    fer2013_short(config)
    presets.ferplus_votes(config)


def rafdb(config):
    """RAF-DB's aligned faces at their 100 pixels."""
    presets.imagenet_pixels(config)
    _recipe(config, epochs=90.0)
    config.data.dataset = "rafdb/basic"
    config.data.holdout_fraction = 0.2
    config.data.image_size = 100


def affectnet(config):
    """AffectNet at 200 pixels."""
    presets.imagenet_pixels(config)
    _recipe(config, epochs=4.0)
    config.data.dataset = "affectnet/classes8"
    config.data.test_split = "validation"
    config.data.holdout_fraction = 0.028
    config.data.image_size = 200


def _recipe(config, epochs):
    """L1, Adam 1e-4, halved at 60 %, batches of 16 whole faces (EDSR's own recipe: patches of 48, 300,000 steps)."""
    config.augmentation.train = ("flip",)
    config.train.batch_size = 16
    config.train.epochs = epochs
    config.train.log_every_steps = 100
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "step"
    config.schedule.factor = 0.5
    config.schedule.boundaries_epochs = (0.6 * epochs,)


def _narrow(config):
    """A small network, and few steps for it: a larger rate."""
    config.model.blocks = 2
    config.model.width = 8
    config.optimizer.learning_rate = 1e-3


VARIANTS = {
    "synthetic": synthetic,
    "smoke": smoke,
    "ferplus": ferplus,
    "fer2013_short": fer2013_short,
    "ferplus_short": ferplus_short,
    "rafdb": rafdb,
    "affectnet": affectnet,
}
