"""FAN (Meng et al., ICIP 2019): classifies clips by attention over their frames, on a ResNet-18.

    python run.py --config=experiments/fan.py                # synthetic clips, minutes on two CPU cores
    python run.py --config=experiments/fan.py --config.model.attention=score_fusion    # the paper's baseline
    python run.py --config=experiments/fan.py:ckplus         # the authors' recipe; also :afew
    python run.py --config=experiments/fan.py:ckplus_score_fusion    # their baseline's recipe; also :afew_...
    python run.py --config=experiments/fan.py:dfew           # AFEW's recipe on later sets; also :ferv39k, :mafw

The learning rates here are those of the authors' published scripts. The paper gives others, 0.1 on CK+ and 4e-6 on
AFEW; the latter barely changes randomly initialized layers.

The authors' epoch has one triple of frames for every frame. Their triples are drawn once, and those of CK+ come from
the first three fifths of a clip, which end before the apex. With segments of the whole clip, drawn anew in every epoch,
an epoch has each clip once. For the same number of steps multiply epochs by 18 on CK+ and by 57 on AFEW, in the
schedule and in config.train.eval_every_epochs too:

    --config.data.clip_sampling=segments --config.train.epochs=1080 --config.schedule.boundaries_epochs="(540,)"
    --config.data.clip_sampling=segments --config.train.epochs=10260 --config.schedule.boundaries_epochs="(3420,6840)"

The authors crop faces with dlib and a padding of 0.25: the eyes are 0.35 of the side apart, at 0.31 of the height. In
the aligned crops of CK+ here these are 0.31 and 0.46: more forehead, less chin. AFEW comes with its own crops.
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
    config.data.clip_sampling = "official_ckplus"
    config.data.dataset = "ckplus"
    config.data.folds = "stored"  # ten, by subject
    config.fold = "all"
    config.train.epochs = 60.0
    config.optimizer.learning_rate = 1e-2
    config.schedule.boundaries_epochs = (30.0,)


def afew(config):
    """AFEW 8.0, trained on its training and scored on its validation split: the test labels are not public."""
    _paper(config)
    config.data.clip_sampling = "official"
    config.data.dataset = "afew"
    config.data.test_split = "validation"
    config.train.epochs = 180.0
    config.optimizer.learning_rate = 4e-3
    config.schedule.boundaries_epochs = (60.0, 120.0)


def ckplus_score_fusion(config):
    """The paper's baseline on CK+: every frame is an example of its own, at the baseline's learning rate."""
    ckplus(config)
    config.model.attention = "score_fusion"
    config.optimizer.learning_rate = 0.1


def afew_score_fusion(config):
    """The paper's baseline on AFEW."""
    afew(config)
    config.model.attention = "score_fusion"
    config.optimizer.learning_rate = 4e-6


def dfew(config):
    """DFEW, every fold in turn; the authors have no recipe for it."""
    _segments(config)
    config.data.dataset = "dfew"
    config.data.folds = "stored"
    config.fold = "all"


def ferv39k(config):
    """FERV39k, trained and tested on its two lists of all scenes; the authors have no recipe for it."""
    _segments(config)
    config.data.dataset = "ferv39k"


def mafw(config):
    """MAFW, eleven classes, every fold in turn; the authors have no recipe for it."""
    dfew(config)
    config.data.dataset = "mafw"


def _segments(config):
    """AFEW's recipe with a third of its epochs: these sets have ten and more times its clips."""
    _paper(config)
    config.train.epochs = 60.0
    config.optimizer.learning_rate = 4e-3
    config.schedule.boundaries_epochs = (20.0, 40.0)


def _paper(config):
    config.data.image_size = 224
    config.data.clip_frames = 3
    config.augmentation.train = ("flip",)
    config.augmentation.per_frame = True
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


VARIANTS = {
    "synthetic": synthetic,
    "smoke": smoke,
    "ckplus": ckplus,
    "ckplus_score_fusion": ckplus_score_fusion,
    "afew": afew,
    "afew_score_fusion": afew_score_fusion,
    "dfew": dfew,
    "ferv39k": ferv39k,
    "mafw": mafw,
}
