"""What engines write of steps that were made up, so that everyone knows how long they take."""

import json

from typer.testing import CliRunner

from calibrate.cli import app
from sim.catalog import model
from sim.scenario.loading import load

V32 = model("deepseek-v3.2")
LAYERS = V32.layers


def decode_s(sequences, context, layers=LAYERS):
    """A step that was made up: seconds of itself, and of each layer by sequences and keys."""
    return 1.6e-3 + layers * (3e-4 + 1.5e-6 * sequences + 1e-10 * sequences * context)


def prefill_s(tokens, layers=LAYERS):
    """Likewise, of one prompt with nothing before it."""
    return 2e-3 + layers * (2.5e-4 + 3e-7 * tokens + 2e-11 * tokens * (tokens + 1) / 2)


def sglang_decode(sequences, context, seconds, steps=40):
    rate = sequences / seconds
    return (
        f"[2026-11-04 05:32:32 DP3 TP24 EP24] Decode batch, #running-req: {sequences}, #token: {sequences * context}, "
        f"token usage: 0.10, cuda graph: True, gen throughput (token/s): {rate:.4f}, #queue-req: 0"
    )


def sglang_prefill(tokens, seconds, queue=3, cached=0):
    return (
        f"[2025-12-30 15:52:38 DP0 TP0 EP0] Prefill batch, #new-seq: 1, #new-token: {tokens}, #cached-token: {cached}, "
        f"token usage: 0.78, #running-req: 0, #queue-req: {queue}, #prealloc-req: 0, #inflight-req: 0, "
        f"input throughput (token/s): {tokens / seconds:.4f}, cuda graph: False"
    )


LOADS = [(sequences, context) for sequences in (1, 8, 32, 64) for context in (1000, 4000)]
PROMPTS = (512, 1024, 2048, 4096, 8192)


def sglang_log(path, layers=LAYERS):
    lines = [sglang_decode(*at, decode_s(*at, layers)) for at in LOADS for _ in range(3)]
    lines += [sglang_prefill(tokens, prefill_s(tokens, layers)) for tokens in PROMPTS for _ in range(3)]
    path.write_text("\n".join(["server_args=...", *lines, "INFO: shutting down"]), encoding="utf-8")
    return path


def run(*arguments):
    """The command's last line as JSON, or what it said against it."""
    result = CliRunner().invoke(app, ["step", *map(str, arguments), "--json"])
    if result.exit_code:
        return result.exit_code, " ".join(result.stderr.split())
    return json.loads(result.stdout.splitlines()[-1])


def scenario(*changes):
    small = [
        "duration_s=20",
        "warmup_s=2",
        "deployment.serve.workers=1",
        "workload.arrivals.poisson.rate_per_s=4",
    ]
    return load("scenarios/chat.yaml", [*small, *map(str, changes)]).scenario
