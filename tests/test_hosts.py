"""Two processes with four devices each do what one process with eight does; and what they say when started wrongly."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.checkpoint import load_variables
from ssenet_jax.stages import runner
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.facts import read_config
from ssenet_jax.training import hosts
from ssenet_jax.training.sharding import make_mesh
from ssenet_jax.training.stop import Preempted, listening

TESTS = Path(__file__).parent
WORKER = """
import sys
sys.path.insert(0, {tests!r})
from ssenet_jax.training import hosts
hosts.join({coordinator!r}, int(sys.argv[1]), 2)
import test_hosts
test_hosts.work(sys.argv[2])
"""
sys.path.insert(0, str(TESTS))  # the steps of test_devices and test_train serve here too

from test_devices import assert_same_step, step_on  # noqa: E402
from test_train import Batches, SmallNet, log_of, run, small_recipe  # noqa: E402


class Part:
    """This process's rows of the batches of `test_train`."""

    def __init__(self, batches, process, processes):
        self._batches, self._process, self._processes = batches, process, processes

    def __next__(self):
        batch = next(self._batches)
        rows = len(batch["id"]) // self._processes
        return {name: value[self._process * rows : (self._process + 1) * rows] for name, value in batch.items()}

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)


def train_in(folder):
    """Four steps with dropout and batch norm, or what a checkpoint in `folder` leaves of them."""
    variables = jax.device_get(SmallNet().init(jax.random.key(0), jnp.zeros((1, 12, 12, 3))))
    batches = Part(Batches(), jax.process_index(), jax.process_count())
    return run(Path(folder), variables, make_mesh(), batches)


def work(folder):
    """What each of the two processes does."""
    train_in(f"{folder}/together")
    train_in(f"{folder}/handed_over")
    hosts.wait_for_all("trained")
    source = type("Source", (), {"ids": [f"{i}" for i in range(7)], "__len__": lambda self: 7})()
    share = runner.missing(source, lambda image_id: Path(folder) / f"{image_id}.done")
    for index in share:
        (Path(folder) / f"{index}.done").touch()
    hosts.wait_for_all("shared")
    result = step_on(make_mesh())
    if jax.process_index() == 0:
        (Path(folder) / "step.pickle").write_bytes(pickle.dumps(result))
    line = stopped_by_a_signal_to_one(folder)
    devices = [jax.local_device_count(), jax.device_count()]
    print(json.dumps({"share": share, "devices": devices, "stopped": line}))


def stopped_by_a_signal_to_one(folder):
    """What a long training says when only the second of its processes is told to stop."""

    def stop(index):
        if index == 3 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    variables = jax.device_get(SmallNet().init(jax.random.key(0), jnp.zeros((1, 12, 12, 3))))
    batches, recipe = Part(Batches(on_step=stop), jax.process_index(), 2), small_recipe(steps=10_000)
    quiet = {"checkpoint_every": 10_000, "log_every": 10_000}
    try:
        with listening():
            run(Path(folder) / "stopped", variables, make_mesh(), batches, recipe, **quiet)
    except Preempted as stopped:
        return str(stopped)
    return "trained to its end"


def first_two_steps(folder):
    """Leaves a training as a run that was killed after its second step would."""
    shutil.rmtree(folder / "checkpoints" / "4")
    (folder / "log.jsonl").write_text("".join((folder / "log.jsonl").read_text().splitlines(keepends=True)[:2]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders in which one process and then two have trained; and what the two printed."""
    folder = tmp_path_factory.mktemp("hosts")
    for name in ("alone", "handed_over"):
        train_in(folder / name)
    first_two_steps(folder / "handed_over")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        code = WORKER.format(tests=str(TESTS), coordinator=f"localhost:{free.getsockname()[1]}")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(TESTS.parent),
    }
    commands = ([sys.executable, "-c", code, str(i), str(folder)] for i in range(2))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **streams) for command in commands]
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return folder, [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def assert_close(folder, other):
    ours, theirs = (load_variables(path / "checkpoints", "train_small") for path in (folder, other))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.max(np.abs(a - b)) <= 1e-5 * np.max(np.abs(b))


def test_two_processes_train_as_one_does(folders):
    folder, _ = folders
    assert_close(folder / "together", folder / "alone")
    losses = [[line["loss"] for line in log_of(folder / name)] for name in ("together", "alone")]
    np.testing.assert_allclose(*losses, rtol=1e-6, atol=1e-6)


def test_two_processes_take_the_same_step_of_resnet38(folders):
    folder, _ = folders
    assert_same_step(pickle.loads((folder / "step.pickle").read_bytes()), step_on(make_mesh(1)))


def test_two_processes_go_on_where_one_stopped(folders):
    folder, _ = folders
    assert_close(folder / "handed_over", folder / "alone")


def test_one_process_goes_on_where_two_stopped(folders):
    folder, _ = folders
    first_two_steps(folder / "together")
    train_in(folder / "together")
    assert_close(folder / "together", folder / "alone")


def test_a_signal_to_one_process_stops_both_after_the_same_step(folders):
    folder, printed = folders
    lines = {output["stopped"] for output in printed}
    (checkpoint,) = (folder / "stopped" / "checkpoints").iterdir()
    assert lines == {
        f"train_small was stopped after step {checkpoint.name} of 10000, saved in {checkpoint}; "
        "run the same command again to go on"
    }


def test_every_image_falls_to_one_process(folders):
    _, printed = folders
    assert sorted(printed[0]["share"] + printed[1]["share"]) == list(range(7))
    assert [output["devices"] for output in printed] == [[4, 8]] * 2


def test_processes_with_other_settings_or_other_photos_are_refused(scored_run, monkeypatch):
    config, workdir = scored_run
    here = Context(config, workdir)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    said = []
    monkeypatch.setattr(hosts, "agree", lambda where, word: said.append(word) or [word, word])
    runner._check_processes(here)
    for change, what in (("cam.flip", "settings"), ("", "photos of train")):
        there = Context(config.copy_and_resolve_references(), workdir)
        if change:
            there.config.cam.flip = not config.cam.flip
        else:
            there.train_source.ids = there.train_source.ids[:-1]
        monkeypatch.setattr(hosts, "agree", lambda where, word: [said[0], word])
        with pytest.raises(ValueError, match=f"process 1 has other {what} than process 0"):
            runner._check_processes(there)


def test_work_of_another_process_is_scored_too(tiny, tmp_path, monkeypatch, capsys):
    workdir = shutil.copytree(tiny, tmp_path / "run")
    monkeypatch.setattr(hosts, "agree", lambda where, word, **_: [word, "1" if where == "work of label" else word])
    (workdir / "metrics/label.train.json").unlink()
    runner.run_stages(read_config(workdir), workdir, ("label",))
    assert "label: 1 images have no result yet" in capsys.readouterr().err
    assert (workdir / "metrics/label.train.json").exists()


def test_alone_nobody_is_waited_for(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    hosts.join()
    hosts.wait_for_all("nobody")
    assert jax.process_count() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("localhost:1", -1, 0), "give all three"), (("", 0, 2), "give all three"), (("localhost:1", 2, 2), "below that")],
)
def test_flags_that_do_not_fit_together_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        hosts.join(*arguments)


@pytest.mark.parametrize("address", ["garbage", "host:", ":1234", "host:port", "host:0", "host:99999", " "])
def test_an_address_that_is_none_is_an_error_with_an_example(address):
    with pytest.raises(ValueError, match="--coordinator is .*HOST:PORT of process 0"):
        hosts.join(address, 0, 2)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "0",
         "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2"}  # fmt: skip
OMPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "odd", "value", "named"),
    [
        (OMPI, "OMPI_COMM_WORLD_RANK", None, "OMPI_COMM_WORLD_RANK"),
        (OMPI, "OMPI_COMM_WORLD_SIZE", "two", "OMPI_COMM_WORLD_SIZE='two'"),
        (OMPI, "OMPI_MCA_orte_hnp_uri", "nothing", "OMPI_MCA_orte_hnp_uri='nothing'"),
        (SLURM, "SLURM_NTASKS", "2(x2)", r"SLURM_NTASKS='2\(x2\)'"),
        (SLURM, "SLURM_PROCID", "5", "SLURM_PROCID='5'"),
        (SLURM, "SLURM_JOB_ID", "", "SLURM_JOB_ID=''"),
    ],
)
def test_a_launcher_that_tells_nonsense_is_one_line(monkeypatch, variables, odd, value, named):
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", lambda: False)
    for name, given in {**variables, odd: value}.items():
        monkeypatch.delenv(name, raising=False) if given is None else monkeypatch.setenv(name, given)
    with pytest.raises(ValueError, match=f"variables of the launcher .*{named}.* or give --coordinator") as error:
        hosts.join()
    assert "\n" not in str(error.value)


def test_waiting_says_for_whom_after_a_while_and_then_now_and_again(monkeypatch, capsys):
    monkeypatch.setattr(hosts, "_FIRST_WORD_S", 0.1)
    monkeypatch.setattr(hosts, "_WORDS_EVERY_S", 0.25)
    hosts._while_waiting(lambda: time.sleep(0.5), "process 1 of 2")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("waiting for process 1 of 2, ") for line in lines)


def test_others_that_never_come_are_one_line(monkeypatch):
    def nobody():
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nMore")

    with pytest.raises(TimeoutError, match="the 2 processes did not all come; start them within five minutes"):
        hosts._while_waiting(nobody, "the 2 processes")


ALONE = """
import sys
from ssenet_jax.training import hosts, stop
hosts._FIRST_WORD_S = 0.1
with stop.listening():
    hosts.join("localhost:" + sys.argv[1], 1, 2)
"""


def test_ctrl_c_while_waiting_for_the_others_is_one_line():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", ALONE, port], **streams)
    assert any(line.startswith("waiting for the 2 processes") for line in process.stderr)  # up to that one
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("ssenet: stopped while waiting for the 2 processes of the run at")


TALK = """
import os, signal, sys
index, what = int(sys.argv[2]), sys.argv[3]
from ssenet_jax.training import hosts, stop
hosts._LOOK_EVERY_S = 0.1
with stop.listening():
    hosts.join("localhost:" + sys.argv[1], index, 2)
    try:
        with hosts.leaving_word():
            hosts.wait_for_all("beginning")
            print(hosts.agree("words", f"from {index}"), hosts.word_of_first("steps", f"of {index}"))
            for step in range(9):  # a training has a few in flight
                assert hosts.word_of_first("steps", str(step)) == str(step) or index
            if what == "fails" and index:
                raise ValueError("its disk is full")
            if what == "is stopped" and index:
                os.kill(os.getpid(), signal.SIGTERM)
                hosts.leave_if_told("CAM, train", "runs/x")
            if what == "is stopped while the other works":
                if index:
                    os.kill(os.getpid(), signal.SIGTERM)
                while not index:
                    hosts.leave_if_told("CAM, train", "runs/x")
            hosts.wait_for_all("end")
            print("went on")
    except (stop.Preempted, OSError, ValueError) as error:
        print(type(error).__name__, error)
"""
ENDS = {  # of the second process -> what the first and the second say last
    "nothing": ("went on", "went on"),
    "fails": ("OSError process 1 of the run has failed: its disk is full", "ValueError its disk is full"),
    "is stopped": ("Preempted the run was stopped at the end; run the same", "Preempted CAM, train was stopped"),
    "is stopped while the other works": (
        "Preempted CAM, train was stopped", "Preempted the run was stopped at the end; run the same",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ENDS)
def test_what_happens_to_one_process_is_told_to_the_other(what):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(TESTS.parent)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", TALK, port, str(index), what], env=environment, **streams)
        for index in range(2)
    ]
    for index, (process, last) in enumerate(zip(started, ENDS[what], strict=True)):
        output, errors = process.communicate(timeout=240)
        lines = output.splitlines()
        assert lines[0].startswith("['from 0', 'from 1'] of 0"), errors
        assert lines[-1].startswith(last) and process.returncode == 0, (index, output, errors)
