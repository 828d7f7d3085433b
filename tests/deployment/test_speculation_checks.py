"""What a scenario may say about drafts, and what it is told when it may not."""

import json
from pathlib import Path

import pytest

from sim.deployment.drafts import draft_chances
from sim.deployment.plan import deploy
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.loading import parse

BASE = """
model: {model}
gpu: h200_sxm
deployment: {{serve: {{gpus: 8, tp: 8, max_batch_per_gpu: 8}}}}
speculation: {speculation}
workload:
  arrivals: {{closed_loop: {{concurrency: 1}}}}
  lengths: {{input: {{constant: 9}}, output: {{constant: 9}}}}
  requests: 1
"""


def scenario(speculation: str, model: str = "deepseek-v3.2"):
    return parse(BASE.format(model=model, speculation=speculation), "s.yaml").scenario


def problem(speculation: str, model: str = "deepseek-v3.2") -> tuple[tuple[str, ...], str]:
    with pytest.raises(DeploymentError) as error:
        deploy(scenario(speculation, model))
    [found] = error.value.problems
    return found.path, found.message


def test_the_catalog_s_row_is_chosen_by_task_and_thinking() -> None:
    assert draft_chances(scenario("{draft_tokens: 2}")) == (0.8, 0.681)
    assert draft_chances(scenario("{draft_tokens: 1, task: coding, thinking: true}")) == (0.789,)


def test_given_chances_count_as_far_as_there_are_drafts() -> None:
    assert draft_chances(scenario("{draft_tokens: 1, acceptance: [0.6, 0.5]}")) == (0.6,)


def test_a_model_without_figures_says_what_to_give(tmp_path: Path) -> None:
    shapes = {
        "num_hidden_layers": 8, "first_k_dense_replace": 1, "hidden_size": 2048, "num_attention_heads": 16,
        "q_lora_rank": 512, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "moe_intermediate_size": 1024, "intermediate_size": 8192, "n_routed_experts": 64,
        "num_experts_per_tok": 8, "vocab_size": 129280, "num_nextn_predict_layers": 1,
        "max_position_embeddings": 4096, "quantization_config": {},
    }  # fmt: skip
    config = tmp_path / "config.json"
    config.write_text(json.dumps(shapes), encoding="utf-8")
    path, message = problem("{draft_tokens: 2}", str(config))
    assert path == ("speculation", "acceptance")
    assert "no accept length" in message and "2 drafts" in message
    deploy(scenario("{draft_tokens: 2, acceptance: [0.7, 0.5]}", str(config)))


def test_an_unknown_task_lists_the_known_ones() -> None:
    path, message = problem("{draft_tokens: 1, task: poetry}")
    assert path == ("speculation", "task")
    assert "poetry" in message and "chat" in message


def test_chances_and_a_task_contradict_each_other() -> None:
    with pytest.raises(ScenarioError, match="not both"):
        scenario("{draft_tokens: 1, acceptance: [0.6], task: chat}")
