"""What stands in front of the workers: a router's policy, and the addresses of the workers behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sim.launch.option_files import Files
from sim.launch.words import Word
from sim.scenario.errors import ScenarioError
from sim.scenario.tree import Node, plain

POLICY: Final = ("--policy", "--prefill-policy", "--router-mode")
PREFILLS: Final = ("--prefill", "--prefiller-ports", "--prefiller-port", "--prefill-ports")
DECODES: Final = ("--decode", "--decoder-ports", "--decoder-port", "--decode-ports")
DYNAMO: Final = "dynamo.frontend"
DYNAMO_POLICY: Final = "round-robin"
"""Of Dynamo's frontend without `--router-mode` (common/configuration/groups/router_args.py, 2026)."""
SERVERS: Final[Mapping[str, str]] = {"prefill": "context_servers", "decode": "generation_servers"}
"""Sections of the file of `trtllm-serve disaggregated` (examples/disaggregated/disagg_config.yaml)."""


@dataclass(frozen=True)
class RouterCommand:
    """The command of a router in front of the workers."""

    policy: str | None
    prefills: tuple[str, ...]
    decodes: tuple[str, ...]
    """Addresses of the workers, as they were typed."""
    said: str
    """What says the policy."""
    unread: ScenarioError | None = None
    """Why the file that names the workers could not be read."""


def read_router(words: Sequence[Word], start: int) -> RouterCommand:
    """What matters of a router: its policy and its workers. Its other flags are not read.

    start: of its arguments among the words.
    """
    texts = [part for word in words[start:] for part in _parted(word.text)]
    found: dict[str, list[str]] = {"policy": [], "prefill": [], "decode": []}
    names = dict.fromkeys(POLICY, "policy")
    names |= dict.fromkeys(PREFILLS, "prefill") | dict.fromkeys(DECODES, "decode")
    said = ""
    for at, text in enumerate(texts):
        key = names.get(text)
        for value in texts[at + 1 :] if key else ():
            if value.startswith("-") or (value.isdigit() and text in ("--prefill", "--decode")):
                break  # a bootstrap port follows the address
            found[str(key)].append(value)
        if key == "policy" and not said:
            said = " ".join(texts[at : at + 2])
    policy = found["policy"][0] if found["policy"] else None
    if policy is None and words[start - 1].text == DYNAMO:
        policy, said = DYNAMO_POLICY, f"default of {DYNAMO}"
    return RouterCommand(policy, tuple(found["prefill"]), tuple(found["decode"]), said)


def _parted(text: str) -> list[str]:
    """`--flag=value` as two words."""
    return text.split("=", 1) if text.startswith("--") else [text]


def read_servers(words: Sequence[Word], start: int, files: Files) -> RouterCommand:
    """The addresses and the policy in the file of `trtllm-serve disaggregated`."""
    texts = [part for word in words[start:] for part in _parted(word.text)]
    place = words[start - 1].place
    named = next(
        (at for at, text in enumerate(texts) if text in ("-c", "--config_file", "--config-file")), None
    )
    if named is None or named + 1 >= len(texts):
        return RouterCommand(None, (), (), "")
    try:
        keys = files.read(texts[named + 1], place)
    except ScenarioError as unread:
        return RouterCommand(None, (), (), "", unread)
    sections = {role: _section(keys, name) for role, name in SERVERS.items()}
    addresses = {role: tuple(map(str, _list(section.get("urls")))) for role, section in sections.items()}
    policies = [router["type"] for s in sections.values() if (router := s.get("router")) and "type" in router]
    policy = str(policies[0]) if policies else None
    return RouterCommand(
        policy, addresses["prefill"], addresses["decode"], f"router.type {policy} ({texts[named + 1]})"
    )


def _section(keys: Mapping[str, Node], name: str) -> dict[str, Any]:
    value = plain(keys[name]) if name in keys else None
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
