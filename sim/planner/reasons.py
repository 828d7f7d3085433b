"""Why a candidate lost: memory, an objective and by how much, the price, or the GPUs that are allowed."""

from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.question import Objective
from sim.planner.search import Found, can_win, wanted
from sim.planner.sizing import Size, allowed, replicas_for, sized

APART = {
    "prefill": "more prefill workers to a decode worker, or more of the prompts from the prefix cache",
    "decode batch": "a higher max_batch_per_gpu, or more decode workers to a prefill worker",
    "KV cache": "GPUs with more memory, a smaller cache format, or decode workers of more GPUs",
    "KV transfer": "faster links between the pools, or decode workers of more GPUs",
}
TOGETHER = {
    "prefill": "more of the prompts from the prefix cache, or prompts on workers of their own",
    "decode batch": "a higher max_batch_per_gpu, or prompts on workers of their own",
    "KV cache": "GPUs with more memory, a smaller cache format, or workers of more GPUs",
}


def relief(role: str, limit: str) -> str | None:
    """What would relieve a pool that is full by this."""
    return (TOGETHER if role == "serve" else APART).get(limit)


def in_unit(objective: Objective, value_s: float) -> str:
    """A latency as people write it."""
    if value_s == float("inf"):
        return "without end: requests are turned away"
    return f"{value_s:.3g} s" if value_s >= 1 else f"{value_s * 1e3:.3g} ms"


def over(objective: Objective, value_s: float) -> str:
    """`TPOT p99 is 61 ms, 22% above 50 ms`."""
    more = value_s / objective.bound_s - 1
    share = f", {more:{'.0%' if more >= 0.01 else '.2%'}} above {in_unit(objective, objective.bound_s)}"
    known = value_s < float("inf")
    return f"{objective.label} is {in_unit(objective, value_s)}{share if known else ''}"


def why_not(found: Found, entry: Entry, best: Size | None) -> str | None:
    """One sentence: what rules the candidate out beside `best`; None where nothing does."""
    if entry.held is not None:
        return _after_simulation(found, entry, best)
    if entry.bound == 0:
        return _at_light_load(found, entry)
    seen, size = found.bound(entry, PLAIN), at_best(found, entry)
    if not allowed(found.question, size):
        return f"even without queues it takes {size.paid:,} GPUs, more than are allowed"
    if not found.complete and can_win(found, entry):
        return "not simulated: the budget of simulated requests ran out"
    price = f"${size.usd_per_hour:,.2f} an hour{_dearer(size, best)}"
    if seen < entry.bound:
        return f"at least {price}: beside another pool one of its own held less than {seen:.3g} requests/s a replica"
    return f"even without queues it costs {price}"


def at_best(found: Found, entry: Entry) -> Size:
    """The size by what is known at best."""
    more = entry.margin.rate if entry.margin and entry.held else 1.0
    replicas = replicas_for(found.traffic.peak_per_s * more, at_most(found, entry))
    return sized(found.question, entry.screened, replicas)


def at_most(found: Found, entry: Entry) -> float:
    """What a replica holds at most: the bracket's end, by other candidates with the same pool, or by the estimate."""
    high = entry.held.brackets[SAFE].high if entry.held else 0.0
    return high or found.bound(entry, PLAIN) or entry.screened.capacity


def _at_light_load(found: Found, entry: Entry) -> str:
    """The objectives that it misses before anything waits."""
    missed = [
        (one, mean_s)
        for one in found.question.objectives
        if (mean_s := entry.screened.mean_s(one.metric, 0.0)) > one.bound_s
    ]
    if not missed:
        return "misses an objective at the lightest load, by the estimate"
    told = (
        f"{one.label.split()[0]} is {in_unit(one, mean_s)} on average, {mean_s / one.bound_s - 1:.0%} above "
        f"{in_unit(one, one.bound_s)}"
        for one, mean_s in missed
    )
    return f"at the lightest load, without queues, {' and '.join(told)}"


def ends_at(found: Found, entry: Entry, target: int) -> str | None:
    """What ends the rate that a replica holds: the objective that the next rate misses, and by how much."""
    if entry.held is None:
        return None
    high = entry.held.brackets[target].high
    measured = entry.held.at(high)
    if measured is None:
        return "the estimate"
    if not measured.keeps_up:
        return "the backlog grows"
    missed = measured.missed(wanted(entry, found.question, target))
    after = " (with the margin)" if target == SAFE and found.question.margin else ""
    return " and ".join(over(one, measured.values_s[one.key]) for one in missed) + after


def _after_simulation(found: Found, entry: Entry, best: Size | None) -> str | None:
    assert entry.held is not None
    if entry.held.why_not:
        return entry.held.why_not
    size, bracket = entry.sizes[SAFE], entry.held.brackets[SAFE]
    if size is not None and not allowed(found.question, size):
        return f"takes {size.paid:,} GPUs, more than are allowed"
    end = ends_at(found, entry, SAFE)
    if size is not None:
        says = f"a replica alone holds {bracket.low:.3g} requests/s, and at {bracket.high:.3g}: {end}"
        return f"${size.usd_per_hour:,.2f} an hour{_dearer(size, best)}; {says}"
    estimated = entry.held.at(bracket.high) is None
    limit = f"a replica holds less than {bracket.high:.3g} requests/s, by the estimate"
    if best is None:
        return limit if estimated else f"at {bracket.high:.3g} requests/s a replica, {end}"
    peak = found.traffic.peak_per_s * (entry.margin.rate if entry.margin else 1.0)
    least = sized(found.question, entry.screened, replicas_for(peak, bracket.high))
    too_few = (
        limit
        if estimated
        else f"at {bracket.high:.3g} requests/s a replica, which it must hold to win, {end}"
    )
    return f"{too_few}; so at least ${least.usd_per_hour:,.2f} an hour{_dearer(least, best)}"


def _dearer(size: Size, best: Size | None) -> str:
    if best is None:
        return ""
    share = size.usd_per_hour / best.usd_per_hour - 1
    if share > 0:
        return f", {share:.1%} more than the best"
    if share < 0:  # at best so little, by what is known of it
        return ""
    if size.gpus > best.gpus:
        return f", as the best, on {size.gpus} GPUs"
    return ", as the best, and holds no more"
