"""Ghimire and Lee (Sensors 2013): tracks of 68 landmarks and of pairs of them, DTW, feature selection by boosting, SVM.

    python run.py --config=experiments/geometry_sequences.py            # synthetic clips with true landmarks
    python run.py --config=experiments/geometry_sequences.py --config.model.learner=boosting    # without the SVM
    python run.py --config=experiments/geometry_sequences.py --config.model.first_frame=False    # a control
    python run.py --config=experiments/geometry_sequences.py:ckplus     # the paper's data, all ten folds

Training needs scikit-learn: pip install 'fer_jax[geometry]'; evaluation and prediction do not. CK+ comes with its
landmarks; other clips need `python -m tfds_builders landmarks NAME`. The paper uses CK+'s six basic expressions,
--config.data.dataset=ckplus/without_contempt, and reports 95.17 % with boosting alone, 97.35 % with the SVM.

Training takes a single step, which only measures the loss.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("geometry_sequences", "geometry_sequences", variant, VARIANTS)
    config.data.points = "face68"
    config.data.clip_frames = 12  # of a clip, which the loss is measured on
    config.data.image_size = 48
    return config


def synthetic(config):
    presets.synthetic_data(config)
    config.data.dataset = "synthetic_faces/clips"
    config.data.builder.train = 1600
    config.data.builder.test = 210
    config.train.batch_size = 24


def smoke(config):
    synthetic(config)
    config.data.builder.train = 84
    config.data.builder.test = 28
    config.data.builder.frames = 5
    config.data.builder.per_subject = 6
    config.data.holdout_fraction = 0.2
    config.train.batch_size = 8
    config.model.rounds = 20
    config.model.support = 128


def ckplus(config):
    config.data.dataset = "ckplus"
    config.data.folds = "stored"  # ten, by subject
    config.fold = "all"
    config.selection.rule = "last"  # nothing is selected: learn from every clip
    config.data.holdout_fraction = 0.0
    config.model.support = 512


VARIANTS = {"synthetic": synthetic, "smoke": smoke, "ckplus": ckplus}
