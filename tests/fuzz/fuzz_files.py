"""Cases of files beside scenarios: traces, configurations of models, records, profiles, and what pages are given."""

import gzip
import json
import lzma
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_bases import CONFIG, GOOD, HEAD, SERVE, WORKLOAD
from fuzz_mutations import NUMBERS, SHAPES, TEXTS, broken_text, shaken

from sim.catalog.profiles import HEADER, SHIPPED

PROFILE: Final = SHIPPED / "h200_sxm" / "vllm"
DEVICE: Final = {"name": "a CPU", "memory_bytes": 6.4e10, "device": "cpu"}
RECORDS: Final = [
    {"operation": "gemm", "shape": {"m": m, "n": n, "k": 512}, "dtype": dtype, "us_median": 5 + m * n / 1e4, "ok": True,
     "options": {}, "us_p10": 4.9, "us_p90": 500.0, "source": "t", "backend": "torch", "environment": DEVICE}
    for dtype in ("bf16", "fp8") for m in (1, 8, 64) for n in (256, 512)
] + [
    {"operation": operation, "shape": shape | {"tokens": tokens, "rows": 8 * tokens}, "dtype": "fp8",
     "us_median": 20 + tokens, "options": options, "backend": "torch", "environment": DEVICE}
    for tokens in (1, 16, 128) for operation, shape, options in (
        ("moe", {"experts": 8, "active": 8, "hidden": 512, "inter": 256}, {}),
        ("moe_gate", {"experts": 8, "top_k": 8}, {}), ("moe_permute", {"top_k": 8, "hidden": 512}, {}),
        ("dispatch", {"ep": 8, "nodes": 1, "hidden": 512, "top_k": 8, "remote_bytes": 0}, {"mode": "normal"}),
        ("mla_decode", {"heads": 16, "batch": 4, "context": 64 * tokens}, {"kv_cache": "fp8"}))
] + [
    {"operation": "copy", "shape": {"bytes": 10**7}, "dtype": "bf16", "us_median": 900, "environment": DEVICE}
]  # fmt: skip
WORDS: Final = (
    "bf16",
    "fp8",
    "fp32",
    "int4",
    "mxfp4",
    "nvfp4",
    "normal",
    "low_latency",
    "dispatch",
    "moe",
    "gemm",
    "copy",
)


@dataclass(frozen=True)
class Given:
    """What a case is: the commands to try one after the other while each is done, and the text that is to blame."""

    commands: tuple[list[str], ...]
    text: str


def trace(folder: Path, rng: random.Random) -> Given:
    """A broken trace, as text, packed, or as Parquet: `trace`, then `check` of a scenario with it."""
    name = rng.choice(["trace.csv", "hashes.jsonl", "sessions.jsonl", "clients.jsonl"])
    text = broken_text(GOOD[name], rng)
    file, how = folder / "files" / f"own-{name}", rng.random()
    raw = text.encode(errors="surrogatepass")
    if how < 0.1:
        file = file.with_name(f"{file.name}.gz")
        file.write_bytes(_torn(gzip.compress(raw), rng))
    elif how < 0.2:
        file = file.with_name(f"{file.name}.xz")
        file.write_bytes(_torn(lzma.compress(raw), rng))
    elif how < 0.4:
        file = file.with_name("own.parquet")
        columns = {
            key: [_value(rng) for _ in range(4)] for key in ("arrival_s", "input_tokens", "output_tokens")
        }
        try:
            pq.write_table(pa.table(columns), file)
        except (pa.ArrowException, OverflowError):  # values of several kinds have no column
            pq.write_table(pa.table({key: [str(v) for v in column] for key, column in columns.items()}), file)
        file.write_bytes(_torn(file.read_bytes(), rng))
        text = str(columns)
    else:
        file.write_bytes(raw)
    scenario, wanted = folder / "own.yaml", rng.choice(("", ", requests: 2"))
    scenario.write_text(HEAD + SERVE + f"workload: {{trace: files/{file.name}{wanted}}}\nduration_s: 600\n")
    return Given((["trace", str(file), "--json"], ["check", str(scenario), "--json"]), text)


def config(folder: Path, rng: random.Random) -> Given:
    """A config.json with other values: `check`, then `explain`."""
    data: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice([*data] or ["model_type"])
        how = rng.random()
        if how < 0.7:
            data[key] = rng.choice((*NUMBERS, rng.randint(1, 300), rng.randint(1, 300), *TEXTS, *SHAPES))
        elif how < 0.85:
            data.pop(key, None)
        else:
            data = rng.choice(
                ({"text_config": data}, {**data, "rope_scaling": data}, {**data, "layer_types": [key] * 8})
            )
    text = json.dumps(data)
    if rng.random() < 0.1:
        text = broken_text(text, rng)
    (folder / "files" / "own.json").write_text(text, errors="surrogatepass")
    scenario = folder / "own.yaml"
    scenario.write_text(HEAD.replace("deepseek-v3.2", "files/own.json") + SERVE + WORKLOAD)
    return Given((["check", str(scenario), "--json"], ["explain", str(scenario), "--json"]), text)


def records(folder: Path, rng: random.Random) -> Given:
    """Broken records of a calibration: `calibrate fit`, then a step priced by it."""
    rows = json.loads(json.dumps(RECORDS))
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        place = rng.choice((row, row, *(row.get(key) for key in ("shape", "options", "environment"))))
        if isinstance(place, dict) and place:
            key, value = rng.choice([*place]), rng.choice((*NUMBERS, *NUMBERS, *TEXTS, *WORDS, *SHAPES))
            place[key] = rng.randint(1, 300) if rng.random() < 0.4 else value
            if rng.random() < 0.1:
                del place[key]
    if rng.random() < 0.2:  # of one record alone it would be that of another device
        shared = {
            **DEVICE,
            rng.choice(("name", "memory_bytes", "device", "model")): rng.choice((*NUMBERS, *TEXTS, *SHAPES)),
        }
        rows = [{**row, "environment": shared} for row in rows]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if rng.random() < 0.3:
        text = broken_text(text, rng)
    file, scenario = folder / "files" / "own.jsonl", folder / "own.yaml"
    out = fresh(folder, "fitted", rng)
    file.write_text(text, errors="surrogatepass")
    scenario.write_text(
        HEAD
        + "profile: fitted\nallow_foreign_profile: true\n"
        + SERVE
        + WORKLOAD.replace("fitted", "fitted/profile.yaml")
    )
    return Given(
        (["calibrate", "fit", str(file), "--out", str(out), "--json"],
         ["explain", str(scenario), "--set", f"profile={out / 'profile.yaml'}", "--json"]), text,
    )  # fmt: skip


def profile(folder: Path, rng: random.Random) -> Given:
    """A shipped profile with something broken: `check`, then a step, whose price stays near that of the whole one."""
    own = fresh(folder, "profile", rng)
    shutil.copytree(PROFILE, own)
    file = rng.choice(sorted(one for one in own.iterdir() if one.is_file()))
    if file.suffix == ".parquet" and rng.random() < 0.8:
        rows = pq.read_table(file)
        name = rng.choice(rows.column_names)
        values = rows[name].to_pylist()
        for _ in range(rng.choice((1, 1, 3, len(values)))):
            values[rng.randrange(len(values))] = rng.choice(NUMBERS)
        try:
            column = pa.array([float(v) for v in values])
        except OverflowError:
            column = pa.array([str(v) for v in values])
        text = f"{file.name}: {name}"
        pq.write_table(rows.set_column(rows.column_names.index(name), name, column), file)
    elif file.suffix == ".parquet":
        file.write_bytes(_torn(file.read_bytes(), rng, always=True))
        text = f"{file.name}, torn"
    else:
        breaks = shaken if file.name == HEADER and rng.random() < 0.5 else broken_text
        text = breaks(file.read_text(encoding="utf-8"), rng)
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        text = f"{file.name}: {text[:500]}"
    scenario = folder / "own.yaml"
    named = rng.choice((own, own / HEADER))
    scenario.write_text(HEAD + "engine: vllm\n" + f"profile: {named}\n" + SERVE + WORKLOAD)
    return Given((["check", str(scenario), "--json"], ["explain", str(scenario), "--json"]), text)


def fresh(folder: Path, name: str, rng: random.Random) -> Path:
    """The name of a folder that this process has not read yet: it keeps the profiles that it has."""
    for old in folder.glob(f"{name}-*"):
        shutil.rmtree(old)
    return folder / f"{name}-{rng.getrandbits(64):x}"


def _value(rng: random.Random) -> Any:
    return (
        rng.choice((1, 2.5, 100, *NUMBERS, *TEXTS[:8], None)) if rng.random() < 0.3 else rng.randint(1, 999)
    )


def _torn(raw: bytes, rng: random.Random, always: bool = False) -> bytes:
    """Now and then cut off, or with other bytes in it."""
    how = rng.random()
    if not raw or (how < 0.5 and not always):
        return raw
    at = rng.randrange(len(raw))
    return raw[:at] if how < 0.75 else raw[:at] + rng.randbytes(rng.randint(1, 8)) + raw[at + 4 :]


FILES: Final[dict[str, Callable[[Path, random.Random], Given]]] = {
    "traces": trace, "configs": config, "records": records, "profiles": profile,
}  # fmt: skip
