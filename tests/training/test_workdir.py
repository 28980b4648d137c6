"""Whose a work directory is: of a run that has saved in it, and of hosts that all see the same one."""

import json
import re
import subprocess

import pytest
from etils import epath

from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS
from fer_jax.locks import alone
from fer_jax.runs import workdir as workdirs
from fer_jax.runs.checkpoint import MANIFEST
from fer_jax.runs.model_file import MODEL, write_model
from fer_jax.runs.workdir import check_owner, claim, default_workdir, read_results, stored_config, with_kept_files
from fer_jax.storage import write_whole
from fer_jax.words.classes import STORED, class_vectors


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path / "run")


def save(folder):
    """Leaves what a completed save leaves, as far as anybody looks who does not restore it."""
    (folder / "checkpoints" / "2").mkdir(parents=True)
    (folder / "checkpoints" / "2" / MANIFEST).write_text("{}")


def begin(workdir, config, files=None):
    with claim(workdir, config, files):
        pass


def test_a_folder_where_nothing_was_saved_is_anyones(tiny, workdir):
    begin(workdir, tiny(max_steps=2))
    (workdir / "checkpoints" / "1").mkdir(parents=True)  # a save that was cut short
    smaller = tiny(max_steps=2, batch_size=8)
    check_owner(workdir, smaller)
    begin(workdir, smaller)
    assert stored_config(workdir).train.batch_size == 8
    save(workdir)
    check_owner(workdir, smaller)
    with pytest.raises(UserError, match=r"belongs to another config \(train.batch_size: 8 -> 16\)"):
        check_owner(workdir, tiny(max_steps=2))


def test_tables_of_results_do_not_change_the_code_that_runs(tmp_path, monkeypatch):
    def git(*arguments):
        return subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True, text=True).stdout

    code, table = tmp_path / "code.py", tmp_path / "results" / "claims" / "fan.md"
    table.parent.mkdir(parents=True)
    git("init")
    for path in (code, table):
        path.write_text("first")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a", "commit", "-m", "first")
    monkeypatch.setattr(workdirs, "__file__", str(code))
    table.write_text("second")
    commit = workdirs.git_commit.__wrapped__()
    assert commit == git("rev-parse", "HEAD").strip()
    code.write_text("second")
    assert workdirs.git_commit.__wrapped__() == f"{commit}+"


def test_a_run_that_resumes_elsewhere_knows_what_has_changed(tiny, workdir, monkeypatch):
    config = tiny(max_steps=2)
    begin(workdir, config)
    assert not workdirs.changed_machine(workdir)
    monkeypatch.setattr(workdirs, "device_name", lambda: "cpu (x86_64, 99 cores)")
    assert re.fullmatch(r"device: '.*' -> 'cpu \(x86_64, 99 cores\)'", workdirs.changed_machine(workdir))
    begin(workdir, config)  # nothing has been saved yet: it begins here
    assert not workdirs.changed_machine(workdir)
    save(workdir)
    monkeypatch.setattr(workdirs, "versions", lambda: {"jax": "0.0.1"})
    begin(workdir, config)
    assert "versions.jax" in workdirs.changed_machine(workdir)


@pytest.mark.parametrize("name", ["a[b]", "a\\b"])
def test_a_path_that_checkpoints_cannot_be_read_from(name, tiny, workdir):
    with pytest.raises(UserError, match="checkpoints cannot be read .* give another with --workdir"):
        check_owner(workdir / name, tiny())


@pytest.mark.parametrize(("experiment", "variant"), [("../x", "a"), ("/x", "a"), ("x", ".."), ("", "a"), ("x", "a/b")])
def test_the_default_folder_is_below_runs(experiment, variant, tiny):
    config = tiny()
    config.experiment, config.variant = experiment, variant
    with pytest.raises(UserError, match="cannot name a folder: give --workdir"):
        default_workdir(config)


def test_a_lost_config_is_made_again_from_the_model_file(tiny, workdir):
    config = tiny(max_steps=2)
    begin(workdir, config)
    save(workdir)
    write_model(workdir / MODEL, {}, {"config": json.loads(config.to_json())})
    (workdir / "config.json").write_text("")
    with pytest.raises(UserError, match="delete it and results.json beside it and start the same command again"):
        check_owner(workdir, config)
    (workdir / "config.json").unlink()
    with pytest.raises(UserError, match="max_steps: 2 -> 3"):
        check_owner(workdir, tiny(max_steps=3))
    begin(workdir, config)
    assert stored_config(workdir).train.max_steps == 2


def test_links_in_temporary_places_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (tmp_path / "x.json.tmp").symlink_to(victim)
    (tmp_path / "lock").symlink_to(victim)
    write_whole(tmp_path / "x.json", "new")
    with pytest.raises(OSError, match="symbolic links"), alone(tmp_path / "lock"):
        pass
    assert (victim.read_text(), (tmp_path / "x.json").read_text()) == ("as it was", "new")


@pytest.mark.parametrize("text", ["", "5", '{"config"', '{"config": 5}', '{"config": {"seed": 1}}'])
def test_a_damaged_config_is_refused_in_one_line(text, tiny, workdir):
    save(workdir)
    (workdir / "config.json").write_text(text)
    for read in (stored_config, lambda folder: check_owner(folder, tiny())):
        with pytest.raises(UserError, match=r"config\.json is damaged \(.*\): restore it, or delete"):
            read(workdir)


def test_a_sweep_with_a_damaged_config_keeps_what_its_runs_have_trained(tiny, workdir):
    config = tiny(max_steps=2)
    config.seeds = 2
    begin(workdir, config)
    begin(workdir / "seed00", tiny(max_steps=2))
    save(workdir / "seed00")
    (workdir / "results.json").write_text("{}")
    for damage in (lambda path: path.write_text(path.read_text()[:200]), lambda path: path.unlink()):
        damage(workdir / "config.json")
        with pytest.raises(UserError, match="delete it and results.json beside it"):
            check_owner(workdir, config)
    (workdir / "results.json").unlink()
    begin(workdir, config)
    assert stored_config(workdir).seeds == 2
    (workdir / "seed00" / "config.json").write_text("{")
    with pytest.raises(UserError, match="seed00/config.json is damaged .* delete it and results.json"):
        check_owner(workdir / "seed00", tiny(max_steps=2))


FEW = '{"dataset": "x", "split": "test", "num_examples": 70, "accuracy": 0.5, "mean_recall": 0.5, "macro_f1": 0.5}'


@pytest.mark.parametrize("text", ["", '{"dataset": "x", "spl', '["dataset", "split", "num_examples"]', FEW])
def test_results_that_are_damaged_cost_no_training(text, workdir):
    workdir.mkdir()
    (workdir / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json is damaged .*: delete it and start the same command again"):
        read_results(workdir)


def test_what_was_saved_while_another_run_prepared_itself_is_kept(tiny, workdir):
    other = tiny(max_steps=3)
    begin(workdir, tiny(max_steps=2))
    check_owner(workdir, other)
    save(workdir)
    with pytest.raises(UserError, match=r"belongs to another config \(train.max_steps: 2 -> 3\)"):
        begin(workdir, other)
    assert stored_config(workdir).train.max_steps == 2


def test_a_run_at_work_keeps_its_folder_before_its_first_save(tiny, workdir):
    with claim(workdir, tiny(max_steps=2)), pytest.raises(UserError, match="another process is at work in"):
        begin(workdir, tiny(max_steps=3))
    assert stored_config(workdir).train.max_steps == 2


def test_a_sweep_owns_its_folder_once_one_of_its_runs_has_saved(tiny, workdir):
    config, other = tiny(max_steps=2), tiny(max_steps=3)
    config.seeds = other.seeds = 2
    begin(workdir, config)
    begin(workdir / "seed00", tiny(max_steps=2))
    check_owner(workdir, other)
    save(workdir / "seed00")
    with pytest.raises(UserError, match="belongs to another config"):
        check_owner(workdir, other)


def test_class_vectors_are_kept_once_their_run_has_saved(tiny, workdir):
    config, other = tiny("word2vec", max_steps=2), tiny("word2vec", max_steps=3)
    first, second = (class_vectors("minilm", words, EMOTIONS[:7]) for words in ("seed", "nouns"))
    begin(workdir, config, {STORED: first.as_json()})
    assert with_kept_files(config, workdir).model.vectors == config.model.vectors
    begin(workdir, other, {STORED: second.as_json()})

    def kept():
        return json.loads((workdir / STORED).read_text()) == json.loads(json.dumps(second.as_json()))

    assert kept()
    save(workdir)
    assert with_kept_files(other, workdir).model.vectors == str(workdir / STORED)
    begin(workdir, other, {STORED: first.as_json()})
    assert kept()


@pytest.mark.parametrize("where", ["process 0", "another host", "another host with a folder of its own"])
def test_all_hosts_see_what_process_0_writes(where, workdir, monkeypatch):
    owner, agreed = f"process 1 on host, {'ab' * 16}", []
    workdir.mkdir()
    (workdir / "config.json").write_text("{}")  # of an earlier run, on each host
    (workdir / ".lock").write_text(owner if "own" not in where else f"process 1 on host, {'cd' * 16}")
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(workdirs, "NETWORK_SECONDS", 0.0)
    monkeypatch.setattr(workdirs, "told_by_main", lambda data: data if where == "process 0" else owner.encode()[-32:])
    monkeypatch.setattr(workdirs, "agree", lambda what, facts, advice: agreed.append(facts))
    workdirs._check_shared(workdir, owner if where == "process 0" else None)
    assert agreed == [{"shared": "own" not in where}]
