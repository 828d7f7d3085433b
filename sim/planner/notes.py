"""What an answer to a plan says beside its numbers: pins that cannot be, promises that no scenario knows."""

from collections.abc import Iterator

from sim.planner.question import Question, scenario_objectives
from sim.planner.search import Found


def lost_pins(found: Found) -> Iterator[str]:
    """Values that the question pins and that divide no worker of their pool, and pools that no worker is left of."""
    for role, keys in found.question.pinned.items():
        refused = [r for r in found.refused if r.job.role == role]
        built = [e for e in found.entries if role in e.screened.candidate.pools]
        kind = "aggregated" if role == "serve" else "disaggregated"
        end = "" if built or not refused else f"; so no layout is {kind}"
        at_fault = [
            (key, value) for key, values in keys.items() for value in values
            if _divides_none(found, role, key, value)
        ]  # fmt: skip
        for key, value in at_fault:
            gpus = sorted({int(r.job.shape["gpus"]) for r in refused if r.job.shape.get(key) == value})
            told = f"divides no worker of the search ({', '.join(map(str, gpus))} GPUs)"
            yield f"deployment.{role}.{key} {value} {told}{end}"
        if end and found.entries and not at_fault:
            largest = max(refused, key=lambda r: int(r.job.shape["gpus"]))
            yield f"deployment.{role}: no worker of {largest.job.shape['gpus']} GPUs: {largest.why}{end}"


def _divides_none(found: Found, role: str, key: str, value: object) -> bool:
    """Whether every worker that would have the value is refused for it."""
    reasons = [r.why for r in found.refused if r.job.role == role and r.job.shape.get(key) == value]
    built = (e.screened.candidate.pools.get(role, {}).get(key) for e in found.entries)
    return (
        bool(reasons)
        and value not in built
        and all(f"{key} {value} does not divide" in why for why in reasons)
    )


def unheard_promises(question: Question) -> list[str]:
    """Keys of objectives that a plan keeps and no scenario can say."""
    return [one.key for one in question.objectives if one.key not in scenario_objectives()]


def promises_left_out(question: Question) -> Iterator[str]:
    """That the winner's scenario lacks them, and where to look."""
    if left := unheard_promises(question):
        known = ", ".join(scenario_objectives())
        yield (
            f"{', '.join(f'objectives.{key}' for key in left)}: kept by the plan, but not in the winner's scenario, "
            f"which takes {known} alone; `objectives` of the plan's answer has what was found"
        )


def heading(question: Question) -> str:
    """Of the winner's file: what it was planned for, as comments."""
    said = ", ".join(f"{one.key}: {one.bound_s:g}" for one in question.objectives)
    lines = [f"# Planned for objectives {{{said}}}."]
    if left := unheard_promises(question):
        lines += [
            f"# A scenario has no objectives of the kind of {', '.join(left)}: a run does not judge them."
        ]
    return "\n".join(lines) + "\n"
