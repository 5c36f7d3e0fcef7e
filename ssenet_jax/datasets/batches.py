"""From a source to batches: order, augmentation and position depend on the seed and the step alone (grain)."""

import sys
from collections import deque
from concurrent.futures import Future
from typing import Any

import cloudpickle
import grain
import numpy as np

from ssenet_jax import cores, processes
from ssenet_jax.datasets.records import Source
from ssenet_jax.datasets.transforms import Transform


def train_batches(
    source: Source, transform: Transform, *, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
) -> "TrainBatches":
    """Batches without end: element i is the batch of training step i.

    Every epoch has an order of its own and a batch may span two. A process holds its rows of the global batch in order,
    so the global batch is the same arrays for any number of processes.

    Args:
        source: the records.
        transform: a function of a record and a generator that gives a dict of arrays of fixed shape, and strings.
        batch_size: rows of the global batch.
        seed: decides order and augmentation, 0 <= seed < 2**32.
        process_index: this process, counted from 0.
        process_count: processes that share a batch; it divides `batch_size`.

    Returns:
        Dicts of numpy arrays whose leading axis is batch_size / process_count, by step.

    Raises:
        ValueError: an empty source, or a batch that the processes cannot share.
    """
    if not len(source):
        raise ValueError("the source has no record to train on; check the split's list")
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"a batch of {batch_size} does not divide over {process_count} processes; take a multiple of it"
        )
    rows = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(transform)
    return TrainBatches(rows, batch_size, process_index, process_count)


class TrainBatches:
    """One process's rows of every global batch, stacked; element i is the batch of step i."""

    def __init__(self, rows: grain.MapDataset, batch_size: int, process_index: int, process_count: int):
        self.local = batch_size // process_count
        self.examples = grain.MapDataset.source(_LocalRows(rows, batch_size, self.local, process_index * self.local))

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        first = int(step) * self.local
        return stacked([self.examples[index] for index in range(first, first + self.local)])


class BatchIterator:
    """The batches of `TrainBatches` from a step on, their examples prepared ahead.

    Args:
        examples: an iterator over the examples of one process, with grain's `set_state` and `close`.
        local: rows of a batch.
        start_step: the first step.
    """

    def __init__(self, examples: Any, local: int, start_step: int):
        self._examples, self._local = examples, local
        self.set_state({"next_index": start_step})

    def __iter__(self):
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = stacked([next(self._examples) for _ in range(self._local)])
        self._step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The step of the next batch: it does not depend on the number of threads or processes."""
        return {"next_index": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a step; raises for what `get_state` did not give."""
        step = state["next_index"]
        if not isinstance(step, int) or not 0 <= step < sys.maxsize // self._local:
            raise ValueError(f"{step!r} is no step")
        self._examples.set_state({"next_index": step * self._local})
        self._step = step

    def close(self) -> None:
        """Ends the threads or processes."""
        self._examples.close()


def iterate(
    batches: TrainBatches, start_step: int, *, num_threads: int | None = None, workers: int = 0
) -> BatchIterator:
    """Iterates over batches from a step on, one batch and an example for each thread or process ahead.

    Args:
        batches: what `train_batches` gave.
        start_step: the first step.
        num_threads: threads that decode and augment; None takes one for each core of this process.
        workers: processes that decode and augment in their place, 0 for none. Close the iterator to end them.
    """
    if workers:
        return BatchIterator(_InProcesses(batches, workers), batches.local, start_step)
    threads = num_threads or cores.available()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=batches.local + threads)
    return BatchIterator(iter(batches.examples.to_iter_dataset(options)), batches.local, start_step)


class _InProcesses:
    """Examples in order, made ahead in other processes.

    Not by grain's `mp_prefetch`: its state is that of so many processes, they heed the signals that a run puts off, and
    at the end of a run it leaves shared memory behind.
    """

    def __init__(self, batches: TrainBatches, workers: int):
        try:
            pickled = cloudpickle.dumps(batches.examples)
        except Exception as error:  # TypeError or pickle's own, by what the source holds
            raise ValueError(
                f"the data set cannot be sent to other processes ({error}); set --config.data.workers=0"
            ) from error
        self._workers, self._ahead = workers, batches.local + workers
        self._pool = processes.start(workers, _keep, pickled)
        self._running: deque[Future] = deque()

    def __next__(self) -> dict:
        with processes.naming_a_kill(self._workers, "input", "data.workers"):
            while len(self._running) < self._ahead:
                with processes.held_signals():
                    self._running.append(self._pool.submit(_example, self._next))
                self._next += 1
            return self._running.popleft().result()

    def set_state(self, state: dict[str, int]) -> None:
        while self._running:
            self._running.pop().cancel()
        self._next = state["next_index"]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_kept: list = []  # in a process of a pool: what it makes examples of, pickled until the first is asked for


def _keep(pickled: bytes) -> None:
    _kept.append(pickled)


def _example(index: int) -> dict:
    if isinstance(_kept[0], bytes):
        _kept[0] = cloudpickle.loads(_kept[0])  # here, so that what it raises reaches the caller
    return _kept[0][index]


def stacked(examples: list[dict]) -> dict[str, np.ndarray]:
    """Examples as one batch."""
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


class _LocalRows:
    """The examples of one process in the order that it takes them: those of its rows of batch 0, of batch 1, ..."""

    def __init__(self, rows: grain.MapDataset, batch_size: int, local: int, first: int):
        self._rows, self._batch_size, self._local, self._first = rows, batch_size, local, first

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size * self._local

    def __getitem__(self, index: int) -> dict:
        step, row = divmod(int(index), self._local)
        return self._rows[step * self._batch_size + self._first + row]
