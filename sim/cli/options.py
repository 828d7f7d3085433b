"""Errors of shared code in the words of a command: where a key is an option of it, the option is named."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sim.scenario.errors import DeploymentError, KeyPath, LocatedProblem, Place, ScenarioError


@contextmanager
def options(names: Mapping[KeyPath, str]) -> Iterator[None]:
    """Inside, what is wrong with one of these keys is told of the option that gave it, not of a place in a file."""
    try:
        yield
    except DeploymentError as error:
        if any(problem.path not in names for problem in error.problems):
            raise
        told = [LocatedProblem((), problem.message, Place(names[problem.path])) for problem in error.problems]
        raise ScenarioError(told) from None
