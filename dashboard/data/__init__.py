"""Everything that the pages know: the only part of the dashboard that calls `sim`.

A scenario travels as its YAML text: what a page shows, what it saves and what a child process runs are one and the
same. What is wrong with anything that a user gave comes back as `BadInput`, whose text is for the page.
"""

from sim.report.look import Chart
from sim.report.terms import TERMS, meaning

__all__ = ["TERMS", "Chart", "meaning"]
