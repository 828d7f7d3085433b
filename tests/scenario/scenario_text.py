"""A small scenario as text, and what is said of it when it is wrong."""

import pytest

from sim.scenario.errors import ScenarioError
from sim.scenario.loading import parse

BASE = """\
model: deepseek-v3.2
gpu: h200_sxm
deployment:
  prefill: {workers: 1, gpus: 8, tp: 1, ep: 8}
  decode: {workers: 2, gpus: 16, ep: 16}
precision: {weights: fp8, kv_cache: fp8}
workload:
  arrivals: {poisson: {rate_per_s: 5}}
  lengths:
    input: {lognormal: {mean: 1e3, cv: 1.0}}
    output: {constant: 250}
duration_s: 20
price: {usd_per_gpu_hour: 2.0}
"""


def problems(text: str, *overrides: str) -> list[str]:
    """What is wrong with the text: `line:column: key: message` of each problem, without the excerpt."""
    with pytest.raises(ScenarioError) as caught:
        parse(text, "f", overrides)
    return [str(problem).splitlines()[0].removeprefix("f:") for problem in caught.value.problems]
