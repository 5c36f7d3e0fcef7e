"""Several processes, on one host or many, that work on one run."""

import os

import jax
from orbax.checkpoint import multihost

_PATIENCE_MS = 7 * 24 * 3600 * 1000


def join(coordinator: str = "", process_id: int = -1, num_processes: int = 0) -> None:
    """Joins this process to the others of its run; to be called before anything else asks for a device.

    With no argument the others are found where Cloud TPU, Slurm or Open MPI tell of them; elsewhere, and in a process
    that has used its devices already, a run has one process.

    Args:
        coordinator: HOST:PORT of process 0; "" finds it.
        process_id: this process, counted from 0; -1 finds it.
        num_processes: of the run; 0 finds it.

    Raises:
        ValueError: some of the three are given and not all.
    """
    given = (bool(coordinator), process_id >= 0, num_processes > 0)
    if any(given) and not all(given):
        raise ValueError("--coordinator, --process_id and --num_processes belong together; give all three, or none")
    if all(given):
        if process_id >= num_processes:
            raise ValueError(f"--process_id is {process_id}; with --num_processes={num_processes} it is below that")
        _use_gloo()
        jax.distributed.initialize(coordinator, num_processes, process_id)
        return
    if os.environ.get("SLURM_NTASKS") == "1":
        return  # JAX would leave the only task on a node with the first of its GPUs
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        alone = ("coordinator_address should be defined", "must be called before any JAX calls")
        if not any(reason in str(error) for reason in alone):
            raise


def _use_gloo() -> None:
    """Lets processes on CPUs talk to each other; without effect on accelerators."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")


def wait_for_all(where: str) -> None:
    """Returns when every process of the run has come here; however long one of them has to work before that.

    Not a collective on the devices: those give up on a process that is an hour late.

    Args:
        where: a name that no other call of this run uses.
    """
    multihost.get_barrier_sync_fn()(key=f"ssenet {where}", timeout_ms=_PATIENCE_MS)
