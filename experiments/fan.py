"""FAN (Meng et al., ICIP 2019): clips by attention over frames, on a ResNet-18.

    python run.py --config=experiments/fan.py                # synthetic clips, minutes on two CPU cores
    python run.py --config=experiments/fan.py --config.model.attention=score_fusion    # the paper's baseline
    python run.py --config=experiments/fan.py:ckplus         # the paper's recipe; so does :afew

The paper's learning rates, 0.1 on CK+ and 4e-6 on AFEW, are not those of the authors' published scripts, which are
used here: the second barely moves layers that start at random.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("fan", "fan", variant, VARIANTS)


def synthetic(config):
    """Under six minutes on two CPU cores: three frames of each clip a step, by a ResNet-18 of half the width."""
    presets.synthetic(config)
    config.data.dataset = "synthetic_faces/clips"
    config.data.builder.train = 1600
    config.data.builder.test = 210
    config.train.batch_size = 24
    config.train.epochs = 24.0
    config.train.eval_every_epochs = 3.0


def smoke(config):
    """Seconds: a few steps of a narrow network on a few short clips."""
    synthetic(config)
    config.data.builder.train = 84
    config.data.builder.test = 28
    config.data.builder.frames = 5
    config.data.builder.per_subject = 6
    config.data.holdout_fraction = 0.2
    config.model.width = 16
    config.train.batch_size = 8
    config.train.epochs = 2.0
    config.train.eval_every_epochs = 1.0
    config.train.log_every_steps = 5


def ckplus(config):
    """CK+, every fold in turn: neutral to apex, 224 pixels; in the paper after pre-training on MS-Celeb-1M and FER+."""
    _paper(config)
    config.data.dataset = "ckplus"
    config.data.folds = "stored"  # ten, by subject
    config.fold = "all"
    config.train.epochs = 60.0
    config.optimizer.learning_rate = 1e-2
    config.schedule.boundaries_epochs = (30.0,)


def afew(config):
    """AFEW 8.0, trained on its training and scored on its validation split: the test labels are not public."""
    _paper(config)
    config.data.dataset = "afew"
    config.data.test_split = "validation"
    config.train.epochs = 180.0
    config.optimizer.learning_rate = 4e-3
    config.schedule.boundaries_epochs = (60.0, 120.0)


def _paper(config):
    config.data.image_size = 224
    config.data.clip_frames = 3
    config.augmentation.train = ("flip",)  # one draw for the whole clip; the authors draw for every frame
    config.preprocessing.mean = (0.0, 0.0, 0.0)  # pixels stay in 0 .. 1
    config.preprocessing.std = (1.0, 1.0, 1.0)
    config.train.batch_size = 48
    config.evaluation.batch_size = 64
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decoupled = False
    config.schedule.name = "step"
    config.schedule.factor = 0.2


VARIANTS = {"synthetic": synthetic, "smoke": smoke, "ckplus": ckplus, "afew": afew}
