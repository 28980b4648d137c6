"""Order of examples: every one once per epoch, the same from any starting step, on both paths."""

import threading
import time

import numpy as np
import pytest

from fer_jax.data.sources.pipeline import Stream, eval_batches, index_batches
from fer_jax.errors import UserError


def test_each_epoch_is_a_permutation_and_epochs_differ():
    order = index_batches(30, 10, seed=1)
    epochs = [np.concatenate([order[3 * e + i] for i in range(3)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(30))
    assert not np.array_equal(*epochs)


def test_batches_reach_over_the_end_of_an_epoch():
    order = index_batches(7, 4, seed=0)
    drawn = np.concatenate([order[s] for s in range(7)])  # 28 = 4 epochs
    assert np.bincount(drawn).tolist() == [4] * 7


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_stream_starts_at_any_step(batch_size):
    order = index_batches(100, batch_size, seed=3)
    taken = Stream(order, 17, lambda rows: rows)
    for step in range(17, 40):
        np.testing.assert_array_equal(next(taken), order[step])


def test_a_stream_is_made_ahead_but_not_far():
    made, taken = [], threading.Semaphore(0)

    def gather(rows):
        made.append(int(rows[0]))
        taken.release()
        return rows

    elements = Stream(np.arange(50).reshape(50, 1), 10, gather, ahead=3)
    assert made == []  # nothing before the first is asked for
    next(elements)
    for _ in range(4):
        assert taken.acquire(timeout=30)
    time.sleep(0.05)
    assert sorted(made) == [10, 11, 12, 13]
    assert [int(rows[0]) for rows in elements] == list(range(11, 50))
    assert sorted(made) == list(range(10, 50))


def test_what_breaks_in_a_stream_is_raised_in_its_turn_and_ends_the_threads():
    def gather(rows):
        if rows[0] == 12:
            raise UserError("a broken picture")
        return rows

    elements = Stream(np.arange(50).reshape(50, 1), 10, gather)
    assert [int(next(elements)[0]) for _ in range(2)] == [10, 11]
    with pytest.raises(UserError, match="^a broken picture$"):
        next(elements)
    threads = [t for t in threading.enumerate() if t in elements._pool._threads]
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    with pytest.raises(StopIteration):
        next(elements)


def test_seeds_differ():
    assert not np.array_equal(index_batches(50, 50, seed=0)[0], index_batches(50, 50, seed=1)[0])


def test_balanced_sampling_draws_every_class_equally_often():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    order = index_batches(1000, 100, seed=0, labels=labels)
    drawn = labels[np.concatenate([order[s] for s in range(60)])]
    share = np.bincount(drawn) / len(drawn)
    np.testing.assert_allclose(share, 1 / 3, atol=4 * np.sqrt(2 / 9 / 6000))
    np.testing.assert_array_equal(order[5], index_batches(1000, 100, seed=0, labels=labels)[5])


@pytest.mark.parametrize(("examples", "batch"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_evaluation_covers_every_example_once(examples, batch):
    rows = np.concatenate([rows[mask] for rows, mask in eval_batches(examples, batch)])
    assert rows.tolist() == list(range(examples))
    assert all(len(rows) == batch for rows, _ in eval_batches(examples, batch))
