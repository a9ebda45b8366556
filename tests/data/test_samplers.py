"""Order of training and evaluation: permutations, ranks, resumes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from lightning_perturb.data.balanced import ClassAwareSampler
from lightning_perturb.data.samplers import EpochSampler, EvaluationSampler

few = settings(deadline=None, max_examples=40)
sizes = st.integers(1, 70)
batch_sizes = st.integers(1, 20)
worlds = st.integers(1, 4)


def positions_of(count):
    # neither 0..N-1 nor evenly spaced: a sampler that yields places in the split instead of positions is caught
    return torch.arange(count) ** 2 + 7


def batches(sampler):
    return [draw.positions.tolist() for draw in sampler]


def flat(lists):
    return [value for part in lists for value in part]


def ranks(count, batch_size, world, **options):
    return [
        batches(EpochSampler(positions_of(count), batch_size, rank=rank, world_size=world, **options))
        for rank in range(world)
    ]


@few
@given(sizes, batch_sizes, st.integers(0, 2**31), st.integers(0, 50))
def test_an_epoch_is_a_permutation_in_full_batches(count, batch_size, seed, epoch):
    sampler = EpochSampler(positions_of(count), batch_size, seed=seed, epoch=epoch)
    drawn = batches(sampler)
    assert sorted(flat(drawn)) == positions_of(count).tolist()
    assert [len(batch) for batch in drawn[:-1]] == [batch_size] * (len(drawn) - 1)
    assert len(drawn) == len(sampler)


def test_order_depends_on_seed_and_epoch_alone():
    def order(**options):
        return flat(batches(EpochSampler(positions_of(50), 8, **options)))

    assert order(seed=1, epoch=3) == order(seed=1, epoch=3)
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}) == 9
    torch.manual_seed(0)
    first = order()
    torch.manual_seed(1)
    assert order() == first


def test_without_shuffle_the_order_is_that_of_the_positions():
    assert flat(batches(EpochSampler(positions_of(9), 4, shuffle=False, epoch=5))) == positions_of(9).tolist()


@few
@given(sizes, batch_sizes, worlds)
def test_ranks_together_draw_the_batch_of_one_process(count, batch_size, world):
    together = ranks(count, batch_size, world, seed=3, epoch=2)
    alone = batches(EpochSampler(positions_of(count), batch_size * world, seed=3, epoch=2))
    assert {len(mine) for mine in together} == {len(alone)}
    unions = [sorted(flat(parts)) for parts in zip(*together, strict=True)]
    assert unions[:-1] == [sorted(batch) for batch in alone[:-1]]
    # only the last batch is filled up, by fewer samples than there are ranks, from the start of the order
    surplus = list(unions[-1])
    for position in alone[-1]:
        surplus.remove(position)
    order = flat(alone)
    missing = -count % world
    assert sorted(surplus) == sorted((order * world)[:missing])


@few
@given(sizes, batch_sizes, worlds)
def test_drop_last_keeps_full_batches_only(count, batch_size, world):
    full = ranks(count, batch_size, world)
    kept = ranks(count, batch_size, world, drop_last=True)
    for all_of_them, mine in zip(full, kept, strict=True):
        assert mine == [batch for batch in all_of_them if len(batch) == batch_size]
    sampler = EpochSampler(positions_of(count), batch_size, world_size=world, drop_last=True)
    assert {len(mine) for mine in kept} == {len(sampler)}


@few
@given(sizes, batch_sizes, worlds, st.data())
def test_skip_goes_on_exactly_where_the_run_stopped(count, batch_size, world, data):
    whole = ranks(count, batch_size, world, epoch=4)
    skip = data.draw(st.integers(0, len(whole[0])))
    for rank in range(world):
        sampler = EpochSampler(positions_of(count), batch_size, rank=rank, world_size=world, epoch=4, skip=skip)
        assert batches(sampler) == whole[rank][skip:]
        assert batches(sampler) == whole[rank][skip:]  # again: a loader with workers makes two iterators
        sampler.set_epoch(5)
        assert batches(sampler) == ranks(count, batch_size, world, epoch=5)[rank]


def test_the_epoch_is_fixed_when_the_iterator_is_made():
    sampler = EpochSampler(positions_of(10), 4)
    expected = batches(sampler)
    iterator = iter(sampler)
    sampler.set_epoch(1)
    drawn = list(iterator)
    assert [draw.positions.tolist() for draw in drawn] == expected
    assert {draw.epoch for draw in drawn} == {0}
    assert {draw.epoch for draw in sampler} == {1}


def test_a_trainer_that_knows_its_epoch_is_asked():
    sampler = EpochSampler(positions_of(10), 4, current_epoch=lambda: 2)
    sampler.set_epoch(7)
    assert batches(sampler) == batches(EpochSampler(positions_of(10), 4, epoch=2))


def test_an_empty_set_has_no_batches():
    assert batches(EpochSampler(positions_of(0), 4, world_size=3)) == []
    assert batches(EvaluationSampler(positions_of(0), 4, world_size=3)) == []


def test_lightning_leaves_these_samplers_in_place():
    assert isinstance(EpochSampler(positions_of(3), 2), DistributedSampler)
    assert isinstance(EvaluationSampler(positions_of(3), 2), DistributedSampler)


def served(count, batch_size, world):
    return [
        batches(EvaluationSampler(positions_of(count), batch_size, rank=rank, world_size=world))
        for rank in range(world)
    ]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_497_samples_stay_497(world):
    by_rank = served(497, 50, world)
    assert flat(flat(by_rank)) == positions_of(497).tolist()
    assert {len(mine) for mine in by_rank} == {{1: 10, 2: 5, 3: 4}[world]}


@few
@given(st.integers(0, 60), st.integers(1, 25), worlds)
def test_evaluation_serves_each_sample_once_in_equally_many_batches(count, batch_size, world):
    by_rank = served(count, batch_size, world)
    assert flat(flat(by_rank)) == positions_of(count).tolist()
    assert {len(mine) for mine in by_rank} == {
        len(EvaluationSampler(positions_of(count), batch_size, world_size=world))
    }
    assert all(len(batch) <= batch_size for batch in flat(by_rank))
    totals = [len(flat(mine)) for mine in by_rank]
    assert max(totals) - min(totals) <= 1


# classes alike often ----------------------------------------------------------------------------------------------


def tail(counts, seed=0):
    """Labels with so many samples of each class, mixed."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def aware(labels, batch_size=8, world=1, **options):
    positions = positions_of(len(labels))
    return [ClassAwareSampler(positions, labels, batch_size, rank=r, world_size=world, **options) for r in range(world)]


@few
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 2**31), st.integers(0, 9))
def test_every_class_is_drawn_alike_often(counts, seed, epoch):
    labels = tail(counts)
    (sampler,) = aware(labels, seed=seed)
    order = sampler.order(epoch)
    assert len(order) == len(labels)
    place = {int(p): i for i, p in enumerate(positions_of(len(labels)))}
    drawn = labels[[place[int(p)] for p in order]] if len(order) else labels
    classes = [c for c, n in enumerate(counts) if n]
    quotas = {c: int((drawn == c).sum()) for c in classes}
    if classes:
        assert max(quotas.values()) - min(quotas.values()) <= 1
    # in any stretch of the order, too: the classes take turns
    for start in range(0, len(drawn) - len(classes), max(len(classes), 1)):
        assert sorted(drawn[start : start + len(classes)]) == classes
    # a sample comes again when all others of its class have come
    for c in classes:
        times = np.unique(order[torch.from_numpy(drawn == c)], return_counts=True)[1]
        assert (quotas[c] < counts[c] and (times == 1).all()) or set(times) <= {
            quotas[c] // counts[c], -(-quotas[c] // counts[c])
        }  # fmt: skip


def test_balanced_epochs_begin_when_they_are_to():
    labels = tail([30, 4])
    (sampler,) = aware(labels, balanced_from=2, seed=3)
    plain = EpochSampler(positions_of(34), 8, seed=3)
    for epoch in (0, 1):
        sampler.epoch = plain.epoch = epoch
        assert [(d.positions.tolist(), d.keys) for d in sampler] == [(d.positions.tolist(), None) for d in plain]
    sampler.epoch = plain.epoch = 2
    assert batches(sampler) != batches(plain)
    assert len(sampler) == len(plain)
    (again,) = aware(labels, balanced_from=2, seed=3, epoch=2)
    assert batches(again) == batches(sampler)
    (resumed,) = aware(labels, balanced_from=2, seed=3, epoch=2, skip=3)
    assert batches(resumed) == batches(sampler)[3:]
    sampler.epoch = 3
    assert batches(again) != batches(sampler)


@pytest.mark.parametrize("world", [2, 3])
def test_the_balanced_batches_of_ranks_are_those_of_one_process(world):
    labels = tail([20, 3, 7])
    (alone,) = aware(labels, 4 * world)
    together = [list(sampler) for sampler in aware(labels, 4, world)]
    for number, whole in enumerate(alone):
        parts = [rank[number] for rank in together]
        assert sorted(torch.cat([p.positions for p in parts]).tolist())[: len(whole.positions)] <= sorted(
            torch.cat([p.positions for p in parts]).tolist()
        )
        if len(whole.positions) == 4 * world:
            assert sorted(torch.cat([p.keys for p in parts]).tolist()) == sorted(whole.keys.tolist())


def test_a_sample_that_comes_again_has_another_key():
    labels = tail([40, 2])
    (sampler,) = aware(labels)
    draws = list(sampler)
    positions, keys = torch.cat([d.positions for d in draws]), torch.cat([d.keys for d in draws])
    assert len(positions.unique()) < len(positions)
    assert len(keys.unique()) == len(keys)
    # the first time it is named as in any epoch
    for position in positions.unique():
        mine = keys[positions == position]
        assert mine[0] == position
    assert (draws[0].names == draws[0].keys).all()


def test_classes_of_multi_hot_labels_draw_among_their_positives():
    labels = np.zeros((30, 3), dtype=np.int64)
    labels[:, 0] = 1
    labels[:2, 1] = 1
    (sampler,) = aware(labels)
    order = sampler.order(0)
    rare = torch.isin(order, positions_of(30)[:2])
    # class 2 has no positive sample; class 1 draws its two half of the time
    assert 15 <= int(rare.sum()) <= 17
    assert len(order) == 30


def test_a_class_without_samples_is_passed_over():
    (sampler,) = aware(np.array([0, 0, 2, 2, 2, 2]))
    assert len(sampler.order(0)) == 6
