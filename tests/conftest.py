"""What every test shares: four virtual CPU devices, strict dtypes, tiny faces, and where real data lies."""

import functools
import gc
import importlib
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUICK = " --xla_backend_optimization_level=0"  # a test compiles for seconds and computes for moments
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have the new emitters only
    # The old emitters compile a step of training in a third of the time; one module wastes less than 32 parts.
    QUICK += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4" + QUICK
sys.path.insert(0, str(ROOT))  # experiments/ are files, not an installed package

import jax
import pytest
import shapes
from absl import flags
from jaxtyping import install_import_hook

install_import_hook(shapes.PACKAGES, "shapes.arrays_only")  # before any of them is imported

COMPILED = ROOT / ".pytest_cache" / "compiled"  # programs of earlier tests and sessions: compiling is most of the time

# The files that take longest, begun first: no process is left alone with one of them while the others idle.
LONGEST = (
    "test_experiments.py",
    "test_resume.py",
    "training/test_devices.py",
    "training/test_pretrained.py",
    "tfds_builders/test_experiments_on_trees.py",
    "training/test_accelerator.py",
    "training/test_resolutions.py",
    "methods/test_psr.py",
    "training/test_strategy_runs.py",
    "methods/test_acnn.py",
    "training/test_clip_training.py",
    "training/test_seeds.py",
    "test_bad_input.py",
    "methods/test_parameters.py",
    "training/test_phases.py",
)

os.environ["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)  # of commands, in this process and others
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_configure(config):
    # Grain defines absl flags and reads them when it iterates: they must count as parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def pytest_collection_modifyitems(items):
    order = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))  # stable: the rest stays as it is


def pytest_collection_finish():
    gc.freeze()  # what is imported stays: looking through it for garbage takes a tenth of the time of tracing
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True)
def _strict_promotion(request):
    """Our own arithmetic never mixes types unawares; optax, which does, runs in tests/training and whole runs."""
    ours = {"methods", "nn", "data", "evaluation"}
    with jax.numpy_dtype_promotion("strict" if request.path.parent.name in ours else "standard"):
        yield


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder with the packed FER-2013 and FER+ (`$FER_JAX_TEST_DATA`, else `../shared/data`)."""
    folder = pathlib.Path(os.environ.get("FER_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "fer2013_unique_png.npz").exists():
        pytest.skip(f"needs the real FER-2013 under {folder}; set FER_JAX_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """A folder for prepared data sets, shared by the whole session."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session", autouse=True)
def _resnet_6():
    """Adds a ResNet of two blocks: half of what there is of ResNet-10 to trace and compile."""
    from fer_jax.nn import resnet, trunk

    trunk.RESNETS[6] = functools.partial(resnet.ResNet, stage_sizes=(1, 1))


@pytest.fixture
def tiny(data_dir, monkeypatch):
    """A function that makes a config small enough to train in a test: tiny('fdrl', max_steps=3).

    Runs in the test's own process draw no report; those of `run_py` do.
    """
    from fer_jax.runs import results

    monkeypatch.setattr(results, "write_report", lambda *_, **__: None)

    def make(method: str = "baseline", variant: str = "smoke", **train):
        config = importlib.import_module(f"experiments.{method}").get_config(variant)
        config.data.data_dir = data_dir
        if "depth" in config.model:
            config.model.depth, config.data.image_size = 6, 16
        if method == "psr":
            config.model.sep_pos, config.model.last, config.data.image_size = 6, "pool2", 32  # four convolutions
        elif method == "acnn":
            config.model.cut = "conv2_1"
        if "widths" in config.model:
            config.model.widths = (8, 8, 8)
        elif "width" in config.model:
            config.model.width = 8
        config.train.batch_size = 16
        config.train.devices = 1  # tests/training/test_devices.py takes more
        config.train.max_steps = 6
        config.train.log_every_steps = 2
        config.train.eval_every_epochs = 0.3
        config.train.update(train)
        return config

    return make


@pytest.fixture
def run_py(data_dir):
    """A function that runs run.py as a user would, on one device, and returns the finished process."""

    def start(*arguments: str, wait: bool = True, devices: int = 1, timeout: float = 240):
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}" + QUICK,
            "TFDS_DATA_DIR": data_dir,
            "JAX_PLATFORMS": "cpu",
        }
        command = [sys.executable, "run.py", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        if wait:
            return subprocess.run(command, cwd=ROOT, env=environment, timeout=timeout, **pipes)
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    return start


@pytest.fixture
def run_here(data_dir, monkeypatch, capsys):
    """Like `run_py`, in this process and on its four devices: a new process takes seconds to start.

    Settings that would outlast the command (memory, the compilation cache) are left as they are.
    """
    from fer_jax import cli
    from fer_jax.engine import allocator, compiler

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(compiler, "use_compilation_cache", lambda: None)

    def start(*arguments: str) -> subprocess.CompletedProcess:
        capsys.readouterr()
        interrupted = signal.getsignal(signal.SIGINT)
        status = cli.main(arguments)
        signal.signal(signal.SIGINT, interrupted)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out + said.err)

    return start


@pytest.fixture
def results_of():
    """A function that reads a run's results.json."""
    return lambda workdir: json.loads((pathlib.Path(workdir) / "results.json").read_text())
