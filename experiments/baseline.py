"""ResNet-18 and one linear layer: the baseline that every method has to beat, under the same recipe.

python run.py --config=experiments/baseline.py                     # synthetic faces, minutes on two CPU cores
python run.py --config=experiments/baseline.py:fer2013             # real faces
python run.py --config=experiments/baseline.py:affectnet_affect    # valence and arousal as well
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("baseline", "baseline", variant, VARIANTS)


def affect(config):
    """Synthetic faces with valence and arousal, which follow from expression and intensity."""
    presets.synthetic(config)
    config.data.builder.affect = True
    config.model.affect = True


def affectnet_affect(config):
    """AffectNet with valence and arousal, in -1 to 1 by one annotator a picture."""
    presets.affectnet(config)
    config.model.affect = True


def affwild2_affect(config):
    """Aff-Wild2's frames with an expression, and valence and arousal of those that have them."""
    presets.affwild2(config)
    config.model.affect = True


AFFECT = {"affect": affect, "affectnet_affect": affectnet_affect, "affwild2_affect": affwild2_affect}
VARIANTS = presets.VARIANTS | presets.COMPOUND | AFFECT
