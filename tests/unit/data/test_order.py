"""Every sample once an epoch, however the batches are cut; and the same order for ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from res2net.data.order import PADDING, EvalOrder, TrainOrder, permutation


def epoch_steps(
    count: int, seed: int, cut: tuple[int, int, int], epoch: int
) -> list[list[np.ndarray]]:
    """Per optimizer step of the epoch, the batches that all ranks take for it."""
    world, batch_size, accumulate = cut
    ranks = [
        TrainOrder(
            count=count,
            seed=seed,
            batch_size=batch_size,
            world_size=world,
            rank=rank,
            accumulate=accumulate,
        )
        for rank in range(world)
    ]
    batches = ranks[0].batches
    assert {rank.batches for rank in ranks} == {batches}
    return [
        [
            rank.batch(epoch * batches + step + number)
            for rank in ranks
            for number in range(accumulate)
        ]
        for step in range(0, batches, accumulate)
    ]


# Training


@given(
    cut=st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(1, 4)),
    steps=st.integers(1, 4),
    tail=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_an_epoch_takes_each_sample_at_most_once_and_drops_only_the_tail(
    cut: tuple[int, int, int], steps: int, tail: float, seed: int, epoch: int
) -> None:
    world, batch_size, accumulate = cut
    global_batch = world * batch_size * accumulate
    count = steps * global_batch + int(tail * global_batch)
    batches = [batch for step in epoch_steps(count, seed, cut, epoch) for batch in step]
    assert all(batch.shape == (batch_size,) and batch.dtype == np.int64 for batch in batches)
    samples = np.concatenate(batches)
    assert len(samples) == len(set(samples.tolist())) == steps * global_batch
    assert samples.min() >= 0 and samples.max() < count


@given(
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 3),
    tail=st.integers(0, 23),
    cuts=st.lists(
        st.sampled_from(
            [(w, b, 24 // w // b) for w in range(1, 9) for b in range(1, 25) if 24 % (w * b) == 0]
        ),
        min_size=2,
        max_size=4,
        unique=True,
    ),
)
def test_a_step_takes_the_same_samples_however_its_batch_is_cut(
    seed: int, epoch: int, tail: int, cuts: list[tuple[int, int, int]]
) -> None:
    first, *others = (
        [set(np.concatenate(step).tolist()) for step in epoch_steps(72 + tail, seed, cut, epoch)]
        for cut in cuts
    )
    assert len(first) == 3 and all(len(step) == 24 for step in first)
    assert all(other == first for other in others)


def test_a_step_takes_the_next_samples_of_the_permutation() -> None:
    steps = epoch_steps(50, 7, (2, 3, 2), epoch=1)
    order = permutation(50, seed=7, epoch=1)
    for number, step in enumerate(steps):
        assert set(np.concatenate(step)) == set(order[12 * number : 12 * number + 12])
    # the two ranks' first batches come before their second ones, as one process would take them
    rank_0, rank_1 = (
        TrainOrder(count=50, seed=7, batch_size=3, world_size=2, rank=rank, accumulate=2)
        for rank in (0, 1)
    )
    taken = [rank_0.batch(8), rank_1.batch(8), rank_0.batch(9), rank_1.batch(9)]
    assert np.concatenate(taken).tolist() == order[:12].tolist()


def test_the_permutation_is_the_same_for_ever() -> None:
    assert permutation(12, seed=0, epoch=0).tolist() == [11, 3, 2, 1, 8, 6, 0, 7, 4, 10, 5, 9]
    assert permutation(12, seed=0, epoch=1).tolist() == [7, 10, 4, 11, 5, 1, 9, 8, 6, 2, 0, 3]
    assert permutation(12, seed=1, epoch=0).tolist() == [9, 2, 4, 7, 5, 0, 11, 8, 10, 6, 3, 1]


@given(count=st.integers(0, 300), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 1000))
def test_the_permutation_holds_each_index_once(count: int, seed: int, epoch: int) -> None:
    order = permutation(count, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


def test_the_permutation_differs_by_seed_and_epoch_and_cannot_be_written_to() -> None:
    orders = {(s, e): permutation(100, seed=s, epoch=e) for s in range(4) for e in range(4)}
    assert len({order.tobytes() for order in orders.values()}) == 16
    with pytest.raises(ValueError, match="read-only"):
        orders[0, 0][0] = 1


# Evaluation


@given(count=st.integers(1, 300), batch_size=st.integers(1, 40), world=st.integers(1, 8))
def test_evaluation_takes_each_sample_once_and_pads_at_the_end(
    count: int, batch_size: int, world: int
) -> None:
    ranks = [EvalOrder(count, batch_size, world, rank) for rank in range(world)]
    batches = ranks[0].batches
    assert {rank.batches for rank in ranks} == {batches}
    # as they come: batch by batch, in each the ranks in order
    rows = [rank.batch(position) for position in range(batches) for rank in ranks]
    assert all(row.shape == (batch_size,) and row.dtype == np.int64 for row in rows)
    indices = np.concatenate(rows)
    assert np.array_equal(indices[:count], np.arange(count))
    assert (indices[count:] == PADDING).all()
    assert len(indices) - count < batch_size * world
    # an endless row: the next pass is the same
    for rank in ranks:
        assert np.array_equal(rank.batch(batches), rank.batch(0))
