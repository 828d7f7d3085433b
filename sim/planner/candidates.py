"""What could be built: settings, workers of a pool, and replicas made of them."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sim.deployment.device import gpu_of
from sim.planner.budgets import layouts
from sim.planner.question import Question
from sim.scenario.schema import Scenario

Shape = Mapping[str, Any]
"""Keys of a pool, without `workers`."""
Setting = Mapping[str, Any]
"""Scenario keys outside the pools."""


@dataclass(frozen=True)
class Candidate:
    """One replica: workers of one or two shapes, under one setting. Deployments are whole numbers of replicas."""

    setting: Setting
    pools: Mapping[str, Shape]
    ratio: Mapping[str, int]
    """Workers of each role in a replica."""

    @property
    def kind(self) -> str:
        return "aggregated" if "serve" in self.pools else "disaggregated"

    @property
    def gpus(self) -> int:
        """Of one replica."""
        return sum(self.ratio[role] * int(shape["gpus"]) for role, shape in self.pools.items())

    @property
    def choices(self) -> dict[str, Any]:
        """Everything that tells it from the others, by key; as an entry of `exclude` it forbids just this one."""
        told: dict[str, Any] = {**self.setting, "kind": self.kind}
        if self.kind == "disaggregated":
            told["ratio"] = f"{self.ratio['prefill']}:{self.ratio['decode']}"
        for role, shape in self.pools.items():
            told |= {f"deployment.{role}.{key}": value for key, value in shape.items()}
        return told

    @property
    def name(self) -> str:
        """For people: `h200_sxm, 1 x 8 prefill (tp 1, ep 8) : 1 x 16 decode (tp 1, ep 16, cap 64)`."""
        settings = ", ".join(
            str(v) if k == "gpu" else f"{k.split('.')[-1]} {v}" for k, v in self.setting.items()
        )
        parts = [f"{self.ratio[role]} x {_said(role, shape)}" for role, shape in self.pools.items()]
        return f"{settings}, {' : '.join(parts)}"

    def overrides(self, replicas: int, spare: int = 0) -> dict[str, Any]:
        """A scenario's keys for so many replicas; `spare` more workers in each pool."""
        pools = {
            role: {**shape, "workers": self.ratio[role] * replicas + spare}
            for role, shape in self.pools.items()
        }
        return {**self.setting, "deployment": pools}

    def excluded_by(self, entry: Mapping[str, Any]) -> bool:
        """Whether it has every value of an entry of `exclude`; a list there means any of its values."""
        own = self.choices
        return bool(entry) and all(
            key in own and (own[key] in value if isinstance(value, list) else own[key] == value)
            for key, value in entry.items()
        )


def _said(role: str, shape: Shape) -> str:
    cap = "" if role == "prefill" else f", cap {shape['max_batch_per_gpu']}"
    others = [f", {k} {v}" for k, v in shape.items() if k not in ("gpus", "tp", "ep", "max_batch_per_gpu")]
    return f"{shape['gpus']} {role} (tp {shape['tp']}, ep {shape['ep']}{cap}{''.join(others)})"


def settings(question: Question) -> Iterator[Setting]:
    """Every combination of what is varied outside the pools."""
    for values in itertools.product(*question.varied.values()):
        chosen = dict(zip(question.varied, values, strict=True))
        together = chosen["gpu"] if isinstance(chosen["gpu"], Mapping) else {}
        yield {**chosen, **together}


def roles(question: Question) -> tuple[str, ...]:
    """Of the pools that may be built."""
    return tuple(
        role
        for kind, some in (("aggregated", ("serve",)), ("disaggregated", ("prefill", "decode")))
        if kind in question.kinds
        for role in some
    )


def shapes(question: Question, scenario: Scenario, role: str) -> Iterator[Shape]:
    """The workers that a pool could be made of; whether they divide and fit is seen when they are estimated.

    Within the NVLink domain: attention as one TP group, experts sharded or spread (EP), or attention DP with either.
    Beyond it, where all-to-all over the network is what works: attention DP with experts spread over all GPUs.
    What the question pins takes the place of these.
    """
    tried, domain = layouts(), gpu_of(scenario).scale_up_domain
    pinned = dict(question.pinned.get(role, {}))
    caps = pinned.pop("max_batch_per_gpu", (None,) if role == "prefill" else tried.caps)
    widths, tps, eps = (pinned.pop(key, None) for key in ("gpus", "tp", "ep"))
    widest = max(domain, tried.widest_aggregated) if role == "serve" else max(tried.gpus_per_worker)
    for gpus in widths or [width for width in tried.gpus_per_worker if width <= widest]:
        usual = {(1, gpus)}
        if gpus <= domain:
            usual |= {(1, 1)} | ({(gpus, 1), (gpus, gpus)} if gpus <= tried.widest_tp else set())
        own = itertools.product(
            tps or sorted({tp for tp, _ in usual}), eps or sorted({ep for _, ep in usual})
        )
        for tp, ep in own:
            if tps is None and eps is None and (tp, ep) not in usual:
                continue
            for cap, *rest in itertools.product(caps, *pinned.values()):
                others = dict(zip(pinned, rest, strict=True))
                capped = {} if cap is None else {"max_batch_per_gpu": cap}
                yield {"gpus": gpus, "tp": tp, "ep": ep, **capped, **others}


def replicas(question: Question, setting: Setting, fit: Mapping[str, list[Shape]]) -> Iterator[Candidate]:
    """Every replica made of shapes that fit, by role."""
    for shape in fit.get("serve", ()):
        yield Candidate(setting, {"serve": shape}, {"serve": 1})
    for prefill, decode in itertools.product(fit.get("prefill", ()), fit.get("decode", ())):
        for ratio in question.ratios or layouts().ratios:
            p, d = map(int, ratio.split(":"))
            yield Candidate(setting, {"prefill": prefill, "decode": decode}, {"prefill": p, "decode": d})
