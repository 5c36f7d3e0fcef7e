"""The input pipeline: order and augmentation depend on the seed and the step alone."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest

from ssenet_jax import main as command
from ssenet_jax.datasets import batches as pipeline
from ssenet_jax.processes import SIGNALS
from ssenet_jax.stages import train
from ssenet_jax.training.loop import NonFiniteLossError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # what processes cannot import by name


class Numbers:
    """Seven records that hold their own number."""

    class_names, has_masks, ids = ("a",), False, [f"n{number}" for number in range(7)]

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return {"id": self.ids[index], "value": np.float32(index)}


def jittered(record, rng):
    return record | {"noise": rng.random(3, np.float32)}


def batches(source=None, transform=jittered, batch_size=4, seed=5, **process):
    return pipeline.train_batches(
        Numbers() if source is None else source, transform, batch_size=batch_size, seed=seed, **process
    )


def assert_same(batch, other):
    assert set(batch) == set(other)
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key])


def test_every_epoch_shows_each_record_once_in_an_order_of_its_own():
    data = batches()
    order = np.concatenate([data[step]["value"] for step in range(7)]).reshape(4, 7)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.broadcast_to(np.arange(7), (4, 7)))
    assert len({tuple(epoch) for epoch in order}) > 1
    noise = np.concatenate([data[step]["noise"] for step in range(7)])
    assert len(np.unique(noise, axis=0)) == 28


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    forwards = [batches()[step] for step in range(5)]
    data = batches()
    for step in (4, 0, 3):
        assert_same(data[step], forwards[step])
    assert (batches(seed=6)[0]["noise"] != forwards[0]["noise"]).all()
    assert forwards[0]["id"].tolist() == [f"n{int(value)}" for value in forwards[0]["value"]]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_hold_consecutive_rows_of_the_same_global_batch(count):
    whole = batches()[3]
    parts = [batches(process_index=index, process_count=count)[3] for index in range(count)]
    assert all(len(part["value"]) == 4 // count for part in parts)
    assert_same({key: np.concatenate([part[key] for part in parts]) for key in whole}, whole)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_iterator_starts_at_any_step_and_resumes_exactly(num_threads):
    data = batches()
    iterator = pipeline.iterate(data, 2, num_threads=num_threads)
    for step in (2, 3):
        assert_same(next(iterator), data[step])
    state = iterator.get_state()
    ahead = next(iterator)
    resumed = pipeline.iterate(batches(), 0, num_threads=4 - num_threads)
    resumed.set_state(state)
    assert_same(next(resumed), ahead)
    assert_same(next(resumed), data[5])


def test_an_error_in_a_record_reaches_the_caller():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise ValueError("image n3 does not decode")

    with pytest.raises(ValueError, match="image n3 does not decode"):
        next(pipeline.iterate(batches(Broken()), 0))


def test_what_cannot_be_batched_is_an_error():
    class Empty(Numbers):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="a batch of 4 does not divide over 3 processes"):
        batches(process_index=0, process_count=3)
    with pytest.raises(ValueError, match="no record to train on"):
        batches(Empty())


def test_examples_are_prepared_ahead_and_not_whole_batches():
    drawn = []

    class Counted(Numbers):
        def __getitem__(self, index):
            drawn.append(index)
            return super().__getitem__(index)

    next(pipeline.iterate(batches(Counted(), batch_size=50), 0, num_threads=2))
    time.sleep(0.3)
    assert 50 <= len(drawn) <= 50 + 50 + 2 * 2 + 1


@pytest.mark.parametrize("state", [{}, {"next_index": "4"}, {"next_index": -1}, {"next_index": None}, [], None])
def test_a_place_that_is_none_is_refused(state):
    with pytest.raises((KeyError, TypeError, ValueError)):
        pipeline.iterate(batches(), 0, num_threads=1).set_state(state)


def test_processes_prepare_the_same_batches_and_resume_where_threads_stopped():
    data, threads = batches(batch_size=3), pipeline.iterate(batches(batch_size=3), 0, num_threads=1)
    with contextlib.closing(pipeline.iterate(batches(batch_size=3), 2, workers=2)) as iterator:
        for step in (2, 3):
            assert_same(next(iterator), data[step])
        assert iterator.get_state() == {"next_index": 4}
        threads.set_state(iterator.get_state())
        assert_same(next(threads), data[4])
        iterator.set_state({"next_index": 0})
        assert_same(next(iterator), data[0])
        iterator.set_state(threads.get_state())
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            for number in SIGNALS:  # as a terminal or a scheduler sends them to all
                os.kill(worker.pid, number)
        for step in range(5, 12):
            assert_same(next(iterator), data[step])
        assert multiprocessing.active_children() == workers
    assert not multiprocessing.active_children()


class Troubled(Numbers):
    """Records of which number 3 does not decode and number 5 ends the process that reads it."""

    def __getitem__(self, index):
        if index == 3:
            raise ValueError("image n3 does not decode")
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_an_error_in_a_process_reaches_the_caller_and_its_end_is_one_line():
    data = batches(Troubled(), batch_size=1)
    order = [int(batches(batch_size=1)[step]["value"][0]) for step in range(7)]
    with contextlib.closing(pipeline.iterate(data, order.index(3), workers=1)) as iterator:
        with pytest.raises(ValueError, match="image n3 does not decode"):
            next(iterator)
        iterator.set_state({"next_index": order.index(5)})
        with pytest.raises(
            OSError, match=r"one of 1 input processes was killed.*; set --config\.data\.workers to fewer"
        ):
            next(iterator)
    assert not multiprocessing.active_children()


def test_what_cannot_be_sent_to_a_process_is_one_line():
    source = Numbers()
    source.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be sent to other processes \(cannot pickle.*data\.workers=0"):
        pipeline.iterate(batches(source), 0, workers=1)


def test_a_training_that_fails_leaves_no_process(monkeypatch, tmp_path, capsys):
    def fails(recipe, variables, ahead, *others, **settings):
        next(ahead)
        seen.extend(multiprocessing.active_children())
        raise NonFiniteLossError("the loss is nan")

    seen = []
    monkeypatch.setattr(train, "fit", fails)
    monkeypatch.setattr(train, "start_of", lambda *settings: {})
    words = [f"--workdir={tmp_path}", "--stages=train_baseline", "--config.data.workers=1"]
    assert command.main(["run", "--config=scenes:tiny", *words]) == 2
    assert capsys.readouterr().err.endswith("ssenet: the loss is nan\n")
    assert len(seen) == 1 and not multiprocessing.active_children()
