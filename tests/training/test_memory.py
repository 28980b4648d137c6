"""Memory that is not there: one line with the fields that decide, before or after XLA finds out."""

import jax
import pytest
from etils import epath

from fer_jax.engine import memory
from fer_jax.engine.mesh import make_mesh
from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.inference.evaluate import evaluate
from fer_jax.runs.workdir import check_owner
from fer_jax.training import loop, setup


@pytest.fixture
def tiny(tiny):
    """The same with a network that is large beside the programs' own needs."""

    def make(*arguments, **train):
        config = tiny(*arguments, **train)
        config.model.depth = 10
        return config

    return make


def test_a_program_larger_than_the_machine_is_refused_before_it_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 << 20)  # the parameters fit
    config = tiny(max_steps=2)
    config.evaluation.batch_size = 16  # whose pictures fit
    with pytest.raises(UserError) as caught:
        loop.train(config, epath.Path(tmp_path / "run"))
    said = str(caught.value)
    assert said.startswith("not enough memory: 0.")
    assert "of 0.0 GiB in this machine" in said
    for field in ("config.train.batch_size than 16", "config.train.accumulate than 1", "config.data.path=stream"):
        assert field in said
    assert not (tmp_path / "run" / "results.json").exists()
    smaller = tiny(max_steps=2, batch_size=8)
    smaller.evaluation.batch_size = 16
    check_owner(epath.Path(tmp_path / "run"), smaller)  # whoever follows the advice may go on in the same folder


@pytest.mark.parametrize("clips", [False, True])
def test_an_evaluation_larger_than_the_machine_is_refused_before_it_runs(clips, tiny, monkeypatch):
    made = setup.make_setup(tiny("fan" if clips else "baseline"))
    variables = made.init().variables()
    monkeypatch.setattr(memory, "machine_memory", lambda: 1 << 20)
    with pytest.raises(UserError) as caught:
        Evaluator(made.task, made.mesh, 32)(variables, made.validation)
    said = str(caught.value)
    assert said.startswith("not enough memory: 0.")
    assert said.endswith("give a smaller config.evaluation.batch_size than 32")


def test_a_network_larger_than_any_machine_is_refused_by_its_number_of_parameters(tiny):
    config = tiny()
    config.model.width = 100_000
    with pytest.raises(UserError, match=r"training \d+(,\d{3}){4} parameters takes .* GiB"):
        setup.make_setup(config)


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."), MemoryError()]
)
def test_a_device_that_runs_out_says_so_in_one_line(error):
    said = "^not enough memory: more than what is free was requested; the advice$"
    with pytest.raises(UserError, match=said), memory.explained(make_mesh(devices=1), "the advice"):
        raise error


def test_an_evaluation_that_runs_out_names_its_own_batch_alone(tiny, tmp_path, monkeypatch):
    class Full:
        def __call__(self, *_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")

    config = tiny(max_steps=1)
    config.evaluation.batch_size = 512
    loop.train(config, epath.Path(tmp_path))
    monkeypatch.setattr("fer_jax.evaluation.evaluate.Evaluator.__call__", Full())
    with pytest.raises(UserError) as caught:
        evaluate(epath.Path(tmp_path))
    assert str(caught.value).endswith("give a smaller config.evaluation.batch_size than 512")


def test_other_errors_are_left_alone():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.explained(make_mesh(devices=1), ""):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_data_too_large_for_the_device_are_streamed_and_it_is_said(tiny, monkeypatch, capsys):
    monkeypatch.setattr(setup, "RESIDENT_ON_CPU", 1 << 10)
    assert not setup.make_setup(tiny()).resident
    assert "config.data.path=auto: 0.0 GiB of training data do not fit" in capsys.readouterr().out
