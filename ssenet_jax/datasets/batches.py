"""From a source to batches: order, augmentation and position depend on the seed and the step alone (grain)."""

import sys

import grain
import numpy as np

from ssenet_jax import cores
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
    """The batches of `TrainBatches` from a step on, their examples prepared ahead in threads."""

    def __init__(self, batches: TrainBatches, start_step: int, num_threads: int):
        self._local = batches.local
        # one batch ahead, and an example in each thread's hands
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=batches.local + num_threads)
        self._examples = iter(batches.examples.to_iter_dataset(options))
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


def iterate(batches: TrainBatches, start_step: int, *, num_threads: int | None = None) -> BatchIterator:
    """Iterates over batches from a step on.

    Args:
        batches: what `train_batches` gave.
        start_step: the first step.
        num_threads: threads that decode and augment; None takes one for each core of this process.
    """
    return BatchIterator(batches, start_step, num_threads or cores.available())


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
