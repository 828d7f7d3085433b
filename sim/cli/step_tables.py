"""What `explain`, `check` and `bench` show to a person: dictionaries in, text and tables out. Knows no simulator."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from sim.cli.tables import Json, plain_table
from sim.cli.terminal import number, percent, seconds

NARROW: Final = 120
"""Columns of a terminal below which an operation's work and the source of its price are left out."""


def explanation(step: Json, width: int) -> Iterator[RenderableType]:
    """One step: its seconds, where they go by group, then operation by operation, and the memory of a GPU; for a
    terminal of so many columns."""
    operations: Sequence[Json] = step["operations"]
    yield Text(
        f"{step['phase']} step: {seconds(step['step_s'])} for {number(step['tokens'])} tokens per attention-DP rank "
        f"(batch {number(step['batch'])}, context {number(step['context'])})",
        style="bold",
    )
    groups: dict[str, float] = {}
    for operation in operations:
        groups[operation["group"]] = groups.get(operation["group"], 0.0) + operation["share"]
    largest_first = sorted(groups.items(), key=lambda item: -item[1])
    told = ", ".join(f"{group} {percent(share)}" for group, share in largest_first)
    yield f"  {told}{_beside(step)}"
    yield ""
    table = plain_table()
    wide = width >= NARROW
    numbers = ("layers", "seconds", "share", *(("GFLOP", "GB", "GB of cache") if wide else ()))
    for name in ("operation", "group", *numbers, "bound by", "priced by"):
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")

    def work(one: Json) -> list[str]:
        return [number(one[key] / 1e9) for key in ("flop", "bytes", "cache_bytes")] if wide else []

    for o in operations:
        table.add_row(
            o["name"], o["group"], number(o["layers"]), seconds(o["seconds"]), percent(o["share"]), *work(o),
            o["bound"], f"{o['priced_by']}: {o['source']}" if wide else o["priced_by"],
        )  # fmt: skip
        for part in o["parts"]:
            table.add_row(
                f"  {part['name']}", "", "", seconds(part["seconds"]), percent(part["share"]), *work(part),
                "", "its share by the roofline" if wide else "by the roofline", style="dim",
            )  # fmt: skip
    yield table
    if not wide:
        yield f"FLOP, bytes and sources: `--json`, or {NARROW} columns"
    yield ""
    if shares := step.get("priced_with"):
        told = ", ".join(f"{whose} {percent(share)}" for whose, share in shares.items())
        yield f"seconds priced with: {told}"
    if len(backends := step["step_s_by_moe_backend"]) > 1:
        told = ", ".join(f"{name} {seconds(s)}" for name, s in backends.items())
        yield f"the step by kernels of the routed experts (`moe_backend` chooses): {told}"
    yield memory(step["memory"])


def _beside(step: Json) -> str:
    """What makes the step another time than its operations one after another."""
    total_s = sum(operation["seconds"] for operation in step["operations"])
    hidden = f", {seconds(step['hidden_s'])} of it beside others" if step["hidden_s"] else ""
    waits = f", and {seconds(step['launch_wait_s'])} more of launches" if step["launch_wait_s"] else ""
    return f"; {seconds(total_s)} of operations{hidden}{waits}" if hidden or waits else ""


def memory(of_gpu: Json) -> str:
    """What a GPU's memory holds."""
    needed, held = of_gpu["kv_tokens_needed"], of_gpu["kv_tokens"]
    short = f"; this step needs {number(needed)}: it does not fit" if needed > held else ""
    return (
        f"per GPU: weights {of_gpu['weights_gb']:.1f} GB, KV cache {of_gpu['kv_cache_gb']:.1f} GB = "
        f"{number(of_gpu['kv_tokens'])} tokens of {number(of_gpu['cache_bytes_per_token'])} bytes{short}"
    )


def checked(name: str, found: Json) -> Iterator[RenderableType]:
    """A scenario that holds: what its model was understood as, its pools and what their memory leaves for the cache."""
    yield Text(f"{name}: ok, {found['gpus']} GPUs, {number(found['requests'])} requests", style="bold")
    yield from understood(found["model"])
    for role, pool in found["pools"].items():
        yield (
            f"  {role}: {pool['workers']} x {pool['gpus']} GPUs, attention DP {pool['dp']} x TP {pool['tp']}, "
            f"EP {pool['ep']}; per GPU: weights {pool['weights_gb']:.1f} GB, reserve {pool['reserve_gb']:.1f} GB, "
            f"KV cache {pool['kv_cache_gb']:.1f} GB = {number(pool['kv_tokens'])} tokens per rank{_each(pool)}"
            + (
                f"; {number(pool['seats'])} seats per rank ({pool['seats_from']})"
                if role != "prefill"
                else ""
            )
        )


def _each(pool: Json) -> str:
    """What the engine takes of a cache that holds more than tokens."""
    if "kv_bytes_per_token" not in pool:
        return ""
    each, beside = number(pool["kv_bytes_per_token"]), pool["kv_tokens_per_request"]
    return f" of {each} bytes as the engine shares them out" + (
        f", {number(beside)} more for a request" if beside else ""
    )


def understood(model: Json) -> Iterator[str]:
    """What a model was understood as."""
    dense = (
        f", the first {model['dense_layers']} dense"
        if model["routed_experts"] and model["dense_layers"]
        else ""
    )
    experts = (
        f"{model['routed_experts']} experts, {model['experts_per_token']} per token, {model['shared_experts']} shared"
        if model["routed_experts"]
        else "no experts"
    )
    drafts = f", {model['mtp_modules']} MTP module" if model["mtp_modules"] else ""
    yield (
        f"  model: {model['name']} ({model['architecture']}), {model['attention']}, {model['layers']} layers{dense}, "
        f"{experts}{drafts}"
    )
    beside = (
        f" (attention {model['attention_weights']}, shared and dense {model['dense_weights']})"
        if len({model["weights"], model["attention_weights"], model["dense_weights"]}) > 1
        else ""
    )
    yield (
        f"    {model['parameters'] / 1e9:,.1f} B parameters, {model['active_parameters'] / 1e9:,.1f} B active; "
        f"{model['weights']} weights{beside} {model['weights_gb']:,.1f} GB (checkpoint: {model['checkpoint']}); "
        f"{model['kv_cache']} cache {number(model['cache_bytes_per_token'])} bytes per token"
    )
    for note in model["notes"]:
        yield f"    {note}"


def benchmark(speed: Json) -> Iterator[RenderableType]:
    """The simulator's own speed."""
    yield Text(f"{number(speed['requests_per_s'])} requests simulated per second of one core", style="bold")
    table = plain_table()
    table.add_column("")
    table.add_column("", justify="right")
    for label, key in (
        ("requests", "requests"),
        ("events per second", "events_per_s"),
        ("bare SimPy, events per second", "simpy_floor_events_per_s"),
        ("simulated GPU-seconds per second", "simulated_gpu_seconds_per_s"),
        ("peak memory, MB", "peak_rss_mb"),
        ("wall seconds", "wall_s"),
        ("CPU seconds", "cpu_s"),
    ):
        table.add_row(f"  {label}", number(speed[key]))
    yield table
