"""Geometry of still faces (after Ghimire and Lee, Sensors 2013): 68 landmarks, no pixels, a support vector machine.

    python run.py --config=experiments/geometry.py            # synthetic faces with true landmarks, a minute on a CPU
    python run.py --config=experiments/geometry.py --config.model.learner=boosting    # or logistic
    python run.py --config=experiments/geometry.py:fer2013

Training needs scikit-learn: pip install 'fer_jax[geometry]'; evaluation and prediction do not. The landmarks come with
the data set (CK+, synthetic faces), or from `python -m tfds_builders landmarks NAME`, which stores them beside the
prepared data (extra [landmarks]); FER-2013 and RAF-DB need this command. A face without landmarks counts as an error:
in results.json `coverage` is the fraction of faces with landmarks and `accuracy_found` the accuracy on these.

Training takes a single step, which only measures the loss.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("geometry", "geometry", variant, VARIANTS)
    config.data.points = "face68"
    config.evaluation.flip = True  # so that a face and its mirror image are classified alike
    return config


def synthetic(config):
    presets.synthetic_data(config)
    config.train.batch_size = 64


def smoke(config):
    presets.synthetic_data(config)
    config.data.builder.train = 280
    config.data.builder.test = 70
    config.data.holdout_fraction = 0.2
    config.train.batch_size = 32
    config.model.support = 256
    config.model.rounds = 20


def fer2013(config):
    presets.fer2013_data(config)


def ferplus(config):
    presets.fer2013_data(config)
    presets.ferplus_votes(config)


def rafdb(config):
    config.data.dataset = "rafdb/basic"


def ckplus(config):
    """CK+: the last three faces of each sequence and, as neutral, the first one; ten folds by subject."""
    config.data.dataset = "ckplus"
    config.data.last_frames = 3
    config.data.neutral_frames = 1
    config.data.folds = "stored"
    config.fold = "all"
    config.train.batch_size = 64


VARIANTS = {
    "synthetic": synthetic,
    "smoke": smoke,
    "fer2013": fer2013,
    "ferplus": ferplus,
    "rafdb": rafdb,
    "ckplus": ckplus,
}
