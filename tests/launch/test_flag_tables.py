"""The tables of flags: each spelling once, each setting read by a rule, each reason a sentence."""

import inspect
import re
from collections import Counter
from importlib import resources
from types import ModuleType

import pytest
import yaml

from sim.launch import (
    command,
    derived,
    indexer,
    placeholders,
    pools,
    read,
    sglang,
    sglang_exchange,
    sglang_experts,
    sglang_graphs,
    sglang_memory,
    sides,
    trtllm,
    vllm,
)
from sim.launch.arguments import IDENTITIES
from sim.launch.table import table

RULES: dict[str, ModuleType] = {"sglang": sglang, "vllm": vllm, "trtllm": trtllm}
SHARED = (
    command,
    derived,
    indexer,
    placeholders,
    pools,
    read,
    sglang_exchange,
    sglang_experts,
    sglang_graphs,
    sglang_memory,
    sides,
)


def data(engine: str) -> dict:
    return yaml.safe_load(resources.files("sim.launch.flags").joinpath(f"{engine}.yaml").read_text())


@pytest.mark.parametrize("engine", RULES)
def test_a_flag_stands_once_and_has_a_reason(engine: str) -> None:
    known = data(engine)
    names = [name for entry in known["settings"].values() for name in (entry["flag"], *entry.get("also", ()))]
    for fate in ("not_modelled", "ignored"):
        for group in known[fate]:
            assert len(group["why"]) > 10
            assert set(group) <= {"why", "switch", "value", "words"}
            names += [name for takes in ("switch", "value", "words") for name in group.get(takes, ())]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert set(known["neutral"]) <= set(names)
    assert known["source"] and known["release"]
    # Underscores only where keys of a file have them.
    assert [name for name in names if name.startswith("--") and "_" in name] == []


@pytest.mark.parametrize("engine", RULES)
def test_every_setting_is_read_by_a_rule_and_no_rule_reads_another(engine: str) -> None:
    around = data("dynamo")[engine].get("settings", {})
    settings = (
        set(data(engine)["settings"]) | set(data(engine)["environment"]["settings"].values()) | set(around)
    )
    own = inspect.getsource(RULES[engine])
    everywhere = own + "".join(inspect.getsource(module) for module in SHARED)
    unread = {name for name in settings if f'"{name}"' not in everywhere}
    assert unread <= IDENTITIES  # they are there so that a variable in them does no harm
    asked = set(re.findall(r'command\.(?:value|given|said)\("(\w+)"', own))
    assert asked - settings == set()


COUNTS = {"sglang": 570, "vllm": 370, "trtllm": 230}


@pytest.mark.parametrize("engine", RULES)
def test_the_tables_are_those_of_whole_releases(engine: str) -> None:
    assert len(table(engine).flags) >= COUNTS[engine]
