"""Money: what the GPUs of a run cost, and what a million tokens must sell for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from sim import catalog
from sim.catalog import Gpu
from sim.catalog.facts import read, values
from sim.cluster.record import PoolRecord, RunRecord, Tokens
from sim.cluster.staff import copies, hours, mean_gpus, paid_window_s
from sim.cluster.window import tokens_in_window, window_length_s
from sim.deployment.plan import Deployment
from sim.deployment.prefix_tiers import PrefixCachePlan
from sim.scenario.schema import Price
from sim.tariff import Rates, bill, mean_of_day
from sim.units import HOUR_S, MILLION, MONTH_HOURS

Activity = Literal["prefill", "decode", "cached"]
OWN_PRICE: Final = "given"
"""The tier of a price that the user gave as `usd_per_gpu_hour`."""
IDLE_ROLE: Final[Mapping[str, Activity]] = {"prefill": "prefill", "decode": "decode", "serve": "decode"}
"""Whose tokens carry a pool that never worked."""


@dataclass(frozen=True, slots=True)
class GpuHour:
    """What one hour of one GPU costs, and where that comes from."""

    usd: float
    tier: str
    as_of: str | None
    source: str
    unit_gpus: int
    """GPUs that are bought at once: a node, or all that NVLink joins."""
    note: str | None = None
    """On the price, such as that nobody else published one."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """GPUs in use, and GPUs paid for: whole nodes or racks."""

    used: float
    """A whole number, or the mean where workers come and go; likewise `bought`."""
    bought: float
    unit: int
    dearer: float = 1.0
    """What they cost on average over the price of `gpu_hour`: by the hour of the day, and with reserved ones."""

    @property
    def stranded(self) -> float:
        """GPUs paid for that no pool uses; two means of the same GPUs may differ by their rounding."""
        return max(0.0, self.bought - self.used)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD per million tokens; None where no such token was served, or no GPU time was booked on such tokens."""

    input_cache_hit: float | None
    input_cache_miss: float | None
    output: float | None
    blended: float | None
    """All USD over all tokens, cached ones included, in the mix that the workload had."""


@dataclass(frozen=True, slots=True)
class RunPrice:
    """What a run cost, under which assumptions."""

    gpu_hour: GpuHour
    purchase: Purchase
    overhead_fraction: float
    margin: float
    hours: float
    """Length of what was priced as a whole."""
    storage_usd_per_hour: float
    """Host memory and disks of the prefix cache, inside `usd_per_hour`."""
    usd_per_hour: float
    """Cost, without margin."""
    usd_per_million: TokenPrices
    """Selling price: cost / (1 - margin)."""
    usd_by_hour: tuple[float, ...] = ()
    """Of the run, its last hour as long as it lasts: cost, without margin. Empty for an estimate."""

    @property
    def usd(self) -> float:
        """Cost of all `hours`."""
        return self.usd_per_hour * self.hours

    def json(self) -> dict[str, Any]:
        """The `cost` object of a run's JSON. Every price names its tier."""
        return {
            "usd_per_hour": self.usd_per_hour,
            "storage_usd_per_hour": self.storage_usd_per_hour,
            "usd_per_million": asdict(self.usd_per_million),
            "tier": self.gpu_hour.tier,
            "usd_per_gpu_hour": self.gpu_hour.usd,
            "as_of": self.gpu_hour.as_of,
            "source": self.gpu_hour.source,
            "overhead_fraction": self.overhead_fraction,
            "margin": self.margin,
            "bought_gpus": self.purchase.bought,
            "stranded_gpus": self.purchase.stranded,
        }


def gpu_hour(device: Gpu, wanted: Price) -> GpuHour:
    """The GPU-hour that a scenario's `price` asks for: its own, its tier, or the catalog's default tier. Of prices by
    the hour the mean of the day.

    Raises UnknownName where the GPU has no such tier, or none at all.
    """
    if wanted.usd_per_gpu_hour is not None:
        return GpuHour(wanted.usd_per_gpu_hour, OWN_PRICE, None, "the scenario", device.gpus_per_node)
    if wanted.hours is not None:
        usd = mean_of_day(wanted.hours)
        return GpuHour(usd, OWN_PRICE, None, "the scenario, by the hour", device.gpus_per_node)
    prices = read("prices.yaml")
    tiers = prices["usd_per_gpu_hour"].get(device.name, {})
    default = prices["default_tier"]["value"]
    tier = wanted.tier or (default if default in tiers else next(iter(tiers), default))
    if tier not in tiers:
        nearest = catalog.nearest_names(tier, tiers) or ("price.usd_per_gpu_hour",)
        raise catalog.UnknownName(f"price tier of {device.name}", tier, nearest)
    fact = tiers[tier]
    at_once = prices["tiers"][tier]["value"]
    unit = device.scale_up_domain if at_once == "scale_up_domain" else device.gpus_per_node
    title = read("sources.yaml")[fact["source"]]["title"]
    return GpuHour(fact["value"], tier, str(fact["as_of"]), title, unit, fact.get("note"))


def purchase(gpus: int, unit: int) -> Purchase:
    """Whole units of `unit` GPUs that hold `gpus`: a lower bound, as if pools shared nodes wherever they can."""
    return Purchase(used=gpus, bought=-(-gpus // unit) * unit, unit=unit)


def rates(device: Gpu, wanted: Price) -> Rates:
    """What a scenario's `price` asks for GPUs at every hour, and for those that it reserves. Raises UnknownName."""
    usd, reserved = gpu_hour(device, wanted).usd, wanted.reserved
    if reserved is None:
        return Rates(usd, wanted.hours or ())
    own = gpu_hour(device, Price(tier=reserved.tier, usd_per_gpu_hour=reserved.usd_per_gpu_hour))
    return Rates(usd, wanted.hours or (), reserved.gpus, own.usd)


def _always(gpus: int, unit: int, at: Rates) -> Purchase:
    """What is bought for GPUs that are held all the time: those, and reserved ones beyond."""
    held = purchase(gpus, unit)
    if not at.reserved:
        return held
    bought = max(held.bought, at.reserved)
    usd = at.reserved * at.reserved_usd + (bought - at.reserved) * at.usd
    return replace(held, bought=bought, dearer=usd / (bought * at.usd))


def storage_usd_per_hour(cache: PrefixCachePlan | None, wanted: Price) -> float:
    """Host memory and disks of the prefix cache: units of its scope x GB x USD per GB-month / 730 h."""
    if cache is None:
        return 0.0
    listed = values(read("prices.yaml")["usd_per_gb_month"])
    rates = {"host": wanted.host_usd_per_gb_month, "disk": wanted.disk_usd_per_gb_month}
    size_gb = {"host": cache.host_gb, "disk": cache.disk_gb}
    monthly = sum(
        gb * (listed[tier] if (rate := rates[tier]) is None else rate) for tier, gb in size_gb.items()
    )
    return cache.units * monthly / MONTH_HOURS


def allocate(pools: Mapping[str, PoolRecord], cached_tokens: float) -> dict[Activity, float]:
    """Share of the deployment's cost that each activity carries; the shares sum to 1.

    With G_p the GPUs of pool p and b_pa its busy GPU-seconds in activity a (prefill of new prompt tokens, decode,
    re-reading of cached prefixes), idle time follows the busy time that it stood beside:

        share_a = sum over p of  (G_p / sum over q of G_q) x (b_pa / sum over c of b_pc)

    A pool that never worked is carried by its role's tokens. Without cached tokens there is no one to pay for
    re-reading (of preempted sequences), and prefill carries it.
    """
    total = sum(pool.gpus for pool in pools.values())
    share: dict[Activity, float] = {"prefill": 0.0, "decode": 0.0, "cached": 0.0}
    for role, pool in pools.items():
        weight = pool.gpus / total
        busy = sum(pool.busy_gpu_s.values())
        if busy == 0:
            share[IDLE_ROLE[role]] += weight
            continue
        for activity in share:
            share[activity] += weight * pool.busy_gpu_s.get(activity, 0.0) / busy
    if cached_tokens == 0:
        share["prefill"] += share["cached"]
        share["cached"] = 0.0
    return share


def price(record: RunRecord, deployment: Deployment) -> RunPrice:
    """What the run's deployment cost, and what the tokens of the measurement window must sell for.

    See `price_tokens`: hours and tokens are those of the window. Of a service that goes on that is a steady one, since
    the run's start and its drain would make tokens dearer the shorter the run is; work that ends is paid for until its
    last answer (`sim.cluster.window.is_steady` tells them apart). The GPU-seconds of the window are its tokens times
    what a token of their kind took over the whole run: work and token need not fall on the same side of its edge.
    An empty window has no prices. `hours` of the result are the whole run's, from 0 to its end.

    Where workers come and go, GPUs are paid for while a worker holds them, at each moment in whole units; of a fleet
    all replicas count, with tokens in proportion. Prices by the hour of the day are those of the window's hours.
    """
    served, scale = tokens_in_window(record), copies(record)
    gpus: Mapping[str, Any] = mean_gpus(record)  # a mean where workers come and go
    inside = _shares(served, tokens_in_window(replace(record, window_s=(0.0, record.end_s))))
    served = Tokens(served.cached * scale, served.uncached * scale, served.output * scale)
    pools = {}
    for role, pool in record.pools.items():
        busy_s = {activity: seconds * inside[activity] for activity, seconds in pool.busy_gpu_s.items()}
        pools[role] = replace(pool, gpus=gpus[role], busy_gpu_s=busy_s)
    wanted = record.scenario.price
    unit, at = gpu_hour(deployment.gpu, wanted).unit_gpus, rates(deployment.gpu, wanted)
    paid, buy = bill(record, at, unit), None
    start_s, end_s = paid_window_s(record)
    if record.life is not None:
        mean = paid.bought(start_s, end_s) / (end_s - start_s) if end_s else 0.0
        buy = Purchase(sum(gpus.values()), mean, unit, paid.dearer(start_s, end_s))
    elif end_s:
        buy = replace(_always(sum(gpus.values()), unit, at), dearer=paid.dearer(start_s, end_s))
    priced = price_tokens(deployment, wanted, pools, window_length_s(record) / HOUR_S, served, buy)
    gpu_usd = priced.usd_per_hour - priced.storage_usd_per_hour
    charged = priced.purchase.bought * priced.purchase.dearer
    by_hour = tuple(
        (paid.charged(*ends) * gpu_usd / charged + (ends[1] - ends[0]) * priced.storage_usd_per_hour) / HOUR_S
        for ends in hours(record)
    )
    return replace(priced, hours=record.end_s / HOUR_S, usd_by_hour=by_hour)


def _shares(part: Tokens, whole: Tokens) -> dict[str, float]:
    """`part` over `whole` by the activity that the tokens pay for; re-reading where nothing was cached is prefill."""
    prefill = part.uncached / whole.uncached if whole.uncached else 0.0
    return {
        "prefill": prefill,
        "decode": part.output / whole.output if whole.output else 0.0,
        "cached": part.cached / whole.cached if whole.cached else prefill,
    }


def price_tokens(
    deployment: Deployment, wanted: Price, pools: Mapping[str, PoolRecord], hours: float, served: Tokens,
    buy: Purchase | None = None,
) -> RunPrice:  # fmt: skip
    """What the pools cost over `hours`, and what the tokens that they served must sell for.

        USD per hour     = bought GPUs x USD per GPU-hour x (1 + overhead_fraction) + storage
        USD per million  = 1e6 x hours x (share_a x GPU USD per hour + storage_a) / tokens_a / (1 - margin)

    tokens_a: uncached input for prefill, output for decode, cached input for cached; `share_a` see `allocate`.
    Cached input carries the storage of the prefix cache, too, or uncached input where nothing was found.
    Utilisation is inside: idle and stranded GPUs are paid for by the tokens that were served. `buy`: default the least
    that holds the pools.
    """
    rate = gpu_hour(deployment.gpu, wanted)
    overhead = wanted.overhead_fraction
    if overhead is None:
        overhead = read("prices.yaml")["overhead_fraction"]["value"]
    gpus = sum(pool.gpus for pool in pools.values())
    buy = buy or _always(gpus, rate.unit_gpus, rates(deployment.gpu, wanted))
    if wanted.reserved is not None:
        tier = f"{rate.tier}, {wanted.reserved.gpus:,} GPUs reserved at {wanted.reserved.tier or OWN_PRICE}"
        rate = replace(rate, tier=tier)
    rate = replace(rate, usd=rate.usd * buy.dearer)
    gpu_usd, storage_usd = (
        buy.bought * rate.usd * (1 + overhead),
        storage_usd_per_hour(deployment.prefix_cache, wanted),
    )
    usd: dict[Activity, float] = {
        activity: share * gpu_usd for activity, share in allocate(pools, served.cached).items()
    }
    usd["cached" if served.cached else "prefill"] += storage_usd

    def per_million(part_usd: float, tokens: float) -> float | None:
        sold_usd = part_usd * hours / (1 - wanted.margin)
        return sold_usd / tokens * MILLION if tokens and part_usd else None

    return RunPrice(
        gpu_hour=rate,
        purchase=buy,
        overhead_fraction=overhead,
        margin=wanted.margin,
        hours=hours,
        storage_usd_per_hour=storage_usd,
        usd_per_hour=gpu_usd + storage_usd,
        usd_per_million=TokenPrices(
            input_cache_hit=per_million(usd["cached"], served.cached),
            input_cache_miss=per_million(usd["prefill"], served.uncached),
            output=per_million(usd["decode"], served.output),
            blended=per_million(gpu_usd + storage_usd, served.all),
        ),
    )
