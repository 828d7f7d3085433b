"""The address under which What-if shows a scenario, as far as its settings can."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from dashboard.data.launches import offered_model
from dashboard.data.problems import BadInput
from dashboard.settings import DEFAULTS, OWN_PRICE, leaves, scenario_of, settings_of, valid, word
from sim.deployment.plan import resolve
from sim.price import gpu_hour
from sim.scenario.schema import Arrivals, Length, Scenario
from sim.workload.arrivals import DailyCurve

TRANSLATED: Final = frozenset(("duration_s", "warmup_s", "price", "engine", "model", "gpu"))
"""Keys that What-if spells in its own way."""
ONE_PRICE: Final = frozenset(("tier", "usd_per_gpu_hour"))
"""Keys of `price` that it does; it has no others."""


@dataclass(frozen=True, slots=True)
class Address:
    """Of What-if."""

    query: str
    lost: tuple[str, ...]
    """Keys of the scenario that no setting says."""

    @property
    def told(self) -> str:
        """The same in a sentence; empty where nothing is lost."""
        keys = ", ".join(self.lost)
        return f"What if has no setting for {keys}: they are left out there." if keys else ""


def what_if(scenario: Scenario) -> Address:
    """Where What-if has this deployment under this load. Raises BadInput where the load is none of a rate and mean
    lengths, or its model is not offered there."""
    data = scenario.model_dump(mode="json", exclude_defaults=True)
    data |= {"engine": scenario.engine, "model": offered_model(scenario.model)}
    data["deployment"] = _seated(scenario, data["deployment"])
    asked = {**DEFAULTS, **settings_of(data), **_load(scenario), **_price(scenario), **_experts(scenario)}
    settings = {key: value if valid(key, word(value)) else DEFAULTS[key] for key, value in asked.items()}
    changed = {key: word(value) for key, value in settings.items() if value != DEFAULTS[key]}
    spelled = dict(leaves(scenario_of(settings)))
    kept = {path: value for path, value in leaves(data) if path[0] not in TRANSLATED}
    lost = [".".join(path) for path, value in kept.items() if spelled.get(path) != value]
    lost += [key for key in ("gpu", "model", "engine") if spelled[key,] != data[key]]
    lost += [f"price.{key}" for key in data.get("price", {}) if key not in ONE_PRICE]
    if settings["t"] == OWN_PRICE and settings["u"] != asked["u"]:
        lost.append("price.usd_per_gpu_hour")
    return Address("&".join(f"{key}={quote(value, safe='')}" for key, value in changed.items()), tuple(lost))


def _seated(scenario: Scenario, pools: dict[str, Any]) -> dict[str, Any]:
    """The pools with the seats that decoding has, said or as shipped: per GPU, which has a setting, else per rank."""
    role = "serve" if "serve" in pools else "decode"
    plan = resolve(scenario, role).pools[role]
    per_gpu, rest = divmod(plan.max_sequences, plan.tp)
    seats = {"max_batch_per_rank": plan.max_sequences} if rest else {"max_batch_per_gpu": per_gpu}
    said = ("max_batch_per_gpu", "max_batch_per_rank")
    return pools | {role: {key: value for key, value in pools[role].items() if key not in said} | seats}


def _load(scenario: Scenario) -> dict[str, Any]:
    workload = scenario.workload
    if workload.arrivals is None or workload.lengths is None:
        raise BadInput("What if shows synthetic loads, no traces")
    prompt, spread = _mean(workload.lengths.input)
    answer, _ = _mean(workload.lengths.output)
    return {
        "r": _rate_per_s(workload.arrivals),
        "i": prompt,
        "o": answer,
        "v": spread,
        "h": round(100 * (workload.cached_fraction or 0)),
    }


def _rate_per_s(arrivals: Arrivals) -> float:
    """Of a daily curve that of its highest hour."""
    if arrivals.diurnal is not None:
        return DailyCurve.load(arrivals.diurnal, None).peak_per_s
    given = arrivals.poisson or arrivals.gamma
    if given is None:
        raise BadInput("What if shows loads with a rate, no closed loops or batches")
    return given.rate_per_s


def _mean(length: Length) -> tuple[int, float]:
    """Mean and spread of a length."""
    if length.constant is not None:
        return length.constant, 0.0
    if length.lognormal is not None:
        return round(length.lognormal.mean), float(length.lognormal.cv)
    raise BadInput("What if shows lengths with a mean and a spread, no histograms or ranges")


def _price(scenario: Scenario) -> dict[str, Any]:
    rate = gpu_hour(resolve(scenario).gpu, scenario.price)
    own = scenario.price.tier is None and rate.as_of is None
    return {"t": OWN_PRICE, "u": float(rate.usd)} if own else {"t": rate.tier}


def _experts(scenario: Scenario) -> dict[str, Any]:
    given = scenario.experts.model_dump(exclude_defaults=True)
    names = {"redundant": "x", "popularity_sigma": "s", "staleness_rho": "y", "node_limit": "l"}
    return {short: given[name] for name, short in names.items() if given.get(name) is not None}
