"""What learns from matrices, distributions and neighbors is traced over the methods, alone and with mixing."""

import functools

import jax
import numpy as np
import pytest
from etils import epath

from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS
from fer_jax.runs.checkpoint import MANIFEST
from fer_jax.runs.workdir import claim, with_kept_files
from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

TRACED = [
    ("fdrl", "correction+mixup", {"kind": "prior"}),
    ("acnn", "correction+small_loss+cutmix", {"matrix": "learned"}),
    ("psr", "correction", {"matrix": "estimated", "start": 1.0}),
    ("baseline", "ldl+mixup", {}),
    ("acnn", "ldl_alsg", {"form": "pyldl"}),
    ("word2vec", "correction", {"matrix": "fer2013"}),
]


@pytest.mark.parametrize(("method", "objective", "options"), TRACED)
def test_a_strategy_is_traced(method, objective, options, tiny):
    config = tiny(method)
    config.objective = objective
    if options:
        config.strategy[objective.partition("+")[0]].update(options)
    if method == "word2vec":
        config.loss.options.kind = "softmax"
    setup = make_setup(config)
    state = setup.abstract_state()
    step = functools.partial(train_step, setup.task, setup.tx, setup.schedule)
    after, _ = jax.eval_shape(step, state, setup.template)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_a_matrix_from_a_file_is_that_of_the_first_start(tiny, tmp_path):
    config, workdir = tiny("baseline"), epath.Path(tmp_path / "run")
    config.objective, config.strategy.correction.matrix = "correction", str(tmp_path / "T.csv")
    names = EMOTIONS[:7]

    def rows(diagonal: float) -> np.ndarray:
        return diagonal * np.eye(len(names)) + (1 - diagonal) / len(names)

    def write(matrix: np.ndarray) -> None:
        lines = [",".join(map(str, (name, *row))) for name, row in zip(names, matrix, strict=True)]
        (tmp_path / "T.csv").write_text("\n".join([",".join(("", *names)), *lines]))

    write(rows(0.9))
    with claim(workdir, config, methods.of(config).model_fields(config, names).files):
        (workdir / "checkpoints" / "1").mkdir(parents=True)
        (workdir / "checkpoints" / "1" / MANIFEST).write_text("{}")
    write(rows(0.5))
    resumed = with_kept_files(config, workdir)
    found = methods.of(resumed).model_fields(resumed, names)
    np.testing.assert_allclose(found.fields["transition"], rows(0.9), rtol=1e-12)


REFUSED = [
    ("baseline", {"objective": "ldl_alsg+mixup"}, "a mixture has no neighbors"),
    ("baseline", {"objective": "ldl", "data.label_noise": "pair", "data.label_noise_rate": 0.2}, "learns from votes"),
    (
        "baseline",
        {"objective": "correction", "strategy.correction.matrix": "estimated", "train.epochs": 5.0},
        "start=5.0 is not before the end",
    ),
    ("word2vec", {"objective": "correction"}, "kind='cosine' does not have: give 'softmax' or 'distribution'"),
    (
        "baseline",
        {"objective": "correction", "strategy.correction.kind": "prior", "strategy.correction.matrix": "learned"},
        "kind='prior' has no gradient for T",
    ),
]


@pytest.mark.parametrize(("method", "fields", "says"), REFUSED)
def test_what_makes_no_sense_is_refused(method, fields, says, tiny):
    config = tiny(method)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=says):
        check_config(config)
