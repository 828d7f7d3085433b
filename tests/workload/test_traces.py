"""The shipped traces are what their sources say, and the documents say what they are."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from trace_text import HEADER, load

from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import trace


# Counts from the data sets' own descriptions; spans and sums counted in the files with awk.
@pytest.mark.parametrize(
    ("name", "requests", "span_s", "mean_input", "mean_output"),
    [
        ("azure-conversation", 19_366, 3501.721937, 1154.70, 211.13),
        ("azure-code", 8_819, 3435.948056, 2047.85, 27.88),
        ("mooncake-conversation", 12_031, 3537.0, 12_035.06, 342.62),
        ("mooncake-synthetic", 3_993, 1022.025, 15_325.48, 149.12),
    ],
)
def test_shipped_traces(
    name: str, requests: int, span_s: float, mean_input: float, mean_output: float
) -> None:
    recorded = trace.load(name, seed=0)
    assert recorded.arrival_s is not None
    assert len(recorded.prompts) == len(recorded.arrival_s) == requests
    assert recorded.arrival_s[-1] == pytest.approx(
        span_s, abs=3.0 if name == "mooncake-conversation" else 1e-6
    )
    assert recorded.prompts.input_tokens.mean() == pytest.approx(mean_input, abs=0.01)
    assert recorded.prompts.output_tokens.mean() == pytest.approx(mean_output, abs=0.01)
    assert (np.diff(recorded.arrival_s) >= 0).all()
    assert recorded.notes == ()


def test_first_rows_of_azure_conversation() -> None:
    # 2023-11-16 18:15:46.6805900,374,44 / 18:15:50.9951690,396,109: 4.314579 s apart.
    recorded = trace.load("azure-conversation", seed=0)
    assert recorded.arrival_s is not None
    assert recorded.arrival_s[:2].tolist() == [0.0, pytest.approx(4.314579, abs=1e-9)]
    assert recorded.prompts.input_tokens[:2].tolist() == [374, 396]
    assert recorded.prompts.output_tokens[:2].tolist() == [44, 109]
    assert recorded.prompts.blocks == ()


def test_mooncake_prompts_carry_a_chained_hash_per_block_of_512() -> None:
    prompts = trace.load("mooncake-conversation", seed=0).prompts
    assert prompts.block_tokens == 512
    assert prompts.blocks[0] == tuple(range(14))  # 6,758 tokens begin 14 blocks
    assert sum(map(len, prompts.blocks)) == 288_500
    before: dict[int, int | None] = {}
    for hashes in prompts.blocks:
        for previous, block in zip((None, *hashes), hashes, strict=False):
            assert before.setdefault(block, previous) == previous, "an id follows two different prefixes"


def test_stamps_of_three_seconds_are_spread_over_them() -> None:
    first, again, other = (trace.load("mooncake-conversation", seed) for seed in (1, 1, 2))
    assert first.arrival_s is not None and again.arrival_s is not None and other.arrival_s is not None
    assert first.arrival_s.tolist() == again.arrival_s.tolist()
    assert first.arrival_s.tolist() != other.arrival_s.tolist()
    assert len(np.unique(first.arrival_s)) == len(first.arrival_s)
    # Uniform over the three seconds: the fraction of a stamp has mean 1.5 and standard error 3 / sqrt(12 x 12,031).
    within = first.arrival_s % 3.0
    assert abs(within.mean() - 1.5) < 4 * 3 / np.sqrt(12 * 12_031)
    # As many in each three seconds as the file has; some stamps are 1 to 3 ms off the multiple.
    mine = np.bincount((first.arrival_s // 3).astype(int))
    theirs = np.bincount(np.rint(_stamps_ms() / 3000).astype(int))
    assert abs(mine[: len(theirs)] - theirs).sum() <= 0.01 * len(first.arrival_s)


def _stamps_ms() -> np.ndarray:
    with lzma.open(trace.FOLDER / "mooncake_conversation.jsonl.xz", "rt") as lines:
        return np.array([json.loads(line)["timestamp"] for line in lines])


DOCS = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")


def test_the_documented_clients_and_sessions_are_read(tmp_path: Path) -> None:
    client, session = (line for line in DOCS.splitlines() if line.startswith('{"'))
    assert len(load(tmp_path, client, "t.jsonl").prompts) > 20
    (tmp_path / "s.jsonl").write_text(session)
    talk = trace.load("s.jsonl", 0, tmp_path)
    assert isinstance(talk, trace.Sessions) and talk.turns == 2


def test_the_documented_error_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, HEADER + "0,10,1\n1,ten,1\n2,10\n", "my.csv")
    assert str(raised.value).replace(f"{tmp_path}/", "") in DOCS


def test_every_shipped_trace_is_documented() -> None:
    assert all(f"`{name}`" in DOCS for name in trace.shipped())


def test_an_unknown_trace_names_the_nearest() -> None:
    with pytest.raises(DeploymentError) as raised:
        trace.load("azure-conversatoin", 0)
    (problem,) = raised.value.problems
    assert problem.path == ("workload", "trace")
    assert "did you mean 'azure-conversation'" in problem.message
