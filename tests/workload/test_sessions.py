"""Sessions: turns that follow from one another, by hand and for random trees."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import Request, RequestStream, requests, trace
from sim.workload.sessions import HASH_BITS, Conversation, Sessions, Turn, Underway
from tests.workload.test_requests import scenario

# A main conversation of three turns, and a sub-agent of two that sets out 2 s after the first answer.
TALK = [
    [-1, 0, 128, 70, [[1, 2]]],
    [0, 5, 260, 30, [[1, 4]]],
    [0, 2, 64, 10, [[900, 1]]],
    [2, 1, 128, 10, [[900, 2]]],
    [1, 30, 400, 20, [[1, 3], [50, 3]]],
]
CACHE = {"enabled": True, "scope": "cluster", "block_tokens": 64}
CLOSED = {"closed_loop": {"concurrency": 1}}


def write(folder: Path, *talks: list[list[object]], **more: object) -> None:
    rows = [{"session": i, "block_tokens": 64, "turns": turns, **more} for i, turns in enumerate(talks)]
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def stream(folder: Path, arrivals: dict[str, object] | None, cache: dict[str, object] | None = None,
           duration_s: float | None = None, **workload: object) -> RequestStream:  # fmt: skip
    given_arrivals = {} if arrivals is None else {"arrivals": arrivals}
    asked = {"trace": "s.jsonl", **given_arrivals, **workload}
    return requests(scenario(asked, prefix_cache=cache or CACHE, duration_s=duration_s), 0, folder)


def test_turns_follow_by_hand(tmp_path: Path) -> None:
    write(tmp_path, TALK)
    s = stream(tmp_path, CLOSED)
    (first,) = s
    # 128 + 70 tokens fill 3 blocks of 64: the answer goes on with hash 3, as the second turn's prompt tells.
    assert first == Request(0, 0.0, 128, 70, 0, (1, 2), (3,))
    main, agent = s.following(0, now_s=10.0)
    # 260 + 30 tokens fill 4 blocks, which the prompt has already; the last turn leaves off after hash 3.
    assert main == Request(1, 15.0, 260, 30, 0, (1, 2, 3, 4), ())
    assert agent == Request(2, 12.0, 64, 10, 0, (900,), ())
    assert s.following(2, now_s=13.0) == (Request(3, 14.0, 128, 10, 0, (900, 901), ()),)
    assert s.following(1, now_s=16.0) == (Request(4, 46.0, 400, 20, 0, (1, 2, 3, 50, 51, 52), ()),)
    assert s.following(4, now_s=50.0) == ()
    assert s.full, "the sub-agent still has the place"
    assert s.following(3, now_s=60.0) == ()
    assert not s.full


def test_an_answer_goes_on_in_the_turn_that_repeats_the_prompt(tmp_path: Path) -> None:
    """Not in the sub-agent's, which stands before it in the file and begins with a prompt of its own."""
    agent, main = [0, 2, 320, 10, [[900, 5]]], [0, 5, 260, 30, [[1, 4]]]
    write(tmp_path, [TALK[0], agent, main])
    (first,) = stream(tmp_path, CLOSED)
    assert first.answer_blocks == (3,)


def test_the_next_session_takes_the_place_of_one_that_ended_and_shares_nothing_with_it(
    tmp_path: Path,
) -> None:
    write(tmp_path, TALK[:1], TALK[:2])
    s = stream(tmp_path, CLOSED)
    assert s.concurrency == 1
    (following,) = s.following(0, now_s=3.0)
    assert (following.id, following.arrival_s, following.input_tokens) == (1, 3.0, 128)
    assert following.blocks == ((1 << HASH_BITS) + 1, (1 << HASH_BITS) + 2)


def test_larger_blocks_take_the_hash_of_their_last_part(tmp_path: Path) -> None:
    """Blocks of 128: two recorded ones each; the fifth hash of the last turn begins one that is not full."""
    write(tmp_path, [[-1, 0, 128, 140, [[1, 2]]], [0, 5, 330, 30, [[1, 5]]]])
    s = stream(tmp_path, CLOSED, {**CACHE, "block_tokens": 128})
    (first,) = s
    assert s.block_tokens == 128
    assert (first.blocks, first.answer_blocks) == ((2,), (4,))
    assert s.following(0, 1.0)[0].blocks == (2, 4)


def test_finer_blocks_than_recorded_are_noted_and_others_refused(tmp_path: Path) -> None:
    write(tmp_path, TALK)
    finer = stream(tmp_path, CLOSED, {**CACHE, "block_tokens": 16})
    assert finer.block_tokens == 64
    assert finer.notes == ("s.jsonl: hashes blocks of 64 tokens, so prefixes are found in those, not in 16",)
    with pytest.raises(DeploymentError, match="96 neither divides nor is a multiple of the 64"):
        stream(tmp_path, CLOSED, {**CACHE, "block_tokens": 96})


def test_without_a_cache_there_are_no_hashes_and_a_given_fraction_goes_before_them(tmp_path: Path) -> None:
    write(tmp_path, TALK)
    off = stream(tmp_path, CLOSED, {"enabled": False})
    assert (off.block_tokens, next(iter(off)).blocks, off.following(0, 1.0)[0].blocks) == (None, (), ())
    half = stream(tmp_path, CLOSED, cached_fraction=0.5)
    assert [half.following(0, 1.0)[0].cached_tokens, *half.cached_tokens] == [130, 64]
    assert half.block_tokens is None


def test_nothing_arrives_from_the_end_on_and_whoever_waits_past_it_keeps_the_place(tmp_path: Path) -> None:
    write(tmp_path, TALK, TALK)
    s = stream(tmp_path, CLOSED, duration_s=40.0)
    s.following(0, 10.0)
    assert s.following(1, 16.0) == (), "the third turn would come at 46 s"
    (last,) = s.following(2, 13.0)
    assert s.following(last.id, 20.0) == () and s.full
    late = stream(tmp_path, {"all_at_once": {}}, duration_s=40.0)
    assert len(late) == 2 and late.concurrency is None
    assert late.following(1, 41.0) == () and late.full


def test_a_number_of_requests_begins_no_more_sessions_than_that(tmp_path: Path) -> None:
    """Which requests are the first ones, only the run can tell: tests/cluster/test_first_requests.py."""
    write(tmp_path, TALK, TALK)
    for arrivals in ({"closed_loop": {"concurrency": 9}}, {"all_at_once": {}}):
        s = stream(tmp_path, arrivals, requests=1)
        assert (len(s), s.most) == (1, 1)
        assert len(s.following(0, 1.0)) == 2, "turns that follow do not count before they arrive"
    assert stream(tmp_path, CLOSED, requests=11).notes == ("s.jsonl: holds 10 of the 11 requests asked for",)
    assert stream(tmp_path, CLOSED).most is None


def test_turns_beyond_the_models_context_are_left_out_with_what_follows(tmp_path: Path) -> None:
    """deepseek-v3.2 has 163,840 positions."""
    write(
        tmp_path,
        [[-1, 0, 163_830, 10, []], [0, 1, 163_831, 10, []], [1, 1, 5, 5, []]],
        [[-1, 0, 200_000, 1, []]],
    )
    s = stream(tmp_path, {"all_at_once": {}})
    assert len(s) == 1
    assert s.following(0, 1.0) == ()
    assert s.notes == ("s.jsonl: 3 of 4 turns exceed 163840 tokens, or follow one that does; left out",)


def test_sessions_need_arrivals_unless_the_trace_ships_with_a_rate(tmp_path: Path) -> None:
    write(tmp_path, TALK)
    with pytest.raises(DeploymentError, match=r"no times; give `workload\.arrivals`"):
        stream(tmp_path, None)
    shipped = requests(scenario({"trace": "agentic-coding"}, duration_s=10_000.0), 1)
    assert len(shipped) == pytest.approx(100, abs=40)  # 0.01 sessions per second
    assert "0.01 sessions start per second" in shipped.notes[-1]


def test_the_shipped_agentic_sessions() -> None:
    """Counted in the source: 710 conversations, 49,307 answered requests, 6,031,078,550 and 21,709,920 tokens."""
    recorded = trace.load("agentic-coding", seed=0)
    assert isinstance(recorded, Sessions)
    turns = [turn for session in recorded.sessions for turn in session]
    assert (len(recorded.sessions), len(turns), recorded.block_tokens) == (710, 49_307, 64)
    assert sum(turn.input_tokens for turn in turns) == 6_031_078_550
    assert sum(turn.output_tokens for turn in turns) == 21_709_920
    assert all(sum(n for _, n in turn.runs) == turn.input_tokens // 64 for turn in turns)
    branches = [np.bincount([t.after for t in session[1:]], minlength=1) for session in recorded.sessions]
    assert sum(int((b == 2).sum()) for b in branches) == 37, "sub-agents beside the main conversation"
    assert max(int(b.max()) for b in branches) == 2
    following = [(session[t.after], t) for session in recorded.sessions for t in session[1:]]
    grown = np.mean([later.input_tokens > before.input_tokens for before, later in following])
    assert grown > 0.9, "contexts grow from turn to turn"
    waits = np.array([turn.wait_s for _, turn in following])
    assert np.median(waits) == pytest.approx(10.0, abs=1.0) and waits.min() >= 0


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([[0, 0, 1, 1, []]], "turn 0 follows 0: expected -1 for the first"),
        ([[-1, 0, 1, 1, []], [-1, 0, 1, 1, []]], "turn 1 follows -1"),
        ([[-1, 0, 1, 1, []], [1, 0, 1, 1, []]], "turn 1 follows 1"),
        ([[-1, -2, 1, 1, []]], "turn 0 waits -2 s"),
        ([[-1, 0, 1, 0, []]], "expected at least 1, got 0"),
        ([[-1, 0, 1, 1]], "expected a list of 5"),
        ([[-1, 0, 1, 1, [[1]]]], "expected a list of 2"),
        ([[-1, 0, 64, 1, [[1, 2]]]], "turn 0: more than 64 tokens in blocks of 64"),
        ([[-1, 0, 640, 1, [[1, 2], [1, 2]]]], "expected chained hashes; 1 follows 2 and nothing"),
        (
            [[-1, 0, 640, 1, [[1, 5], [9, 2]]], [0, 0, 640, 1, [[1, 4], [9, 2]]]],
            "expected chained hashes; 9 follows 5 and 4",
        ),
        ([[-1, 0, 640, 1, [[1, 5]]], [0, 0, 640, 1, [[1, 1], [4, 2]]]], "chained hashes; 4 follows 1 and 3"),
        ([], "expected at least one turn"),
        ("none", "expected a list, got 'none'"),
    ],
)
def test_a_broken_file_of_sessions_is_one_error(tmp_path: Path, turns: object, says: str) -> None:
    write(tmp_path, turns)  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match=r"s\.jsonl:1") as raised:
        trace.load("s.jsonl", 0, tmp_path)
    assert says in raised.value.problems[0].message


def test_every_broken_session_is_told(tmp_path: Path) -> None:
    write(tmp_path, TALK, [], [[0, 0, 1, 1, []]])
    with pytest.raises(ScenarioError) as raised:
        trace.load("s.jsonl", 0, tmp_path)
    assert [problem.line for problem in raised.value.problems] == [2, 3]
    write(tmp_path, TALK, [[-1, 0, 64, 1, [[1, 2]]]], [[-1, 0, 64, 1, [[1, 3]]]])
    with pytest.raises(ScenarioError) as raised:
        trace.load("s.jsonl", 0, tmp_path)
    assert [problem.line for problem in raised.value.problems] == [2, 3]


def test_sessions_of_one_file_have_blocks_of_one_size(tmp_path: Path) -> None:
    rows = [{"session": n, "block_tokens": n, "turns": TALK} for n in (32, 64)]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ScenarioError, match="block_tokens differ"):
        trace.load("s.jsonl", 0, tmp_path)


@st.composite
def trees(draw: st.DrawFn) -> tuple[Turn, ...]:
    later = (
        Turn(draw(st.integers(0, index - 1)), draw(st.floats(0, 50)), 10 + index, 1, ())
        for index in range(1, draw(st.integers(1, 12)))
    )
    return (Turn(-1, 0.0, 10, 1, ()), *later)


@given(st.lists(trees(), min_size=1, max_size=6), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_every_turn_is_sent_once_after_its_own_wait(sessions, concurrency, luck) -> None:
    """Requests are answered in a random order, each at some time after it arrived."""
    begun = [Underway(n, session, 0, 1) for n, session in enumerate(sessions)]
    start, waiting = begun[:concurrency], iter(begun[concurrency:])
    follow = Conversation(start, waiting, math.inf, None)
    live = {n: (n, 0, 0.0) for n in range(len(start))}  # request -> session, turn, arrival
    sent, now = [(n, 0) for n in live], 0.0
    while live:
        left = luck.choice(sorted(live))
        number, turn, arrival_s = live.pop(left)
        now = max(now, arrival_s) + luck.random()
        expected = [
            (later.input_tokens, now + later.wait_s) for later in sessions[number] if later.after == turn
        ]
        got = follow.after(left, now)
        assert [(r.input_tokens, r.arrival_s) for r in got[: len(expected)]] == expected
        for place, request in enumerate(got):
            if place < len(expected):
                at = number, request.input_tokens - 10
            else:
                at = max(n for n, _ in sent) + 1, 0
                assert not any(n == number for n, _, _ in live.values()), (
                    "a place is free when its session ended"
                )
            live[request.id] = (*at, request.arrival_s)
            sent.append(at)
        assert len({n for n, _, _ in live.values()}) <= concurrency
    assert sorted(sent) == sorted((n, t) for n, session in enumerate(sessions) for t in range(len(session)))
    assert not follow.full


def test_those_who_only_count_are_told_every_turn(tmp_path: Path) -> None:
    write(tmp_path, TALK, TALK[:2])
    s = stream(tmp_path, CLOSED, cached_fraction=0.5)
    assert s.turns is not None and s.turns.sessions == 2
    assert s.turns.prompts.input_tokens.tolist() == [128, 260, 64, 128, 400, 128, 260]
    assert s.turns.prompts.cached_tokens.tolist() == [64, 130, 32, 64, 200, 64, 130]
    assert s.least_tokens == 64 + 10, "of the sub-agent, not of a first turn"
