"""Pre-trains a network to recognize people from folders of their photos; expression training can start from it.

FDRL, FAN, RUL, EAC and SCN start from networks trained on MS-Celeb-1M or VGGFace2. To train one on photos of your own:

python -m tfds_builders build image_folder/identities --manual_dir=DIR --option=size=112    # DIR/<person>/*.jpg
python run.py --config=experiments/face_identity.py:folder                                  # an accelerator
python run.py --config=experiments/eac.py:rafdb --config.init_from=runs/face_identity/folder

python run.py --config=experiments/face_identity.py     # 1,000 synthetic people: ten minutes on two CPU cores

    --config.objective=arcface              an angular margin between the classes instead of a plain softmax;
                                            for few or synthetic people add --config.strategy.arcface.scale=16
    --config.model.depth=50                 another trunk of the baseline; the expression model must use the same
    --config.data.test_split=test --config.data.folds= --config.fold=      with DIR/train/<person>, DIR/test/<person>

The score is closed-set identification: the fraction of held-out pictures of the same people that get the right name.
To see whether the pre-training helps on FER-2013, train with and without it (docs/weights.md):

python run.py --config=experiments/baseline.py:fer2013_short --config.init_from=runs/face_identity/synthetic
python run.py --config=experiments/baseline.py:fer2013_short
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("face_identity", "baseline", variant, VARIANTS)


def synthetic(config):
    """A thousand synthetic people in gray, seen as FER-2013 is seen by `fer2013_short`, which has the same trunk."""
    presets.synthetic(config)
    config.data.dataset = "synthetic_faces/identities"
    config.data.builder.train = 20_000
    config.data.builder.test = 2_000
    config.data.builder.gray = True
    config.preprocessing.standardize = True
    last_step(config)


def smoke(config):
    """Seconds, on a few people."""
    presets.smoke(config)
    config.data.dataset = "synthetic_faces/identities"
    config.data.builder.per_subject = 28
    config.data.builder.gray = True
    last_step(config)


def folder(config):
    """Prepared folders of people at 112 pixels, a hundredth of each person's pictures held out; a GPU."""
    config.data.dataset = "image_folder/identities"
    config.data.folds = "examples:100"
    config.fold = "1"
    config.data.image_size = 112
    config.augmentation.train = ("shift:6", "flip")
    config.train.batch_size = 256
    config.train.epochs = 16.0
    config.train.log_every_steps = 100
    presets.sgd(config)
    config.schedule.warmup_epochs = 1.0
    last_step(config)


def last_step(config):
    """The last step is taken, and no picture is held out to select another."""
    config.selection.rule = "last"
    config.data.holdout_fraction = 0.0


VARIANTS = {"synthetic": synthetic, "smoke": smoke, "folder": folder}
