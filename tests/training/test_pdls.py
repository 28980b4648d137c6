"""PDLS in training: what a network says of faces it has learnt by heart is what their targets say."""

import numpy as np
import pytest
from etils import epath

import fer_jax
from fer_jax.config.check import check_config
from fer_jax.data.targets.prior import prior_matrix
from fer_jax.errors import UserError
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.training import loop
from fer_jax.training.setup import make_setup

EPSILON = 0.4


def test_the_prior_reaches_the_step_in_the_classes_own_order(tiny):
    config = tiny()
    config.data.label_smoothing, config.data.smoothing_prior = 0.2, "ferplus"
    setup = make_setup(config)
    expected = prior_matrix(setup.train.classes)
    np.testing.assert_allclose(setup.task.smoothing_prior, expected)


def test_a_prior_without_smoothing_is_refused(tiny):
    config = tiny()
    config.data.smoothing_prior = "ferplus"
    with pytest.raises(UserError, match="does nothing without config.data.label_smoothing"):
        check_config(config)
    config.data.smoothing_prior = "ferpls"
    with pytest.raises(UserError, match="did you mean 'ferplus'"):
        check_config(config)


@pytest.mark.slow
def test_pdls_moves_mass_to_what_a_class_is_taken_for(tiny, tmp_path):
    """Check 6: more of fear goes to surprise than by label smoothing, less to disgust; both are less sure than CE."""

    def probabilities(name, epsilon, prior):
        config = tiny(max_steps=500, log_every_steps=50, eval_every_epochs=1000.0)
        config.data.builder.train = 140
        config.data.label_smoothing, config.data.smoothing_prior = epsilon, prior
        config.augmentation.train = ()
        config.model.width = 16
        config.train.epochs = 1000.0
        config.optimizer.learning_rate = 3e-3
        config.selection.rule = "last"
        loop.train(config, epath.Path(tmp_path / name))
        model = fer_jax.load(tmp_path / name)
        train = make_setup(config).train
        assert train.classes == model.classes
        p = np.exp(log_softmax(model.outputs(train)["logits"]))
        assert (p.argmax(1) == train.arrays["label"]).mean() > 0.95
        return p, train.arrays["label"], train.classes

    ce, _, _ = probabilities("ce", 0.0, "uniform")
    ls, _, _ = probabilities("ls", EPSILON, "uniform")
    pdls, label, classes = probabilities("pdls", EPSILON, "ferplus")
    fear, surprise, disgust = (classes.index(name) for name in ("fear", "surprise", "disgust"))
    assert pdls[label == fear, surprise].mean() > ls[label == fear, surprise].mean()
    assert pdls[label == fear, disgust].mean() < ls[label == fear, disgust].mean()
    assert max(pdls.max(1).mean(), ls.max(1).mean()) < ce.max(1).mean()
