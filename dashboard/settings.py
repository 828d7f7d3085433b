"""The state of What-if: plain values under short names, as they stand in the URL, and the scenario they spell."""

from collections.abc import Mapping
from typing import Any, Final

Setting = str | int | float | bool
Settings = Mapping[str, Any]

DEFAULTS: Final[Settings] = {
    "m": "deepseek-v3.2", "g": "h200_sxm", "e": "sglang",
    "k": "separate", "pw": 1, "pg": 8, "pt": 1, "dw": 1, "dg": 16, "dt": 1, "sw": 2, "sg": 8, "st": 1, "ep": True,
    "b": 128,
    "r": 5.0, "i": 2000, "o": 300, "v": 1.0, "h": 0,
    "w": "fp8", "c": "fp8", "d": 0,
    "x": 0, "s": 1.05, "y": 1.0, "l": 0,
    "t": "rent_3yr", "u": 2.0,
}  # fmt: skip
"""Model, GPU, engine; kind of deployment, workers, GPUs and TP of the prefill, decode and joint pools, experts over all
GPUs or not, batch cap; requests per second, input and output tokens, their spread, cache hits in percent; weights,
cache precision, drafts; redundant experts, sigma, rho, node limit; price tier and USD of an own price."""

CHOICES: Final[Mapping[str, tuple[Any, ...]]] = {
    "k": ("separate", "joint"),
    "pw": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    "pg": (4, 8, 16, 24, 32, 64, 72),
    "dw": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    "dg": (4, 8, 16, 32, 64, 72, 96, 128, 144, 256, 320),
    "sw": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    "sg": (4, 8, 16, 32, 64, 72),
    "pt": (1, 2, 4, 8, 16), "dt": (1, 2, 4, 8, 16), "st": (1, 2, 4, 8, 16),
    "b": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "r": (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0, 150.0, 200.0, 300.0, 500.0,
          1000.0),
    "i": (16, 32, 64, 128, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 100000, 128000),
    "o": (1, 10, 50, 100, 200, 300, 500, 1000, 2000, 4000, 8000, 16000, 32000),
    "v": (0.0, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0),
    "w": ("bf16", "fp8", "nvfp4"), "c": ("bf16", "fp8"), "d": (0, 1, 2, 3, 4, 5),
    "x": (0, 8, 16, 32, 64, 128), "l": (0, 1, 2, 3, 4, 5, 6, 7, 8),
}  # fmt: skip
"""What the sliders offer."""

OWN_PRICE: Final = "own price"
UNTOUCHED: Final = "default"
REQUESTS: Final = 10_000
"""Requests that a simulation of What-if aims at: enough for a p99."""
SHORTEST_S, LONGEST_S = 120, 7200
"""Bounds of its arrivals."""
WARM_UP_SHARE: Final = 0.2
"""Of that time, left out of the statistics."""


def scenario_of(settings: Settings) -> dict[str, Any]:
    """The scenario that the settings spell, as the data of a YAML file."""
    s = settings
    duration_s = min(LONGEST_S, max(SHORTEST_S, round(REQUESTS / float(s["r"]))))
    workload: dict[str, Any] = {
        "arrivals": {"poisson": {"rate_per_s": float(s["r"])}},
        "lengths": {"input": _length(s["i"], s["v"]), "output": _length(s["o"], s["v"])},
    }
    if s["h"]:
        workload["cached_fraction"] = float(s["h"]) / 100
    price = {"usd_per_gpu_hour": float(s["u"])} if s["t"] == OWN_PRICE else {"tier": s["t"]}
    experts = {"redundant": s["x"], "popularity_sigma": float(s["s"]), "staleness_rho": float(s["y"])}
    if s["l"]:
        experts["node_limit"] = s["l"]
    return {
        "model": s["m"],
        "gpu": s["g"],
        "engine": s["e"],
        "deployment": _pools(s),
        "precision": {"weights": s["w"], "kv_cache": s["c"]},
        "speculation": {"draft_tokens": s["d"]},
        "experts": experts,
        "workload": workload,
        "duration_s": duration_s,
        "warmup_s": round(duration_s * WARM_UP_SHARE),
        "objectives": {"ttft_p99_s": 2.0, "tpot_p99_s": 0.05},
        "price": price,
    }


def _length(mean: Setting, spread: Setting) -> dict[str, Any]:
    return {"lognormal": {"mean": mean, "cv": spread}} if spread else {"constant": mean}


def _pools(s: Settings) -> dict[str, Any]:
    def pool(letter: str) -> dict[str, Setting]:
        gpus = s[f"{letter}g"]
        return {"workers": s[f"{letter}w"], "gpus": gpus, "tp": s[f"{letter}t"], "ep": gpus if s["ep"] else 1}

    cap = {"max_batch_per_gpu": s["b"]}
    if s["k"] == "joint":
        return {"serve": pool("s") | cap}
    return {"prefill": pool("p"), "decode": pool("d") | cap}


def encode(settings: Settings) -> str:
    """The settings that differ from the defaults, as one word for the URL."""
    changed = [f"{key}:{value}" for key, value in settings.items() if value != DEFAULTS[key]]
    return ";".join(changed) or UNTOUCHED


def decode(text: str) -> dict[str, Setting]:
    """The settings of such a word; what is unknown or no value of its setting keeps its default."""
    settings = dict(DEFAULTS)
    for part in text.split(";"):
        key, _, value = part.partition(":")
        if key in DEFAULTS:
            read = _read(value, DEFAULTS[key])
            if read is not None and (key not in CHOICES or read in CHOICES[key]):
                settings[key] = read
    return settings


def _read(value: str, like: Setting) -> Setting | None:
    if isinstance(like, bool):
        return {"True": True, "False": False}.get(value)
    try:
        return type(like)(value)
    except ValueError:
        return None
