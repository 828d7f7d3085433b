"""How many sequences a rank runs at most where a scenario does not say: what the engine takes as it is shipped."""

import json

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.deployment.plan import resolve
from sim.scenario.loading import parse

TEXT = """
model: deepseek-v3
gpu: {gpu}
engine: {engine}
deployment: {{serve: {{gpus: 8, tp: {tp}, {more}}}}}
speculation: {{draft_tokens: {drafts}}}
workload: {{arrivals: {{poisson: {{rate_per_s: 1}}}}, lengths: {{input: {{constant: 9}}, output: {{constant: 9}}}}}}
duration_s: 9
"""


def text(engine: str, tp: int = 1, drafts: int = 0, more: str = "ep: 8", gpu: str = "h200_sxm") -> str:
    return TEXT.format(engine=engine, tp=tp, drafts=drafts, more=more, gpu=gpu)


@pytest.mark.parametrize(
    ("engine", "tp", "drafts", "seats"),
    [
        ("sglang", 1, 0, 2048),  # the lower bound of its rule, per rank
        ("sglang", 8, 0, 2048),
        ("sglang", 1, 2, 6),  # max_running_requests 48 of a worker with drafts, over eight ranks
        ("sglang", 8, 2, 48),
        ("vllm", 1, 0, 1024),  # max_num_seqs from 70 GiB
        ("vllm", 8, 1, 1024),
        ("trtllm", 1, 3, 2048),  # max_batch_size
        ("deepseek", 1, 0, 128),  # an assumption: nobody published it
    ],
)
def test_seats_as_shipped(engine: str, tp: int, drafts: int, seats: int) -> None:
    pool = resolve(parse(text(engine, tp, drafts)).scenario).pools["serve"]
    assert pool.max_sequences == seats
    assert pool.max_sequences_from.startswith(engine) and "as shipped" in pool.max_sequences_from


@pytest.mark.parametrize(("tp", "drafts", "seats"), [(8, 0, 256), (1, 0, 32), (8, 2, 256), (1, 2, 32)])
def test_v4_has_its_own_with_drafts_too(tp: int, drafts: int, seats: int) -> None:
    """SGLang 0.5.23, arg_groups/pipeline.py: what the model sets (256 of a worker) comes before what drafts would."""
    form = text("sglang", tp, drafts, "ep: 8" if tp == 1 else "ep: 1", "b300_sxm")
    form = form.replace("deepseek-v3", "deepseek-v4-pro")
    if drafts:
        form = form.replace(
            f"draft_tokens: {drafts}", f"draft_tokens: {drafts}, task: coding, thinking: true"
        )
    assert resolve(parse(form).scenario).pools["serve"].max_sequences == seats


@pytest.mark.parametrize(
    ("more", "seats", "why"),
    [
        ("max_batch_per_gpu: 16", 64, "max_batch_per_gpu"),  # a rank of four GPUs
        ("max_batch_per_rank: 5", 5, "max_batch_per_rank"),
        ("max_batch_per_gpu: 16, max_batch_per_rank: 5", 5, "max_batch_per_rank"),
    ],
)
def test_what_a_scenario_says_wins(more: str, seats: int, why: str) -> None:
    pool = resolve(parse(text("sglang", 4, 0, more)).scenario).pools["serve"]
    assert (pool.max_sequences, pool.max_sequences_from) == (seats, why)


def test_check_tells_the_seats_and_where_they_come_from(tmp_path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text("vllm", 8, more="ep: 1"), encoding="utf-8")
    found = CliRunner().invoke(app, ["check", str(file), "--json", "--quiet"])
    [pool] = json.loads(found.stdout.splitlines()[-1])["pools"].values()
    assert (pool["seats"], pool["seats_from"]) == (1024, "vllm 0.24.0 as shipped")
    told = CliRunner().invoke(app, ["check", str(file)]).stdout
    assert "1,024 seats per rank" in " ".join(told.split())
