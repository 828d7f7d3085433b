"""Work in other processes: results in order, and a process that dies costs only its own input.

Every process that is started here reads this file anew: it imports nothing else.
"""

import os

from sim.parallel import Crew, each


def double(value: int) -> int:
    return 2 * value


def die_on_three(value: int) -> int:
    if value == 3:
        os._exit(1)
    return value


def lost(value: int) -> int:
    return -value


def test_results_come_in_order_and_a_dead_process_costs_only_its_own_input() -> None:
    assert list(each(double, range(5), 1, double)) == [0, 2, 4, 6, 8]
    assert list(each(die_on_three, range(6), 2, lost)) == [0, 1, 2, -3, 4, 5]


def test_a_crew_outlives_a_worker_that_dies() -> None:
    with Crew(2) as crew:
        assert list(crew.map(abs, [-1, 2, -3], lost)) == [1, 2, 3]
        assert list(crew.map(die_on_three, [2, 3, 4], lost)) == [2, -3, 4]
        assert list(crew.map(abs, [-4], lost)) == [4]
