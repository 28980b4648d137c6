"""Compound expressions as pairs of basic ones (Du et al., PNAS 2014): six sigmoids in place of a softmax.

python run.py --config=experiments/compound.py                    # 22 categories of synthetic faces, minutes
python run.py --config=experiments/compound.py:rafdb_compound --config.init_from=WEIGHTS    # RAF-DB's eleven
python run.py --config=experiments/compound.py:image_folder --config.data.dataset=image_folder/cfee    # docs/data.md

    experiments/baseline.py:compound, :rafdb_compound    the same classes with a softmax
    --config.init_from=RUN                               start from a run on other compound classes: all weights fit
    --config.loss.options.label_weights=True             give rare parts more weight (VAC's form); with VAC's views:
    --config.objective=vac --config.strategy.vac.scale=0.8333
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="compound"):
    return variant_config("compound", "compound", variant, VARIANTS)


VARIANTS = {"smoke": presets.compound_smoke, "image_folder": presets.image_folder} | presets.COMPOUND
