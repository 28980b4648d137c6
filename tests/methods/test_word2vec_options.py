"""Word2Vec FER's options that have no meaning together are refused before anything is trained."""

import pytest

from experiments import word2vec as experiment
from fer_jax.config.check import check_config
from fer_jax.errors import UserError
from fer_jax.methods import word2vec


def config_with(**fields):
    config = experiment.get_config("smoke")
    config.model.learn_scale = False
    for path, value in fields.items():
        group, name = path.split("__")
        (config.loss.options if group == "loss" else config[group])[name] = value
    return config


@pytest.mark.parametrize("kind", word2vec.KINDS)
def test_pinv_belongs_to_the_losses_without_a_softmax(kind):
    config = config_with(model__decode="pinv", loss__kind=kind)
    if kind in ("cosine", "votes"):
        check_config(config)
        return
    with pytest.raises(UserError, match=f"config.model.decode='pinv' .* config.loss.options.kind='{kind}'") as caught:
        check_config(config)
    assert "\n" not in str(caught.value)
    config.model.decode = "nearest"
    check_config(config)


def test_votes_are_not_smoothed():
    config = config_with(loss__kind="votes", data__label_smoothing=0.1)
    with pytest.raises(UserError, match="config.loss.options.kind='votes' .* config.data.label_smoothing") as caught:
        check_config(config)
    assert "\n" not in str(caught.value)
    config.data.label_smoothing = 0.0
    check_config(config)


def test_a_target_of_several_right_classes_is_no_distribution():
    config = config_with(data__target="multi_target")
    with pytest.raises(UserError, match="config.data.target='multi_target'.* word2vec has no loss") as caught:
        check_config(config)
    assert "\n" not in str(caught.value)
    config.data.target = "cross_entropy"
    check_config(config)
