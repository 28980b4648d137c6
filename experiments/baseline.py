"""ResNet-18 and one linear layer: what every method has to beat, under the same recipe.

python run.py --config=experiments/baseline.py            # synthetic faces, minutes on two CPU cores
python run.py --config=experiments/baseline.py:fer2013    # real faces
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("baseline", "baseline", variant, VARIANTS)


VARIANTS = presets.VARIANTS | presets.COMPOUND
