"""Server time of slider moves on the What-if page, for `make bench`: `python -m dashboard.moves` prints JSON.

The page runs under AppTest, in this process, with the compiled script kept as a server keeps it. A move's time is the
processor time of its run: what the page's own "Computed in" leaves out, the sidebar and the messages, is in it.
"""

import json
import logging
import statistics
import time
from pathlib import Path
from typing import Final
from unittest.mock import patch

import streamlit.testing.v1.local_script_runner as runner
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import AppTest

from dashboard.settings import CHOICES

PAGE: Final = Path(__file__).parent / "views" / "what_if.py"
SLIDERS: Final = {"r": 4, "i": 4, "o": 2, "b": 2}
"""Load, lengths and batch: the first of the choices that each is moved to."""
MOVES: Final = 5
"""Of each of them."""


def moves_s() -> dict[str, list[float]]:
    """Processor seconds of each move, by slider."""
    kept = ScriptCache()
    with patch.object(runner, "ScriptCache", lambda: kept):
        return _moves_s(AppTest.from_file(str(PAGE), default_timeout=600).run())


def _moves_s(app: AppTest) -> dict[str, list[float]]:
    spent: dict[str, list[float]] = {key: [] for key in SLIDERS}
    for key, first in SLIDERS.items():
        for value in CHOICES[key][first : first + MOVES]:
            app.select_slider(key=f"{key}_slider").set_value(value)
            began = time.process_time()
            app.run()
            spent[key].append(time.process_time() - began)
            if app.exception:
                raise RuntimeError(app.exception[0].message)
    return spent


def main() -> None:
    """Print the median of all moves, and that of each slider."""
    logging.disable(logging.WARNING)  # AppTest sets what a browser would, which Streamlit remarks on
    spent = moves_s()
    every = [seconds for moves in spent.values() for seconds in moves]
    by_slider = {f"move_{key}_s": statistics.median(moves) for key, moves in spent.items()}
    print(json.dumps({"moves": len(every), "move_s": statistics.median(every), **by_slider}))


if __name__ == "__main__":
    main()
