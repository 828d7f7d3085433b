"""What the selection of CSA's entries takes longer on equal scores, which V4's blocks were timed with, than on others.

The collector's caches are empty, so that all scores are equal: the selection's slowest case (all of them fall into the
last bin of its histogram), which no service sees. SGLang's kernels were timed by themselves on both (`score_mode`:
`flat`, and `top_last` with the best entries at the end); the difference is what a block's time is too long by
(aiconfigurator, `dsv4_csa_topk_calib`: "degenerate -> representative"). No other engine's were.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibrate.importers.source import Source

Floats = NDArray[np.float64]

FILE: Final = "v4_indexer_kernels"
TABLE: Final = "dsv4_csa_topk_calib"
KERNELS: Final = {"decode": "v2", "prefill": "v1"}
"""Which of SGLang's two kernels selects in a phase."""
SHAPE: Final = ["step", "isl", "batch_size"]


def equal_scores_ms(source: Source, named: str, phase: str, rows: pd.DataFrame) -> Floats:
    """Milliseconds that the selection of each row of a block's table took beyond that of unequal scores; shape (rows).

    `named`: the table's name of the model. Between the timed shapes of one prefix and length the largest batch that is
    no larger holds; zero where none was timed.
    """
    frame = source.rows(FILE, table=TABLE, model=named)
    kernel = KERNELS[phase]
    modes = [
        frame[frame.score_mode == f"{kernel}_{mode}"].groupby(SHAPE)["latency_ms"].median()
        for mode in ("flat", "top_last")
    ]
    longer = (modes[0] - modes[1]).dropna().clip(lower=0.0).rename("ms").reset_index()
    if longer.empty:
        return np.zeros(len(rows))
    wanted = rows[SHAPE].astype("int64").assign(at=range(len(rows))).sort_values("batch_size")
    timed = longer.astype(dict.fromkeys(SHAPE, "int64")).sort_values("batch_size")
    found = pd.merge_asof(wanted, timed, on="batch_size", by=["step", "isl"])
    return np.asarray(found.sort_values("at").ms.fillna(0.0), dtype=np.float64)
