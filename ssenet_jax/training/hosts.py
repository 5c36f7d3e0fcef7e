"""Several processes, on one host or many, that work on one run.

They talk through the key-value store of the coordinator, in process 0, not through collectives on the devices: those
give up on a process that is an hour late, and hang when one has left.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src import distributed  # the store has no public name

from ssenet_jax.training import stop

_FIRST_WORD_S, _WORDS_EVERY_S, _LOOK_EVERY_S = 10, 60, 1.0
_KEPT_TURNS = 16
_STOP = "stop"
_LAUNCHER = (
    "SLURM_NTASKS SLURM_PROCID SLURM_LOCALID SLURM_JOB_ID "
    "OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_LOCAL_RANK OMPI_MCA_orte_hnp_uri"
).split()
_turns: Counter = Counter()
_looked = {"at": 0.0, "stop": False}


def join(coordinator: str = "", process_id: int = -1, num_processes: int = 0) -> None:
    """Joins this process to the others of its run; to be called before anything else asks for a device.

    With no argument the others are found where Cloud TPU, Slurm or Open MPI tell of them; elsewhere, and in a process
    that has used its devices already, a run has one process.

    Args:
        coordinator: HOST:PORT of process 0; "" finds it.
        process_id: this process, counted from 0; -1 finds it.
        num_processes: of the run; 0 finds it.

    Raises:
        ValueError: some of the three are given and not all, or they or the launcher's variables make no sense.
        OSError: the others did not come.
    """
    given = (bool(coordinator), process_id >= 0, num_processes > 0)
    if any(given) and not all(given):
        raise ValueError("--coordinator, --process_id and --num_processes belong together; give all three, or none")
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself, also outside a training
    if all(given):
        if process_id >= num_processes:
            raise ValueError(f"--process_id is {process_id}; with --num_processes={num_processes} it is below that")
        _check_address(coordinator)
        _use_gloo()
        who = f"the {num_processes} processes of the run at {coordinator}"
        _while_waiting(lambda: jax.distributed.initialize(coordinator, num_processes, process_id), who)
        return
    if os.environ.get("SLURM_NTASKS") == "1":
        return  # JAX would leave the only task on a node with the first of its GPUs
    try:
        _while_waiting(jax.distributed.initialize, "the other processes that the launcher told of")
    except (ValueError, RuntimeError, LookupError) as error:
        alone = ("coordinator_address should be defined", "must be called before any JAX calls")
        if not any(reason in str(error) for reason in alone):
            raise ValueError(_bad_launcher(error)) from error


def _check_address(coordinator: str) -> None:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"--coordinator is {coordinator!r}; it is HOST:PORT of process 0, for example 10.0.0.1:1234")


def _bad_launcher(error: Exception) -> str:
    set_here = {name: os.environ[name] for name in _LAUNCHER if name in os.environ}
    odd = {name: value for name, value in set_here.items() if not value.isdecimal()} or set_here
    listed = ", ".join(f"{name}={value!r}" for name, value in odd.items()) or "none of them is set"
    reason = f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}".strip()
    return (
        f"the variables of the launcher do not tell of the other processes ({reason}; {listed}); correct them, or give "
        "--coordinator, --process_id and --num_processes"
    )


def _use_gloo() -> None:
    """Lets processes on CPUs talk to each other; without effect on accelerators."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")


def _while_waiting(connect: Callable[[], None], who: str) -> None:
    """Runs a call that waits for others in a thread, says whom it waits for, and ends the process when told to."""
    raised: list[Exception] = []

    def call():
        try:
            connect()
        except Exception as error:  # raised again below
            raised.append(error)

    thread, waiting = threading.Thread(target=call, daemon=True), _Waiting(who)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        waiting.say_after_a_while()
        if stop.requested():
            stop.end_at_once(f"stopped while waiting for {who}; nothing was begun")
    if raised and "DEADLINE_EXCEEDED" in str(raised[0]):
        raise TimeoutError(f"{who} did not all come; start them within five minutes of each other") from raised[0]
    if raised:
        raise raised[0]


class _Waiting:
    """Says on standard error what is waited for, after ten seconds and then every minute."""

    def __init__(self, who: str):
        self._who, self._began, self._next = who, time.monotonic(), _FIRST_WORD_S

    def say_after_a_while(self) -> None:
        seconds = time.monotonic() - self._began
        if seconds >= self._next:
            self._next += _WORDS_EVERY_S
            print(f"waiting for {self._who}, {seconds:.0f} s so far", file=sys.stderr, flush=True)


def wait_for_all(where: str) -> None:
    """Returns when every process of the run has come here; however long one of them has to work before that.

    Args:
        where: a name of the place.

    Raises:
        Preempted: on every process, when one of them was told to stop before all had come.
        OSError: another process has failed.
    """
    if _STOP in agree(where, _STOP if told_to_stop() else "", until_stopped=True):
        raise stop.Preempted(f"the run was stopped at the {where}; run the same command again to go on")


def agree(where: str, word: str, *, until_stopped: bool = False) -> list[str]:
    """What every process says at a place, in the order of the processes, the same list on each.

    Args:
        where: a name of the place; all processes come to the same places in the same order.
        word: what this one says.
        until_stopped: the word "stop" stands for a process that was stopped or is not there yet when the run is.

    Raises:
        OSError: another process has failed.
    """
    if jax.process_count() == 1:
        return [word]
    key = _key(where)
    if jax.process_index():
        _store().key_value_set(f"{key}/{jax.process_index()}", word)
        return json.loads(_hear(f"{key}/all", 0, where, json.dumps([_STOP])))
    words = [word]
    for index in range(1, jax.process_count()):
        words.append(_hear(f"{key}/{index}", index, where, _STOP, give_up=until_stopped))
    _store().key_value_set(f"{key}/all", json.dumps(words))
    return words


def word_of_first(where: str, word: str) -> str:
    """What process 0 says at a place that all come to many times, such as a training step."""
    if jax.process_count() == 1:
        return word
    key = _key(where)
    if jax.process_index():
        return _hear(key, 0, where, _STOP)
    _store().key_value_set(key, word)
    # the steps are collective, so the others are at most a few behind
    if _turns[where] > _KEPT_TURNS:
        _store().key_value_delete(f"ssenet/{where}/{_turns[where] - _KEPT_TURNS}")
    return word


def told_to_stop() -> bool:
    """Whether this process, or as far as is known another one of the run, was told to stop."""
    if stop.requested():
        _tell("stop")
        return True
    now = time.monotonic()
    if jax.process_count() > 1 and not _looked["stop"] and now - _looked["at"] > _LOOK_EVERY_S:
        _looked.update(at=now, stop=_known("stop") is not None)
    return bool(_looked["stop"])


def leave_if_told(what: str, workdir: Any) -> None:
    """Raises Preempted when the run was told to stop; for places between which every process works by itself."""
    if told_to_stop():
        raise stop.Preempted(
            f"{what} was stopped; what it wrote stays in {workdir}; run the same command again to go on"
        )


@contextlib.contextmanager
def leaving_word() -> Iterator[None]:
    """Around the whole of a run: those who wait for this process learn that it was stopped or has failed."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, stop.Preempted)
        _tell(f"left/{jax.process_index()}", _STOP if stopped else f"{error or type(error).__name__}")
        raise


def _store() -> Any:
    return distributed.global_state.client


def _key(where: str) -> str:
    _turns[where] += 1
    return f"ssenet/{where}/{_turns[where]}"


def _tell(name: str, word: str = "") -> None:
    if jax.process_count() > 1:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # it was said before, or nobody is left to hear it
            _store().key_value_set(f"ssenet {name}", word)


def _known(name: str) -> str | None:
    try:
        return _store().key_value_try_get(f"ssenet {name}")
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _hear(key: str, index: int, where: str, if_stopped: str, *, give_up: bool = False) -> str:
    """What a process says under a key; `if_stopped` when it was stopped before it came."""
    waiting = _Waiting(f"process {index} of {jax.process_count()} ({where})")
    while True:
        try:
            return _store().blocking_key_value_get(key, round(1000 * _LOOK_EVERY_S))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise OSError(f"process {index} of the run is gone ({str(error).splitlines()[0]})") from error
        left = _known(f"left/{index}")
        if left == _STOP or (give_up and told_to_stop()):
            return if_stopped
        if left is not None:
            raise OSError(f"process {index} of the run has failed: {left}")
        waiting.say_after_a_while()
