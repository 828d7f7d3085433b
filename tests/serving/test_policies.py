"""Routing and admission, step by step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.serving.admission import AdmissionGate
from sim.serving.decode_batch import DecodeBatch
from sim.serving.ranks import RankAddress, pool_ranks
from sim.serving.routing import LeastLoaded, PoolLoads, RoundRobin, make_router
from sim.serving.served_request import ServedRequest

REQUEST = ServedRequest(0, 10, 0, 10)


def alone(*loads):
    """Workers of one rank each."""
    pool = PoolLoads(len(loads), 1)
    for worker, load in enumerate(loads):
        pool.add(worker, 0, load)
    return pool


def picked(router, loads, fits=lambda worker: True, among=None):
    """The worker that is picked, of workers of one rank each; the same is picked `among` all of them by name."""
    ranks = None if among is None else [at for at in loads.addresses if at.worker in among]
    place = router.pick(REQUEST, loads, ranks, lambda at: fits(at.worker))
    return None if place is None else place.worker


def test_neighbours_in_the_order_of_ranks_sit_on_different_workers():
    assert pool_ranks(2, 2) == ((0, 0), (1, 0), (0, 1), (1, 1))
    loads = PoolLoads(3, 4)
    assert [loads.number(*at) for at in loads.addresses] == list(range(12))


def test_at_random_every_worker_has_its_share_and_there_the_least_loaded_rank_is_taken():
    """40,000 requests to 4 workers: 10,000 each, within 5 standard deviations of 87."""
    router, loads = make_router("random"), PoolLoads(4, 2)
    loads.add(1, 0, 1)
    asked = [ServedRequest(number, 10, 0, 10) for number in range(40_000)]
    places = [router.pick(request, loads) for request in asked]
    counts = [sum(at.worker == worker for at in places) for worker in range(4)]
    assert all(abs(count - 10_000) < 5 * 87 for count in counts)
    assert {at.rank for at in places if at.worker == 1} == {1}
    assert places == [router.pick(request, loads) for request in asked], "the same request, the same worker"
    fitting = {router.pick(request, loads, None, lambda at: at.worker == 2).worker for request in asked[:9]}
    assert fitting == {2}
    assert router.pick(asked[0], loads, None, lambda at: False) is None


def test_round_robin_goes_on_after_the_last_pick_and_skips_what_does_not_fit():
    router, loads = RoundRobin(), alone(0, 0, 0)
    assert [picked(router, loads, lambda worker: worker != 1) for _ in range(4)] == [0, 2, 0, 2]


def test_least_loaded_takes_the_first_among_equals_and_the_next_where_full():
    router = LeastLoaded()
    assert picked(router, alone(3, 1, 1)) == 1
    assert picked(router, alone(3, 1, 1), lambda worker: worker != 1) == 2
    assert picked(router, alone(3, 1, 1), lambda worker: worker == 0) == 0
    assert picked(router, alone(3, 1, 1), lambda worker: False) is None
    assert picked(router, alone(3, 1, 9), among=[0, 2]) == 0


def test_among_equal_ranks_the_one_on_the_least_loaded_worker():
    """Worker 0 serves on its second rank, worker 1 rests."""
    loads = PoolLoads(2, 2)
    loads.follow(0, [0, 5])
    assert (loads.ranks, loads.of(0), loads.of(1)) == ([0, 0, 5, 0], 5, 0)
    router, every = LeastLoaded(), loads.addresses
    first, second = RankAddress(1, 0), RankAddress(1, 1)
    assert router.pick(REQUEST, loads, every, lambda at: True) == first
    assert router.pick(REQUEST, loads, every, lambda at: at != first) == second
    assert router.pick(REQUEST, loads, [at for at in every if at.worker == 0], lambda at: True) == (0, 0)
    loads.add(1, 0, 6)
    assert router.pick(REQUEST, loads, every, lambda at: True) == (0, 0), "5 on worker 0, 6 on worker 1"


@given(
    st.integers(1, 12),
    st.integers(1, 33),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 32), st.integers(-3, 5)), max_size=300),
)
def test_a_large_pool_chooses_as_a_small_one_does(workers, dp, changes):
    """Of many workers the best ranks are on a heap: against a look at all of them."""
    pool, own = PoolLoads(workers, dp), [[0] * dp for _ in range(workers)]
    for worker, loads in enumerate(own):
        pool.follow(worker, loads)
    for worker, rank, load in ((worker % workers, rank % dp, load) for worker, rank, load in changes):
        pool.add(worker, rank, max(load, -own[worker][rank]))
        if load == 5:
            own[worker] = [rank % 4 + r % 3 for r in range(dp)]
            pool.follow(worker, own[worker])
        if load < 0:
            pool.changed(worker, sum(own[worker]), each=rank % 2)
        assert pool.least() == min(pool.addresses, key=pool.order)


def test_a_prefix_makes_up_for_load():
    loads = alone(40, 30, 20)
    assert loads.without([50, 0, 0]).ranks == [-10, 30, 20]
    assert loads.ranks == [40, 30, 20]


@given(
    st.integers(1, 10),
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=40),
    st.data(),
)
def test_ranks_that_share_what_they_found_are_weighed_as_their_worker(workers, dp, changes, data):
    """Against the same number for each rank, and against looking at all ranks."""
    pool = PoolLoads(workers, dp)
    for load, (worker, rank) in enumerate(changes):
        pool.add(worker % workers, rank % dp, load * 7 % 11)
    found = data.draw(st.lists(st.integers(0, 12), min_size=workers, max_size=workers))
    shared, each = pool.without(found), pool.without(found * dp)
    assert shared.ranks == each.ranks
    assert shared.least() == each.least() == min(pool.addresses, key=each.order)
    assert (
        [*map(each.of, range(workers))]
        == [*map(shared.of, range(workers))]
        == [*map(pool.of, range(workers))]
    )
    for ranks in pool.of_worker:
        assert shared.least_of(ranks) == each.least_of([*ranks]) == min(ranks, key=each.order)


def test_what_a_rank_finds_makes_its_worker_no_less_busy():
    """Both first ranks have 4 left to compute, and worker 1 has more to do: that its second rank knows the prompt, too,
    does not help. Whether ranks are chosen among all or by name."""
    pool = PoolLoads(2, 2)
    pool.follow(0, [4, 6])
    pool.follow(1, [4, 10])
    less = pool.without([0, 0, 0, 5])
    assert less.ranks == [4, 4, 6, 5]
    assert less.least() == less.least_of(pool.addresses) == (0, 0)


def test_a_heap_that_is_only_asked_for_what_is_left_to_compute_stays_small():
    pool = PoolLoads(20, 1)
    for turn in range(500):
        pool.add(turn % 20, 0, -1)
        pool.without([0] * 20).least()
    assert len(pool._heap) <= 2 * 20


def test_prefix_aware_is_least_loaded_by_what_is_left_to_compute():
    router = make_router("prefix_aware")
    assert router.by_prefix and not make_router("least_loaded").by_prefix
    assert picked(router, alone(40, -10, 20)) == 1


def test_a_router_that_does_not_exist_is_an_error_with_the_choices():
    with pytest.raises(LookupError, match=r"'fastest'.*round_robin, least_loaded"):
        make_router("fastest")


def test_a_gate_that_looks_every_three_steps():
    gate = AdmissionGate(3)
    gate.restart(4)
    assert [step for step in range(4, 14) if gate.looks(step)] == [4, 7, 10, 13]
    assert [gate.steps_to_look(step) for step in (4, 5, 6, 7)] == [3, 2, 1, 3]


def decoding(index, prompt, output):
    return ServedRequest(index, prompt, 0, output, generated_tokens=1)


def test_a_batch_knows_load_finishes_and_the_context_of_every_step():
    """Rank 0: contexts 11 and 21 (prompt + the token from prefill); rank 1: 31. All grow by one per step."""
    batch = DecodeBatch(2, 8, 100)
    for index, (prompt, output, rank) in enumerate([(10, 6, 0), (20, 3, 0), (30, 9, 1)]):
        sequence = decoding(index, prompt, output)
        batch.reserve(rank, sequence.context_tokens)
        batch.join(sequence, rank, sequence.remaining_tokens)
    assert [rank.load(batch.step) for rank in batch.ranks] == [(2, 16, 1), (1, 31, 1)]
    assert batch.next_change() == 2
    assert [(s.id, rank) for s, rank in batch.advance(2)] == [(1, 0)]
    assert [rank.load(batch.step)[1] for rank in batch.ranks] == [13, 33]
    assert [rank.seats for rank in batch.ranks] == [1, 1]
    assert batch.next_change() == 5
    assert [s.id for s, _ in batch.advance(3)] == [0]
    assert [s.id for s, _ in batch.advance(3)] == [2]
    assert (batch.running, batch.fullest) == (0, 0)
    assert [(rank.seats, rank.demand, rank.load(batch.step)) for rank in batch.ranks] == [
        (0, 0, (0, 0, 0))
    ] * 2


def test_a_batch_evicts_the_last_arrived_even_if_it_joined_first():
    """Blocks of 4 tokens, 4 of them: contexts 8 and 7 hold 2 each; one step later the older one needs a third."""
    batch = DecodeBatch(1, 8, kv_blocks=4, block_tokens=4)
    for sequence in (decoding(9, 6, 20), decoding(5, 7, 20)):
        batch.reserve(0, sequence.context_tokens)
        batch.join(sequence, 0, sequence.remaining_tokens)
    assert batch.next_change() == 1
    assert batch.advance(1) == []
    ((evicted, rank),) = batch.preempt()
    assert (evicted.id, evicted.generated_tokens, rank) == (9, 2, 0)
    assert batch.running == 1
    assert batch.preempt() == []
    # alone, the other one may grow to 16 tokens, and is short with its 17th, after step 9
    assert batch.next_change() == 9


def test_a_sequence_that_makes_several_tokens_per_step_grows_its_context_as_fast():
    batch = DecodeBatch(1, 8, 100)
    sequence = decoding(0, 99, 41)
    batch.reserve(0, sequence.context_tokens)
    batch.join(sequence, 0, steps=16)
    assert batch.ranks[0].load(0)[2] == 2.5
    batch.advance(4)
    assert batch.ranks[0].load(4)[1] == 100 + 4 * 2.5
    assert batch.next_change() == 16
