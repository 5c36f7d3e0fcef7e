"""From a source to batches: order, augmentation and position depend on the seed and the step alone (grain)."""

import os
import sys

import grain
import numpy as np

from ssenet_jax.datasets.augment import Transform
from ssenet_jax.datasets.records import Source


def train_batches(
    source: Source, transform: Transform, *, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
) -> grain.MapDataset:
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
        A data set of dicts of numpy arrays whose leading axis is batch_size / process_count.

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
    return grain.MapDataset.source(_LocalBatches(rows, batch_size, process_index, process_count))


def iterate(dataset: grain.MapDataset, start_step: int, *, num_threads: int | None = None) -> grain.DatasetIterator:
    """Iterates over batches from a step on, preparing the next ones in threads.

    The iterator's state is the step alone: it does not depend on the number of threads or processes.

    Args:
        dataset: what `train_batches` gave.
        start_step: the first step.
        num_threads: threads that decode and augment; None takes one for each core.
    """
    threads = num_threads or os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    iterator = iter(dataset.to_iter_dataset(options))
    iterator.set_state({"next_index": start_step})
    return iterator


class _LocalBatches:
    """One process's rows of every global batch, stacked."""

    def __init__(self, rows: grain.MapDataset, batch_size: int, process_index: int, process_count: int):
        self._rows, self._batch_size = rows, batch_size
        self._local = batch_size // process_count
        self._first = process_index * self._local

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        start = int(step) * self._batch_size + self._first
        examples = [self._rows[index] for index in range(start, start + self._local)]
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
