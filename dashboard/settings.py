"""The state of What-if: plain values under short names, as they stand in the URL, and the scenario they spell."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

Setting = str | int | float | bool
Settings = Mapping[str, Any]

DEFAULTS: Final[Settings] = {
    "m": "deepseek-v3.2", "g": "h200_sxm", "e": "sglang",
    "k": "separate", "pw": 1, "pg": 8, "pt": 1, "dw": 1, "dg": 16, "dt": 1, "sw": 2, "sg": 8, "st": 1, "ep": True,
    "b": 128,
    "r": 5.0, "i": 2000, "o": 300, "v": 1.0, "h": 0,
    "w": "checkpoint", "c": "fp8", "d": 0,
    "x": 0, "s": 1.05, "y": 1.0, "l": 0,
    "t": "rent_3yr", "u": 2.0,
    "z": "",
}  # fmt: skip
"""Model, GPU, engine; kind of deployment, workers, GPUs and TP of the prefill, decode and joint pools, experts over all
GPUs or not, batch cap; requests per second, input and output tokens, their spread, cache hits in percent; weights,
cache precision, drafts; redundant experts, sigma, rho, node limit; price tier and USD of an own price; other keys of
the scenario, `path=value` with commas between."""

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
    "v": (0.0, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0), "h": tuple(range(0, 100, 5)),
    "w": ("checkpoint", "bf16", "fp8", "mxfp4", "nvfp4"), "c": ("bf16", "fp8"), "d": (0, 1, 2, 3, 4, 5),
    "x": (0, 8, 16, 32, 64, 128), "l": (0, 1, 2, 3, 4, 5, 6, 7, 8),
    "s": tuple(i / 20 for i in range(41)), "y": tuple(i / 20 for i in range(21)),
}  # fmt: skip
"""What the sliders offer."""

LIMITS: Final[Mapping[str, tuple[Any, Any]]] = {
    "pw": (1, 1024), "pg": (1, 4096), "pt": (1, 4096), "dw": (1, 1024), "dg": (1, 4096), "dt": (1, 4096),
    "sw": (1, 1024), "sg": (1, 4096), "st": (1, 4096), "b": (1, 65536),
    "r": (0.001, 100_000.0), "i": (1, 1_000_000), "o": (1, 1_000_000), "v": (0.0, 10.0), "h": (0, 99),
    "d": (0, 16), "x": (0, 4096), "l": (0, 64), "s": (0.0, 5.0), "y": (0.0, 1.0), "u": (0.001, 1000.0),
}  # fmt: skip
"""Least and most of each number: what a page computes. Sliders offer some values of it, number inputs all."""

OTHER_KEYS: Final = (
    "deployment",
    "precision",
    "speculation",
    "overlap",
    "indexer",
    "scheduling",
    "prefix_cache",
    "router",
    "engine_version",
)
"""Sections of a scenario that `z` may change: none of their keys names a file, but for those of experts."""
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
    spelled = {
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
    for path, value in other_keys(s["z"]):
        _put(spelled, path, value)
    return spelled


def settings_of(scenario: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings that spell the deployment of a scenario given as plain data, beside the load and the experts of the
    page; what no setting has goes to `z`."""
    pools: Mapping[str, Any] = scenario["deployment"]
    found: dict[str, Setting] = {"m": scenario["model"], "g": scenario["gpu"], "e": scenario["engine"]}
    found["k"] = "joint" if "serve" in pools else "separate"
    for role, letter in (("serve", "s"), ("prefill", "p"), ("decode", "d")):
        if pool := pools.get(role):
            found |= {
                f"{letter}w": pool.get("workers", 1),
                f"{letter}g": pool["gpus"],
                f"{letter}t": pool.get("tp", 1),
            }
            found |= {"x": pool["experts"]["redundant"]} if pool.get("experts", {}).get("redundant") else {}
    decoding = pools.get("serve") or pools["decode"]
    found["ep"] = all(pool.get("ep", 1) == pool["gpus"] for pool in pools.values())
    precision, drafts = scenario.get("precision", {}), scenario.get("speculation", {})
    told = {
        "b": decoding.get("max_batch_per_gpu"), "w": precision.get("weights"), "c": precision.get("kv_cache"),
        "d": drafts.get("draft_tokens"),
    }  # fmt: skip
    found |= {key: value for key, value in told.items() if value is not None and valid(key, str(value))}
    spelled = dict(leaves(scenario_of({**DEFAULTS, **found})))
    others = {
        path: value
        for path, value in leaves(scenario)
        if path[0] in OTHER_KEYS
        and "experts" not in path
        and spelled.get(path) != value
        and not isinstance(value, list)  # its commas would end it
    }
    return {**found, "z": ",".join(f"{'.'.join(path)}={word(value)}" for path, value in others.items())}


def other_keys(text: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The paths and values of `z`; what is none is left out."""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        path = tuple(key.strip().split("."))
        if equals and path[0] in OTHER_KEYS and "experts" not in path:
            yield path, _scalar(value.strip())


def drafts_by(others: str) -> str:
    """What drafts: the term for it, by the other keys."""
    method = dict(other_keys(others)).get(("speculation", "method"))
    return "DSpark" if method == "dspark" else "MTP"


def _put(spelled: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """A value at its path; of a pool that the view does not have, nowhere."""
    pools = spelled["deployment"]
    if path[0] == "deployment" and path[1:2] and isinstance(pools, dict) and path[1] not in pools:
        return
    section = spelled
    for key in path[:-1]:
        inside = section.setdefault(key, {})
        if not isinstance(inside, dict):
            return
        section = inside
    section[path[-1]] = value
    if path[-1] == "max_batch_per_rank":  # which wins
        section.pop("max_batch_per_gpu", None)


def leaves(data: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values of nested sections."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _scalar(text: str) -> Any:
    """A word as YAML reads it."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def word(value: Any) -> str:
    """A value as it stands in the URL."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
        if key in DEFAULTS and (read := value_of(key, value)) is not None:
            settings[key] = read
    return settings


def value_of(key: str, text: str) -> Setting | None:
    """What a text says as the value of a setting; None where it is none."""
    read = _read(text, DEFAULTS[key])
    if key in LIMITS:
        least, most = LIMITS[key]
        return read if read is not None and math.isfinite(read) and least <= read <= most else None
    return read if key not in CHOICES or read in CHOICES[key] else None


def valid(key: str, text: str, options: Collection[str] | None = None) -> bool:
    """Whether a text is a value of a setting; `options`: the words that a page offers for it."""
    return value_of(key, text) is not None and (options is None or text in options)


def expected(key: str, options: Collection[str] | None = None) -> str:
    """What the value of a setting must be, in words."""
    if key in LIMITS:
        least, most = LIMITS[key]
        return (
            f"{'a whole number' if isinstance(least, int) else 'a number'} from {least:,.10g} to {most:,.10g}"
        )
    return "one of " + ", ".join(map(str, options or CHOICES.get(key, ("true", "false"))))


def wrong(text: str) -> list[str]:
    """What in such a word for the URL is no setting, or no value of one."""
    parts = [part for part in text.split(";") if part and part != UNTOUCHED]
    found = [part.partition(":") for part in parts]
    return [
        f"{key}: expected a setting, such as r:10 or o:500"
        if key not in DEFAULTS
        else f"{key}:{value}: expected {expected(key)}; {DEFAULTS[key]} is used"
        for key, _, value in found
        if key not in DEFAULTS or not valid(key, value)
    ]


def _read(value: str, like: Setting) -> Any:
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(value.lower())
    try:
        read = type(like)(float(value)) if isinstance(like, int) else type(like)(value)
    except (ValueError, OverflowError):
        return None
    return read if isinstance(like, str) or read == float(value) else None
