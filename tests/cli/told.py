"""A small scenario, and what a command says of it."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from sim.cli import app

GOOD = """\
model: deepseek-v3.2
gpu: h200_sxm
deployment:
  prefill: {workers: 1, gpus: 8, tp: 1, ep: 8}
  decode: {workers: 1, gpus: 16, tp: 1, ep: 16}
precision: {weights: fp8, kv_cache: fp8}
workload:
  arrivals: {poisson: {rate_per_s: 5}}
  lengths: {input: {lognormal: {mean: 1000, cv: 1.0}}, output: {constant: 50}}
duration_s: 20
price: {usd_per_gpu_hour: 2.0}
"""


class Told:
    """What a command said, and how it ended."""

    def __init__(self, *arguments: str | Path) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.stdout, self.stderr = result.exit_code, result.stdout, result.stderr

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])
