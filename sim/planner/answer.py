"""The answer to a plan: what is said of each candidate, the frontier, the ledger. Plain data."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isnan
from typing import Any

from sim.api_prices import Mix, price_lists
from sim.catalog import catalog_date
from sim.planner.budgets import telling
from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.full import Confirmed
from sim.planner.holding import Simulated
from sim.planner.question import Question
from sim.planner.reasons import at_best, at_most, ends_at, relief, why_not
from sim.planner.search import Found
from sim.planner.sizing import Size, most_replicas, rank, replicas_for, sized
from sim.planner.traffic import day_share
from sim.units import HOUR_S, MILLION

Json = dict[str, Any]


def candidate(found: Found, entry: Entry, target: int = SAFE, confirmed: Confirmed | None = None) -> Json:
    """What is said of one candidate. Numbers of one that was not simulated to its end are at best so good."""
    size = confirmed.size if confirmed else entry.sizes[target]
    measured = confirmed.measured if confirmed else _held(entry, target)
    unknown = size is None
    size = size or at_best(found, entry)
    role, limit = entry.screened.fills_first
    question, one = found.question, entry.screened.candidate
    objectives = [
        {
            "objective": o.key, "label": o.label, "bound_s": o.bound_s,
            "found_s": _finite(measured.values_s[o.key]) if measured else None,
            "kept": None if measured is None else o not in measured.missed(question.objectives),
        }
        for o in question.objectives
    ]  # fmt: skip
    return {
        "name": one.name,
        "kind": one.kind,
        "choices": one.choices,
        "gpu": one.setting["gpu"],
        "deployment": one.overrides(size.replicas)["deployment"],
        "replicas": size.replicas,
        "gpus": size.gpus,
        "gpus_paid": size.paid,
        "stranded": size.stranded,
        "usd_per_hour": size.usd_per_hour,
        "usd_per_million": prices(found, entry, size, measured),
        "at_best": unknown,
        **output_rates(found, size, measured),
        "latency": measured.data["latency"] if measured else None,
        "objectives": objectives,
        "held_per_s": entry.held_per_s(target) if entry.held else None,
        "usable_per_s": usable_per_s(entry, target) if entry.held else None,
        "ends_at": ends_at(found, entry, target),
        "idle_at_mean": _idle(found, size, measured),
        "limited_by": role,
        "limit": limit,
        "relief": relief(role, limit),
        "priced_by": measured.data["priced_by"] if measured else None,
        "expected_error": entry.margin.expected if entry.margin else None,
        "margin": dict(entry.margin.errors) if entry.margin else None,
        "why_not": None,
        "meets_objectives": measured is not None and all(o["kept"] for o in objectives) and not unknown,
        "scenario": scenario(question, entry, size),
    }


def usable_per_s(entry: Entry, target: int) -> float:
    """Arrivals per second that a replica alone is planned for: what it holds, with the margin of throughput kept."""
    kept = entry.margin.rate if entry.margin and target == SAFE else 1.0
    return entry.held_per_s(target) / kept


def scenario(question: Question, entry: Entry, size: Size, spare: int = 0) -> Json:
    """The deployment under the workload as it was asked, ready for `run`."""
    replicas = min(
        size.replicas, most_replicas(entry.screened)
    )  # of a loser there may be more than any scenario has
    built = question.scenario(entry.screened.candidate.overrides(replicas, spare))
    data: Json = built.model_dump(mode="json", exclude_defaults=True)
    return data


def prices(found: Found, entry: Entry, size: Size, measured: Simulated | None) -> Json:
    """USD per million tokens at the mean load: an hour's cost over the tokens that an hour's requests ask for.

    How it is shared between cached, new and generated tokens is the simulation's; without one only `blended` is known.
    """
    per_arrival_usd = size.usd_per_hour / HOUR_S / found.traffic.mean_per_s
    sold = 1 - found.question.loaded.scenario.price.margin
    blended = per_arrival_usd / entry.screened.any_part.tokens * MILLION / sold
    of_run = measured.data["cost"]["usd_per_million"] if measured else {}
    if not of_run.get("blended"):
        return {"input_cache_hit": None, "input_cache_miss": None, "output": None, "blended": blended}
    return {k: None if usd is None else usd * blended / of_run["blended"] for k, usd in of_run.items()}


def n_plus_1(found: Found, confirmed: Confirmed) -> Json:
    """The same with one more worker in each pool: whichever EP group fails, what is left is what was planned."""
    entry, size = confirmed.entry, confirmed.size
    more = sized(found.question, entry.screened, size.replicas, spare=1)
    return {
        **candidate(found, entry, SAFE, replace(confirmed, size=more)),
        "deployment": entry.screened.candidate.overrides(size.replicas, 1)["deployment"],
        "scenario": scenario(found.question, entry, size, 1),
        "spare": dict.fromkeys(entry.screened.candidate.pools, 1),
        "usd_per_hour_more": more.usd_per_hour - size.usd_per_hour,
    }


def alone(found: Found, confirmed: Confirmed, target: int) -> Json | None:
    """How many replicas there would have to be, each with its share of the traffic and no other to take its bursts;
    None where they are no more."""
    entry = confirmed.entry
    held = entry.held_per_s(target)
    replicas = replicas_for(found.peak_per_s(entry, target), held) if held else 0
    if replicas <= confirmed.size.replicas:
        return None
    size = sized(found.question, entry.screened, replicas)
    return {
        "replicas": size.replicas, "gpus": size.gpus, "gpus_paid": size.paid, "usd_per_hour": size.usd_per_hour,
        "says": f"Sized behind one router, where replicas share their bursts; each with its own share of the traffic, "
        f"{size.replicas:,} would be needed: {size.paid:,} GPUs, ${size.usd_per_hour:,.2f} an hour",
    }  # fmt: skip


def runners_up(found: Found, best: Confirmed | None) -> list[Json]:
    """The winner and those behind it, cheapest first, each with why it lost; of candidates that differ in their ratio
    alone only the best is told."""
    seen: set[str] = set()
    told = []
    for entry in sorted(found.entries, key=lambda e: _order(found, e)):
        key = repr((sorted(entry.screened.candidate.setting.items()), entry.screened.candidate.pools))
        if key in seen:
            continue
        seen.add(key)
        won = best is not None and entry is best.entry
        one = candidate(found, entry, SAFE, best if won else None)
        told.append({**one, "why_not": None if won else why_not(found, entry, best.size if best else None)})
        if len(told) == telling().most_candidates:
            break
    return told


def _order(found: Found, entry: Entry) -> tuple[bool, bool, Any]:
    """What holds first, then what was simulated, then the rest; each by price."""
    size = entry.sizes[SAFE]
    by_rank = entry.rank(SAFE) if size else rank(entry.screened, at_best(found, entry), at_most(found, entry))
    return size is None, entry.held is None, by_rank


def output_rates(found: Found, size: Size, measured: Simulated | None) -> Json:
    """Output tokens per second at the peak, by the answers that were simulated; None where none were."""
    answered = measured.data["requests"]["completed"] if measured else 0
    rate = (
        found.traffic.peak_per_s * measured.data["tokens"]["output"] / answered
        if measured and answered
        else None
    )
    return {
        "output_tokens_per_s": rate,
        "output_tokens_per_s_per_gpu": rate and rate / size.gpus,
    }


def _held(entry: Entry, target: int) -> Simulated | None:
    """What was simulated at the rate that is held."""
    return entry.held.at(entry.held.brackets[target].low) if entry.held else None


def _idle(found: Found, size: Size, measured: Simulated | None) -> Json | None:
    """By pool: share of the time without work at the mean load, from the busy share that was simulated."""
    if measured is None:
        return None
    share = (found.traffic.mean_per_s / size.replicas) / (measured.rate_per_s / measured.replicas)
    busy = {r: u for r, u in measured.data["utilization"].items() if r != "kv_cache_peak" and u is not None}
    return {role: max(0.0, 1 - u * share) for role, u in busy.items()}


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


def frontier(found: Found) -> list[Json]:
    """USD per million tokens against tokens/s of one user: what no other candidate beats in both.

    By the estimate, full replicas without queues, whole nodes or idle hours; beside them what was simulated, as it
    would be paid for. A disaggregated point has as much prefill as its rate needs.
    """
    points = [point for entry in found.entries for point in _curve(entry)]
    return [*_pareto(points), *_simulated(found)]


def _curve(entry: Entry) -> list[Json]:
    one, parts = entry.screened.candidate, entry.screened.parts
    decode = parts.get("decode") or parts["serve"]
    shape = one.pools.get("decode") or one.pools["serve"]
    prefill = 0.0
    if "prefill" in parts:
        prefill = one.pools["prefill"]["gpus"] / parts["prefill"].capacity
    return [
        {
            "tokens_per_s_per_user": 1 / tpot_s,
            "usd_per_million": decode.usd_per_gpu_hour * (shape["gpus"] + prefill * rate)
            / (rate * decode.tokens * HOUR_S) * MILLION,
            "gpu": one.setting["gpu"], "kind": one.kind, "name": one.name, "simulated": False,
        }
        for rate, tpot_s in zip(decode.rates, decode.tpot_s, strict=True)
    ]  # fmt: skip


def _pareto(points: list[Json]) -> list[Json]:
    best: list[Json] = []
    for point in sorted(points, key=lambda p: (-p["tokens_per_s_per_user"], p["usd_per_million"], p["name"])):
        if not best or point["usd_per_million"] < best[-1]["usd_per_million"]:
            best.append(point)
    return best


def _simulated(found: Found) -> list[Json]:
    told = []
    for entry in found.entries:
        measured, size = _held(entry, PLAIN), entry.sizes[PLAIN]
        if measured is None or size is None:
            continue
        tpot_s = measured.data["latency"]["tpot_s"]["mean"]
        if tpot_s:
            told.append({
                "tokens_per_s_per_user": 1 / tpot_s,
                "usd_per_million": prices(found, entry, size, measured)["blended"],
                "gpu": entry.screened.candidate.setting["gpu"], "kind": entry.screened.candidate.kind,
                "name": entry.screened.candidate.name, "simulated": True,
            })  # fmt: skip
    return told


def break_even(found: Found, confirmed: Confirmed) -> list[Json]:
    """Where owning beats the public API of the same model: below which price of a GPU-hour at the mean load, and from
    which mean load on at today's prices, beside what the plan's GPUs hold (with the margin): more than the peak, where
    the last replica is not full. The maker's price and the lowest of the others; tokens as simulated. A GPU-hour is
    without what comes on top of it, which is paid for all the same.

    `by_hour`: where the list has prices for some hours, each with the share of a week's load that pays it."""
    tokens, data = confirmed.measured.data["tokens"], confirmed.entry.screened
    mix = Mix(tokens["input_cached"], tokens["input"] - tokens["input_cached"], tokens["output"])
    own = prices(found, confirmed.entry, confirmed.size, confirmed.measured)["blended"]
    model, share = (
        found.question.scenario(data.candidate.setting).model,
        day_share(found.question.loaded.scenario),
    )
    offers = []
    for one in price_lists(model):
        blended = one.mean(mix, share)
        if not isnan(blended):
            by_hour = [asdict(price) for price in one.by_hour(mix, share)] if one.at_hours else None
            offers.append({"provider": one.row["provider"], "official": bool(one.row["official"]),
                           "as_of": str(one.row["as_of"]), "usd_per_million": blended, "by_hour": by_hour})  # fmt: skip
    makers = sorted((o for o in offers if o["official"]), key=lambda o: o["as_of"])[-1:]
    others = sorted((o for o in offers if not o["official"]), key=lambda o: o["usd_per_million"])[:1]
    hour = confirmed.measured.data["cost"]["usd_per_gpu_hour"]
    traffic, entry = found.traffic, confirmed.entry
    alone = confirmed.size.replicas * usable_per_s(entry, SAFE) * entry.together[SAFE]
    holds_per_s = max(traffic.peak_per_s, alone)
    return [
        {
            **offer,
            "own_usd_per_million": own,
            "owning_wins": own < offer["usd_per_million"],
            "usd_per_gpu_hour": hour,
            "usd_per_gpu_hour_at_most": hour * offer["usd_per_million"] / own,
            "load_share_at_least": own * traffic.mean_share / offer["usd_per_million"],
            "rate_per_s_at_least": own * traffic.mean_per_s / offer["usd_per_million"],
            "holds_per_s": holds_per_s,
            "load_is_enough": own * traffic.mean_per_s / offer["usd_per_million"] <= holds_per_s,
        }
        for offer in (*makers, *others)
    ]


def ledger(found: Found, seed: int, wall_s: float) -> Mapping[str, Any]:
    """What was done."""
    simulated = [e for e in found.entries if e.held is not None]
    return {
        "estimated": found.estimated,
        "screened": len(found.entries),
        "refused": len(found.refused),
        "simulated": len(simulated),
        "simulated_requests": found.requests,
        "failed": sum(e.held is not None and e.held.why_not is not None for e in simulated),
        "complete": found.complete,
        "seed": seed,
        "catalog_date": catalog_date(),
        "wall_s": wall_s,
    }
