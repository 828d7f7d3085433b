"""The best of every GPU that the winner does not have, and the price of a GPU-hour at which it would win.

    loses above = (USD per hour of the rival - storage) / (GPUs paid for x (1 + overhead))

The price of a GPU-hour is a survey's or a list's and moves the answer more than anything else, as does what a tier
sells at once: of a rack of 72 all GPUs are paid for, however few work.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sim.parallel import Crew
from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.full import Confirmed
from sim.planner.holding import Bracket, HoldJob, Target, hold, lost
from sim.planner.reasons import at_best, at_most
from sim.planner.search import Found, take, wanted
from sim.planner.sizing import Size, allowed, rank
from sim.price import OWN_PRICE, GpuHour

Json = dict[str, Any]


def rivals(found: Found, winner: Entry) -> list[Entry]:
    """Of every other GPU the cheapest candidate: of those that hold, else by what is known at best."""
    first: dict[str, Entry] = {}
    for entry in sorted(found.entries, key=lambda e: _order(found, e)):
        if (gpu := _gpu(entry)) != _gpu(winner):
            first.setdefault(gpu, entry)
    return list(first.values())


def _gpu(entry: Entry) -> str:
    return str(entry.screened.candidate.setting["gpu"])


def _order(found: Found, entry: Entry) -> tuple[bool, bool, Any]:
    size = entry.sizes[SAFE]
    known = size is not None and allowed(found.question, size)
    by_rank = (
        entry.rank(SAFE) if known else rank(entry.screened, at_best(found, entry), at_most(found, entry))
    )
    return not known, entry.bound == 0, by_rank


def complete(found: Found, seed: int, crew: Crew) -> None:
    """Bisect to the end what the rivals hold with the margin, where the search left them since they could not win."""
    ranking = found.ranking(SAFE)
    if not ranking:
        return
    some = [entry for entry in rivals(found, ranking[0]) if entry.bound > 0]
    jobs = []
    for entry in some:
        found.margin(entry)
        target = Target(wanted(entry, found.question, SAFE), found.bound(entry, SAFE), 0.0)
        known = entry.held.points if entry.held else ()
        jobs.append(HoldJob(found.question, found.traffic, entry.screened, (target,), seed, known))
    for entry, job, held in zip(some, jobs, crew.map(hold, jobs, lost), strict=True):
        found.requests += held.requests - sum(point.requests for point in job.known)
        [safe] = held.brackets
        plain = entry.held.brackets[PLAIN] if entry.held else Bracket(safe.low, entry.screened.capacity)
        # Without a margin both are the same.
        take(found, entry, replace(held, brackets=(plain if found.question.margin else safe, safe)))


def gpu_prices(found: Found, best: Confirmed) -> list[Json]:
    """Of every other GPU its best plan, and the prices of a GPU-hour at which that would win."""
    return [_told(found, best, rival) for rival in rivals(found, best.entry)]


def _told(found: Found, best: Confirmed, rival: Entry) -> Json:
    own, other = _gpu_hour(best.entry), _gpu_hour(rival)
    size = rival.sizes[SAFE]
    told = {"gpu": _gpu(rival), "name": rival.screened.candidate.name, "price": _price(other)}
    if size is None or not allowed(found.question, size):
        why = (
            "was found that holds"
            if size is None
            else f"holds on the GPUs that are allowed: {size.paid:,} are needed"
        )
        return {
            **told, "usd_per_hour": None, "gpus": None, "gpus_paid": None, "best_loses_above_usd_per_gpu_hour": None,
            "wins_below_usd_per_gpu_hour": None, "rack_decides": False,
            "says": f"No plan of {told['gpu']} {why}, whatever its GPU-hour costs",
        }  # fmt: skip
    above = _equal(best.entry, best.size, own, size.usd_per_hour)
    below = _equal(rival, size, other, best.size.usd_per_hour)
    decides = rack_decides(rival, size, best.size)
    return {
        **told, "usd_per_hour": size.usd_per_hour, "gpus": size.gpus, "gpus_paid": size.paid,
        "best_loses_above_usd_per_gpu_hour": above, "wins_below_usd_per_gpu_hour": below, "rack_decides": decides,
        "says": "; ".join(_says(best, rival, size, (own, other), (above, below))),
    }  # fmt: skip


def _equal(entry: Entry, size: Size, hour: GpuHour, usd_per_hour: float) -> float | None:
    """USD per GPU-hour at which so many GPUs cost this; None where storage alone costs as much."""
    charged = entry.screened.any_part.usd_per_gpu_hour
    storage = size.usd_per_hour - size.paid * charged
    found = (usd_per_hour - storage) / size.paid * hour.usd / charged
    return found if found > 0 else None


def rack_decides(rival: Entry, size: Size, best: Size) -> bool:
    """Whether the rival would win if the GPUs that it uses were all that it pays for."""
    return size.usd_per_hour - size.stranded * rival.screened.any_part.usd_per_gpu_hour < best.usd_per_hour


def _says(
    best: Confirmed,
    rival: Entry,
    size: Size,
    hours: tuple[GpuHour, GpuHour],
    equal: tuple[float | None, float | None],
) -> Iterator[str]:
    (own, other), (above, below) = hours, equal
    gpu = _gpu(best.entry)
    if above is not None:
        yield f"The best would lose to {_gpu(rival)} above ${above:.2f} per GPU-hour of {gpu} (now ${own.usd:.2f})"
    if below is not None:
        yield f"{_gpu(rival)} would win below ${below:.2f} (now {_dated(other)})"
    if rack_decides(rival, size, best.size):
        yield (
            f"it loses by what is bought at once: {other.unit_gpus} GPUs, so that {size.paid} are paid for and "
            f"{size.gpus} used"
        )


def _dated(hour: GpuHour) -> str:
    if hour.tier == OWN_PRICE:
        return f"${hour.usd:.2f}, given"
    return f"${hour.usd:.2f}, {hour.tier} as of {hour.as_of}{f': {hour.note}' if hour.note else ''}"


def _price(hour: GpuHour) -> Json:
    return {
        "usd_per_gpu_hour": hour.usd, "tier": hour.tier, "as_of": hour.as_of, "source": hour.source,
        "note": hour.note, "bought_at_once": hour.unit_gpus,
    }  # fmt: skip


def price_of(entry: Entry) -> Json:
    """What a GPU-hour of a candidate costs, where that comes from, and what comes on top."""
    return {**_price(_gpu_hour(entry)), "overhead_fraction": entry.screened.any_part.overhead_fraction}


def _gpu_hour(entry: Entry) -> GpuHour:
    hour = entry.screened.any_part.gpu_hour
    assert hour is not None
    return hour
