"""The last look at a scenario that was read: does it pass the check, and if not, which flag is behind it?"""

from collections.abc import Mapping, Sequence
from typing import Final

from sim.deployment.plan import Deployment, deploy
from sim.deployment.room import running_blocks
from sim.launch.arguments import Told
from sim.launch.derived import Noted
from sim.launch.document import to_text
from sim.launch.placeholders import LONGEST, shorter
from sim.scenario.errors import DeploymentError, KeyPath, LocatedProblem, Problem, ScenarioError, dotted
from sim.scenario.loading import parse
from sim.step.pricing import check_backends

DROPPED: Final = {
    "memory_fraction": "{value} ({why}) leaves no room for the KV cache: the engine would not start "
    "without its memory flag; the catalog's rule is taken",
    "moe_backend": "{value} is not priced here ({problem}); the profile's choice is taken",
}
"""Keys without which the rest may pass, and what is said of them."""


def checked(keys: dict[KeyPath, Noted], told: list[Told], name: str) -> dict[KeyPath, Noted]:
    """The keys, which pass the check; what the engine would do by itself and does not fit here is dropped and told.

    Raises ScenarioError at the flag behind the key that is wrong.
    """
    while True:
        data = {path: (noted.value, noted.why) for path, noted in keys.items()}
        try:
            scenario = parse(to_text((), data, ()), name).scenario
        except ScenarioError as error:  # a value out of its range
            raise _at_flags([Problem(p.path, p.message) for p in error.problems], keys, told) from None
        try:
            deployment = deploy(scenario)
            if any(path[-1] == "moe_backend" for path in keys):
                check_backends(deployment)
        except DeploymentError as error:
            dropped = {path: problem for problem in error.problems for path in _droppable(problem, keys)}
            if not dropped:
                raise _at_flags(error.problems, keys, told) from None
            for path, problem in dropped.items():
                noted = keys.pop(path)
                flag = noted.why if path[-1] == "moe_backend" else dotted(path)
                why = DROPPED[str(path[-1])].format(value=noted.value, why=noted.why, problem=problem.message)
                told.append(Told(flag, why))
        else:
            room = _room(deployment)
            return keys if room >= LONGEST else shorter(keys, room)


def _room(deployment: Deployment) -> int:
    """Tokens of the longest request that every pool can hold."""
    blocks = running_blocks(deployment)
    memory = {role: plan.memory for role, plan in deployment.pools.items()}
    return min((count - memory[r].request_blocks) * memory[r].block_tokens for r, count in blocks.items())


def _droppable(problem: Problem, keys: Mapping[KeyPath, Noted]) -> list[KeyPath]:
    """Keys that may go so that the rest passes: kernels that nobody measured, and memory by an engine's own rule."""
    if problem.path in keys and problem.path[-1] == "moe_backend":
        return [problem.path]
    memory = (*problem.path, "memory_fraction")
    return [memory] if memory in keys and keys[memory].why.startswith("default of") else []


def _at_flags(
    problems: Sequence[Problem], keys: Mapping[KeyPath, Noted], told: Sequence[Told]
) -> ScenarioError:
    """Problems of the scenario at the flags that they follow from, and the flags that nobody knows: a misspelt one
    may be the cause."""

    def located(problem: Problem) -> LocatedProblem:
        path = problem.path
        below = (noted for known, noted in keys.items() if known[: len(path)] == path)
        noted = keys.get(path) or next(below, keys[("model",)])
        said = f" (from {noted.why})" if path in keys else ""
        return LocatedProblem((), f"{dotted(path)}: {problem.message}{said}", noted.place)

    unknown = [
        LocatedProblem((), f"{one.flag}: {one.why}", one.unknown) for one in told if one.unknown is not None
    ]
    return ScenarioError([*(located(problem) for problem in problems), *unknown])
