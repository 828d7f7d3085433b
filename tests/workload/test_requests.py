"""From a scenario to its stream of requests."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario
from sim.workload import Request, RequestStream, requests
from sim.workload.randomness import generator

LENGTHS = {"input": {"lognormal": {"mean": 1000.0, "cv": 1.0}}, "output": {"uniform": (1, 500)}}
POISSON = {"poisson": {"rate_per_s": 20.0}}


def scenario(workload: dict[str, object], **more: object) -> Scenario:
    pools = {"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16}}
    return Scenario(model="deepseek-v3.2", gpu="h200_sxm", deployment=pools, workload=workload, **more)


def synthetic(arrivals: dict[str, object], seed: int = 1, **more: object) -> RequestStream:
    duration_s = more.pop("duration_s", None)
    lengths = more.pop("lengths", LENGTHS)
    return requests(scenario({"arrivals": arrivals, "lengths": lengths, **more}, duration_s=duration_s), seed)


def test_objects_are_the_columns() -> None:
    stream = synthetic(POISSON, requests=50, cached_fraction=0.5)
    rows = list(stream)
    assert [r.id for r in rows] == list(range(50))
    assert [r.arrival_s for r in rows] == stream.arrival_s.tolist()
    assert [r.input_tokens for r in rows] == stream.input_tokens.tolist()
    assert [r.output_tokens for r in rows] == stream.output_tokens.tolist()
    assert [r.cached_tokens for r in rows] == stream.cached_tokens.tolist()
    assert len(stream) == 50
    assert stream.concurrency is None
    assert stream.following(left=0, now_s=1.0) == ()


def test_one_seed_one_stream() -> None:
    assert list(synthetic(POISSON, 1, requests=100)) == list(synthetic(POISSON, 1, requests=100))
    assert list(synthetic(POISSON, 1, requests=100)) != list(synthetic(POISSON, 2, requests=100))


def test_changing_one_part_leaves_the_others() -> None:
    base = synthetic(POISSON, requests=100)
    slower = synthetic({"poisson": {"rate_per_s": 10.0}}, requests=100)
    assert slower.input_tokens.tolist() == base.input_tokens.tolist()
    assert slower.output_tokens.tolist() == base.output_tokens.tolist()
    np.testing.assert_allclose(slower.arrival_s, 2 * base.arrival_s)
    other = synthetic(POISSON, requests=100, lengths={**LENGTHS, "input": {"uniform": (1, 9)}})
    assert other.arrival_s.tolist() == base.arrival_s.tolist()
    assert other.output_tokens.tolist() == base.output_tokens.tolist()


def test_arrivals_and_lengths_are_independent() -> None:
    alike = {
        "input": {"lognormal": {"mean": 1000.0, "cv": 1.0}},
        "output": {"lognormal": {"mean": 1000.0, "cv": 1.0}},
    }
    stream = synthetic(POISSON, requests=20_000, lengths=alike)
    gaps = np.diff(stream.arrival_s, prepend=0.0)
    for one, two in ((gaps, stream.input_tokens), (gaps, stream.output_tokens),
                     (stream.input_tokens, stream.output_tokens)):  # fmt: skip
        # Correlation of independent samples: standard deviation 1 / sqrt(20,000).
        assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(20_000)


def test_every_process_draws_the_same() -> None:
    program = (
        "from tests.workload.test_requests import *\n"
        "import hashlib\n"
        "rows = list(synthetic(POISSON, 3, requests=1000))\n"
        "rows += list(requests(scenario({'trace': 'mooncake-conversation', 'requests': 1000}), 3))\n"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={"PYTHONHASHSEED": hashing},
            check=True,
            capture_output=True,
        )
        for hashing in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_closed_loop_bounded_by_a_number() -> None:
    stream = synthetic({"closed_loop": {"concurrency": 3}}, requests=5)
    assert stream.concurrency == 3
    assert stream.arrival_s[:3].tolist() == [0, 0, 0]
    assert np.isnan(stream.arrival_s[3:]).all()
    later = [stream.following(left=1, now_s=2.5), stream.following(left=0, now_s=4.0)]
    assert later[0] == (Request(3, 2.5, int(stream.input_tokens[3]), int(stream.output_tokens[3])),)
    assert later[1] == (Request(4, 4.0, int(stream.input_tokens[4]), int(stream.output_tokens[4])),)
    assert stream.full
    assert stream.following(left=2, now_s=5.0) == ()
    assert not stream.full


def test_closed_loop_bounded_by_time_never_runs_out_before() -> None:
    stream = synthetic({"closed_loop": {"concurrency": 3}}, duration_s=10.0)
    assert len(stream) == 3
    later = [r for i in range(2500) for r in stream.following(left=i, now_s=9.9)]
    assert [r.id for r in later] == list(range(3, 2503))
    # The same lengths as those of a run bounded by a number.
    counted = synthetic({"closed_loop": {"concurrency": 3}}, requests=2503)
    assert [r.input_tokens for r in later] == counted.input_tokens[3:].tolist()
    assert [r.output_tokens for r in later] == counted.output_tokens[3:].tolist()
    assert stream.full
    assert stream.following(left=2500, now_s=10.0) == ()
    assert not stream.full


def test_closed_loop_with_more_places_than_requests() -> None:
    stream = synthetic({"closed_loop": {"concurrency": 10}}, requests=4)
    assert stream.arrival_s.tolist() == [0, 0, 0, 0]
    assert stream.following(left=0, now_s=1.0) == ()


def test_a_trace_at_its_own_times() -> None:
    whole = requests(scenario({"trace": "azure-conversation"}), 1)
    assert len(whole) == 19_366
    assert whole.notes == ()
    minute = requests(scenario({"trace": "azure-conversation"}, duration_s=60.0), 1)
    assert minute.arrival_s.tolist() == [t for t in whole.arrival_s.tolist() if t < 60]
    few = requests(scenario({"trace": "azure-conversation", "requests": 7}), 1)
    assert list(few) == list(whole)[:7]


def test_a_trace_at_other_times() -> None:
    recorded = requests(scenario({"trace": "azure-code"}), 1)
    replayed = requests(scenario({"trace": "azure-code", "arrivals": POISSON, "requests": 500}), 1)
    assert replayed.input_tokens.tolist() == recorded.input_tokens[:500].tolist()
    assert replayed.arrival_s.tolist() == synthetic(POISSON, requests=500).arrival_s.tolist()
    closed = requests(scenario({"trace": "azure-code", "arrivals": {"closed_loop": {"concurrency": 64}}}), 1)
    assert len(closed) == 8_819
    offline = requests(scenario({"trace": "azure-code", "arrivals": {"all_at_once": {}}}), 1)
    assert offline.arrival_s.max() == 0
    assert offline.output_tokens.tolist() == recorded.output_tokens.tolist()


def test_a_trace_that_is_too_short_says_so() -> None:
    stream = requests(scenario({"trace": "azure-code", "requests": 10_000}), 1)
    assert len(stream) == 8_819
    assert stream.notes == ("azure-code: holds 8819 of the 10000 requests asked for",)


def test_cached_fraction_takes_the_place_of_hashes() -> None:
    hashed = requests(scenario({"trace": "mooncake-synthetic"}), 1)
    assert hashed.block_tokens == 512
    assert len(hashed.blocks) == len(hashed)
    assert hashed.cached_tokens.sum() == 0
    given = requests(scenario({"trace": "mooncake-synthetic", "cached_fraction": 0.563}), 1)
    assert given.blocks == ()
    assert len(given.notes) == 1
    # Rounded per request, and at least one token computed: within half a token each.
    assert abs(given.cached_tokens - 0.563 * given.input_tokens).max() <= 0.5


@pytest.mark.parametrize(
    ("asked", "size", "blocks", "notes"),
    [
        (512, 512, [(1, 2, 3, 4, 5), (1, 2, 9)], 1),
        (1024, 1024, [(2, 4), (2,)], 1),  # a larger block is known by the hash of its last part
        (2048, 2048, [(4,), ()], 1),
        (64, 512, [(1, 2, 3, 4, 5), (1, 2, 9)], 2),
    ],
)
def test_hashes_follow_the_blocks_of_the_cache(
    tmp_path: Path, asked: int, size: int, blocks: list[tuple[int, ...]], notes: int
) -> None:
    rows = [
        {"timestamp": 0, "input_length": 2200, "output_length": 1, "hash_ids": [1, 2, 3, 4, 5]},
        {"timestamp": 1, "input_length": 1100, "output_length": 1, "hash_ids": [1, 2, 9]},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cache = {"enabled": True, "block_tokens": asked}
    stream = requests(scenario({"trace": "t.jsonl"}, prefix_cache=cache), 1, tmp_path)
    assert (stream.block_tokens, list(stream.blocks), len(stream.notes)) == (size, blocks, notes)
    with pytest.raises(DeploymentError, match="100 neither divides nor is a multiple of the 512"):
        requests(scenario({"trace": "t.jsonl"}, prefix_cache=cache | {"block_tokens": 100}), 1, tmp_path)


def test_a_trace_without_times_needs_arrivals(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("input_tokens,output_tokens\n10,1\n20,2\n")
    with pytest.raises(DeploymentError, match=r"no times; give `workload\.arrivals`"):
        requests(scenario({"trace": "t.csv"}), 1, tmp_path)
    stream = requests(scenario({"trace": "t.csv", "arrivals": {"all_at_once": {}}}), 1, tmp_path)
    assert stream.input_tokens.tolist() == [10, 20]


def test_runs_do_not_share_columns_that_could_be_written() -> None:
    stream = requests(scenario({"trace": "azure-code"}), 1)
    with pytest.raises(ValueError, match="read-only"):
        stream.input_tokens[0] = 1


def test_each_purpose_has_a_stream_of_its_own() -> None:
    one, two = generator(1, "arrivals"), generator(1, "input lengths")
    assert one.random(4).tolist() != two.random(4).tolist()
    assert generator(1, "arrivals").random(4).tolist() != generator(2, "arrivals").random(4).tolist()


def test_the_smallest_request_is_known_beforehand() -> None:
    """Drawn ones by their columns; an endless loop's by what its lengths cannot fall below."""
    open_loop = synthetic(POISSON, requests=50)
    assert open_loop.least_tokens == min(r.input_tokens + r.output_tokens for r in open_loop)
    loop = {"closed_loop": {"concurrency": 3}}
    alike = {"input": {"constant": 700}, "output": {"uniform": (30, 50)}}
    assert synthetic(loop, lengths=alike, duration_s=9.0).least_tokens == 730
    assert synthetic(loop, duration_s=9.0).least_tokens == 1 + 1
    bounded = synthetic(loop, requests=50)
    assert bounded.least_tokens == (bounded.input_tokens + bounded.output_tokens).min()
    assert synthetic({"poisson": {"rate_per_s": 1e-6}}, duration_s=1.0).least_tokens is None


def test_equal_requests_in_a_closed_loop_are_said_to_stay_in_step() -> None:
    equal = {"input": {"constant": 100}, "output": {"constant": 10}}
    loop = {"closed_loop": {"concurrency": 3}}
    [note] = synthetic(loop, requests=9, lengths=equal).notes
    assert "stay in step" in note
    assert synthetic(loop, requests=9).notes == ()
    assert synthetic(POISSON, requests=9, lengths=equal).notes == ()
    assert synthetic({"closed_loop": {"concurrency": 1}}, requests=9, lengths=equal).notes == ()
