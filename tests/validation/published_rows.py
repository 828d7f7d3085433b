"""Rows with the columns of the published table, by hand."""

from pathlib import Path

COLUMNS = (
    "row_id,hardware,framework,precision,spec,disagg,decode_tp,decode_ep,decode_dp_attn,total_gpu,isl,osl,conc,"
    "median_tpot_ms,mean_tpot_ms,median_ttft_ms,output_tput_per_gpu,tput_per_gpu_total,date,quality,little_ratio,"
    "deployment_id,image"
)
GOOD = {
    "row_id": "A", "hardware": "h200", "framework": "sglang", "precision": "fp8", "spec": "none", "disagg": 0,
    "decode_tp": 8, "decode_ep": 1, "decode_dp_attn": 0, "total_gpu": 8, "isl": 1024, "osl": 1024, "conc": 4,
    "median_tpot_ms": 11.5, "median_ttft_ms": 90.0, "output_tput_per_gpu": 40.0, "tput_per_gpu_total": 80.0,
    "date": "2026-03-25", "quality": "measured", "little_ratio": 0.95, "deployment_id": "860d992b92",
}  # fmt: skip


def table(path: Path, *changes: dict) -> Path:
    """A CSV file with one good row per change, the change applied; ids A, B, C, ..."""
    names = COLUMNS.split(",")
    lines = [COLUMNS]
    for number, change in enumerate(changes):
        row = {**GOOD, "row_id": chr(ord("A") + number), **change}
        lines.append(",".join("" if row.get(name) is None else str(row[name]) for name in names))
    path.write_text("\n".join(lines) + "\n")
    return path


def own(folder: Path, **change: object) -> Path:
    """A table of somebody else, with columns that ours has not."""
    row = {
        "row_id": "X", "model": "DeepSeek-R1-0528", "hardware": "b200", "framework": "trt", "precision": "fp8",
        "spec": "none", "disagg": 0, "decode_tp": 8, "decode_ep": 8, "decode_dp_attn": 0, "total_gpu": 8, "isl": 1024,
        "osl": 1024, "conc": 16, "median_tpot_ms": 9.0, "rack": "A7", "driver": "580.1", **change,
    }  # fmt: skip
    path = folder / "own.csv"
    path.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    return path
