"""Questions to the planner about a service of formulas."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stub_service import Ask, stub

from sim.planner.plan import plan
from sim.planner.question import Question, load_question

PLAN = """
model: deepseek-v3
profile: analytic
workload:
  arrivals: {{poisson: {{rate_per_s: {rate}}}}}
  lengths: {{input: {{constant: 1000}}, output: {{constant: 200}}}}
objectives: {{ttft_p99_s: {ttft}, tpot_p99_s: {tpot}}}
search:
  gpu: [h200_sxm, b200_sxm]
  kind: [{kinds}]
  ratio: ["1:1", "1:2"]
  deployment.serve.gpus: [8, 12]
  deployment.serve.tp: [1]
  deployment.serve.ep: [1, 4]
  deployment.serve.max_batch_per_gpu: [64]
  deployment.prefill.gpus: [8]
  deployment.prefill.tp: [1]
  deployment.prefill.ep: [8]
  deployment.decode.gpus: [8]
  deployment.decode.tp: [1]
  deployment.decode.ep: [8]
  deployment.decode.max_batch_per_gpu: [64]
  exclude: {exclude}
"""


@pytest.fixture
def question(tmp_path: Path) -> Callable[..., Question]:
    """A question with other numbers in it."""

    def ask(
        rate: float = 20,
        ttft: float = 1.0,
        tpot: float = 0.05,
        kinds: str = "aggregated",
        exclude: str = "[]",
    ) -> Question:
        file = tmp_path / "plan.yaml"
        text = PLAN.format(rate=rate, ttft=ttft, tpot=tpot, kinds=kinds, exclude=exclude)
        file.write_text(text)
        return load_question(file)

    return ask


@pytest.fixture
def ask(question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The answer to such a question, by the formulas."""
    stub(monkeypatch)
    return lambda **words: plan(question(**words), workers=1).json()
