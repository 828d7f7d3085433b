"""Chunked prefill: who is in a step, and what its tokens attend to."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.serving.prompts import PromptQueues
from sim.serving.served_request import ServedRequest
from sim.step import RankPrompts


def prompt(index, tokens, cached=0, generated=0):
    return ServedRequest(index, tokens, cached, 10_000, generated)


def always(sequence, rank):
    return True


def test_short_prompts_share_a_step_and_a_long_one_takes_several():
    queues = PromptQueues(1)
    for index, tokens in enumerate([30, 50, 200]):
        queues.add(prompt(index, tokens), 0)
    assert queues.queued_tokens == [280]
    first, second, third = (queues.plan([100], always) for _ in range(3))
    assert [s.id for s in first.started] == [0, 1, 2]
    assert [s.id for s, _ in first.completed] == [0, 1]
    assert tuple(chunk.tokens for chunk in (first, second, third)) == (100, 100, 80)
    assert [s.id for s, _ in third.completed] == [2]
    # pairs of the first step: 30 x 31 / 2 + 50 x 51 / 2 + 20 x 21 / 2; second: 100 x 20 + 100 x 101 / 2
    assert first.prompts[0].context == (465 + 1275 + 210) / 100
    assert second.prompts[0].context == (2000 + 5050) / 100
    assert queues.empty
    assert queues.plan([100], always) is None


def test_a_whole_prompt_waits_for_a_step_that_it_fits_and_one_larger_than_a_step_goes_in_parts():
    """Steps of 100. 60 leave 40, too few for 50; 50 leave 50 for 30; 250 take three steps, and 40 fit the last."""
    queues = PromptQueues(1, whole=True)
    for index, tokens in enumerate([60, 50, 30, 250, 40, 90]):
        queues.add(prompt(index, tokens), 0)
    steps = []
    while (chunk := queues.plan([100], always)) is not None:
        steps.append(([s.id for s in chunk.started], chunk.tokens))
    assert steps == [([0], 60), ([1, 2], 80), ([3], 100), ([], 100), ([4], 90), ([5], 90)]


def test_a_cached_prefix_is_attended_to_but_not_computed():
    """100 tokens, 60 cached: 40 x 60 + 40 x 41 / 2 pairs, 820 of them without the prefix."""
    queues = PromptQueues(2)
    queues.add(prompt(0, 100, cached=60), 1)
    load = queues.plan([512, 512], always)
    assert load.ranks == 2
    assert load.prompts == [RankPrompts(1, 40, (2400 + 820) / 40, 100, 100)]
    assert load.alone is not None
    assert load.without_prefix().prompts == [RankPrompts(1, 40, 820 / 40, 40, 40)]


def test_a_prompt_without_a_prefix_is_the_same_without_it():
    queues = PromptQueues(1)
    queues.add(prompt(0, 100), 0)
    load = queues.plan([512], always)
    assert load.alone is None
    assert load.without_prefix() is load


def test_what_prompts_hold_is_told_where_tokens_and_context_do_not_tell():
    """100 behind 900 beside 200 behind 0: 1,000 + 200 KV tokens, 300 of them without the prefix. One of them alone, or
    prompts with nothing before, need no telling."""
    queues = PromptQueues(2)
    for rank, tokens, cached in ((0, 1000, 900), (0, 200, 0), (1, 50, 0)):
        queues.add(prompt(0, tokens, cached), rank)
    load = queues.plan([512, 512], always)
    for prompts, told in (
        (load.prompts, [(1200, 1000, True), (50, 50, False)]),
        (load.without_prefix().prompts, [(300, 200, True), (50, 50, False)]),
    ):
        assert [(p.held, p.longest, p.differ) for p in prompts] == told
    for prompts in ([(1000, 900)], [(30, 0), (50, 0)]):
        for tokens, cached in prompts:
            queues.add(prompt(0, tokens, cached), 0)
        load = queues.plan([512, 512], always)
        assert not load.prompts[0].differ and not load.without_prefix().prompts[0].differ


def test_a_preempted_prompt_includes_what_it_had_generated():
    queues = PromptQueues(1)
    queues.add(prompt(0, 100, cached=60, generated=7), 0)
    assert queues.plan([512], always).tokens == 47


def test_a_prompt_that_does_not_fit_blocks_those_behind_it():
    queues = PromptQueues(1)
    for index in range(3):
        queues.add(prompt(index, 10), 0)
    chunk = queues.plan([100], lambda s, rank: s.id != 1)
    assert [s.id for s in chunk.started] == [0]
    assert queues.head(0).id == 1


def test_a_preempted_prompt_goes_first_but_not_before_the_one_under_way():
    queues = PromptQueues(1)
    queues.add(prompt(0, 150), 0)
    queues.add(prompt(1, 10), 0)
    queues.plan([100], always)
    queues.add(prompt(2, 10), 0, front=True)
    assert queues.tokens(0, waiting=0) == 50, "the one under way"
    assert [s.id for s, _ in queues.plan([100], always).completed] == [0, 2, 1]


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 299), st.integers(0, 2)), min_size=1, max_size=20),
    st.integers(1, 200),
)
def test_every_new_token_is_computed_once_and_attends_to_all_before_it(prompts, budget):
    queues, pairs, tokens, completed = PromptQueues(3), 0.0, 0.0, []
    for index, (length, cached, rank) in enumerate(prompts):
        queues.add(prompt(index, length, min(cached, length - 1)), rank)
    while (chunk := queues.plan([budget] * 3, always)) is not None:
        assert chunk.fullest <= budget
        pairs += sum(p.tokens * p.context for p in chunk.prompts)
        tokens += chunk.tokens
        completed += [s.id for s, _ in chunk.completed]
    computed = [(min(c, n - 1), n) for n, c, _ in prompts]
    assert tokens == sum(n - c for c, n in computed)
    np.testing.assert_allclose(pairs, sum(sum(range(c + 1, n + 1)) for c, n in computed))
    assert sorted(completed) == list(range(len(prompts)))
