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


# Repeats, balance, the tail


@given(
    cut=st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(1, 4)),
    count=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_a_wrapped_epoch_has_all_samples_and_its_beginning_again(
    cut: tuple[int, int, int], count: int, seed: int, epoch: int
) -> None:
    world, batch_size, accumulate = cut
    order = TrainOrder(
        count=count,
        seed=seed,
        batch_size=batch_size,
        world_size=world,
        accumulate=accumulate,
        wrap=True,
    )
    drawn = order.epoch(epoch)
    assert len(drawn) % order.global_batch_size == 0
    assert 0 <= len(drawn) - count < order.global_batch_size
    assert sorted(drawn[:count].tolist()) == list(range(count))
    assert drawn[count:].tolist() == np.resize(drawn[:count], len(drawn))[count:].tolist()


@given(
    repeats=st.integers(2, 5),
    world=st.integers(1, 8),
    each=st.integers(1, 6),
    steps=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_repeats_come_in_one_step_on_different_ranks(
    repeats: int, world: int, each: int, steps: int, seed: int
) -> None:
    batch_size = repeats * each  # so that no image's copies are cut between two steps
    count = steps * world * batch_size
    ranks = [
        TrainOrder(
            count=count,
            seed=seed,
            batch_size=batch_size,
            world_size=world,
            rank=rank,
            repeats=repeats,
        )
        for rank in range(world)
    ]
    seen: list[int] = []
    for step in range(steps):
        batches = [rank.batch(step) for rank in ranks]
        samples, copies = np.unique(np.concatenate(batches), return_counts=True)
        assert set(copies.tolist()) == {repeats}
        seen += samples.tolist()
        if world % repeats == 0:
            assert all(len(set(batch.tolist())) == batch_size for batch in batches)
    assert len(seen) == len(set(seen)) == count // repeats
    if len(seen) > 8:  # of fewer two epochs are the same by chance
        assert ranks[0].epoch(0).tolist() != ranks[0].epoch(1).tolist()


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 4),
)
def test_a_balanced_epoch_has_all_classes_equally_often(
    sizes: list[int], seed: int, epoch: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = TrainOrder(count=len(labels), seed=seed, batch_size=1, labels=labels)
    drawn = order.epoch(epoch)
    assert len(drawn) == len(labels)
    counts = np.bincount(labels[drawn], minlength=len(sizes))
    assert counts.max() - counts.min() <= 1
    for kind, size in enumerate(sizes):
        copies = np.bincount(drawn[labels[drawn] == kind], minlength=len(labels))
        copies = copies[labels == kind]
        # none comes again before all have come
        assert copies.max() - copies.min() <= 1
        assert copies.sum() == counts[kind] and len(copies) == size


def test_balanced_classes_come_mixed_and_other_samples_in_other_epochs() -> None:
    labels = np.repeat([0, 1], [900, 100])
    order = TrainOrder(count=1000, seed=0, batch_size=10, labels=labels)
    first, second = order.epoch(0), order.epoch(1)
    for part in np.split(labels[first], 10):
        assert 0.3 < part.mean() < 0.7
    majority = [set(epoch[labels[epoch] == 0].tolist()) for epoch in (first, second)]
    assert len(majority[0]) == len(majority[1]) == 500
    assert 150 < len(majority[0] & majority[1]) < 400


@given(data=st.data())
def test_stopped_anywhere_and_resumed_on_other_ranks_nothing_is_lost_or_doubled(
    data: st.DataObject,
) -> None:
    """Any number of legs, each on ranks and batches of its own; the global batch stays."""
    unit = data.draw(st.integers(1, 24))
    cuts = [
        (world, unit // world // accumulate, accumulate)
        for world in range(1, 9)
        for accumulate in range(1, 4)
        if unit % (world * accumulate) == 0
    ]
    options = {
        "count": data.draw(st.integers(unit, 200)),
        "seed": data.draw(st.integers(0, 99)),
        "wrap": data.draw(st.booleans()),
        "repeats": data.draw(st.sampled_from([1, 1, 2, 3])),
    }
    whole = TrainOrder(batch_size=unit, **options)
    total = 2 * whole.steps
    step, seen = 0, []
    while step < total:
        world, batch_size, accumulate = data.draw(st.sampled_from(cuts))
        stop = data.draw(st.integers(step + 1, total))
        ranks = [
            TrainOrder(
                batch_size=batch_size,
                world_size=world,
                rank=rank,
                accumulate=accumulate,
                **options,
            )
            for rank in range(world)
        ]
        for position in range(step * accumulate, stop * accumulate):
            seen += [rank.batch(position) for rank in ranks]
        step = stop
    expected = np.concatenate([whole.batch(position) for position in range(total)])
    assert np.array_equal(np.concatenate(seen), expected)
