"""Traces as text: a head, a line, and how they are loaded."""

from pathlib import Path

from sim.workload import trace

HEADER = "arrival_s,input_tokens,output_tokens\n"
MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'


def load(folder: Path, text: str, name: str = "t.csv") -> trace.Trace:
    (folder / name).write_text(text)
    return trace.load(name, 0, folder)
