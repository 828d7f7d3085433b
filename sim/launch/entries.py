"""Where a launch command begins among the words of a statement, and commands that another one starts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sim.launch.shell import read_inside
from sim.launch.words import Statement, Word

MODULES: Final[Mapping[str, tuple[str, str]]] = {
    "vllm.entrypoints.openai.api_server": ("vllm", ""),
    "sglang.launch_server": ("sglang", ""),
    "dynamo.vllm": ("vllm", "dynamo"),
    "dynamo.sglang": ("sglang", "dynamo"),
    "dynamo.sglang.worker": ("sglang", "dynamo"),
    "dynamo.trtllm": ("trtllm", "dynamo"),
}
"""Python modules that start a server (`python -m`): engine, and what is wrapped around it."""
ROUTERS: Final = re.compile(
    r"sglang_router(\.launch_router)?|sglang\.srt\.disaggregation\.(mini_lb|launch_lb)|sgl-router|sglang-router|"
    r"vllm-router|vllm_router|dynamo\.frontend|.*proxy_server\.py"
)
IMAGES: Final = re.compile(r"(^|/)vllm-openai(:|@|$)")
"""Container images whose entry point is an engine's server."""
TAGS: Final = re.compile(
    r"(?:[^\s=]*=)?(?:[^\s=]*[/#])?(?P<name>sglang|vllm-openai|tensorrt-llm/release)"
    r":v?(?P<release>\d+\.\d+\.\d+(?:\.?(?:rc|post|dev|a|b)\d+)*)(?:[-+@]\S*)?"
)
"""Container images of the engines with a release as their tag, whatever is written after it (`v0.5.16-cu130`)."""
IN_IMAGE: Final[Mapping[str, str]] = {
    "sglang": "sglang",
    "vllm-openai": "vllm",
    "tensorrt-llm/release": "trtllm",
}
CONTAINERS: Final = re.compile(r"(^|/)(docker|podman|nerdctl)$")
ROUTER, DISAGGREGATED, NOTHING = "router", "trtllm-serve disaggregated", ""
"""Entries that are no engine: a router's command, TensorRT-LLM's, a part of an engine that serves no model."""
_STARTS: Final = ("vllm serve", "sglang serve", "trtllm-serve", "vllm-openai", "dynamo.frontend", *MODULES)
STARTS: Final = re.compile("|".join(map(re.escape, _STARTS)))
"""What a text has that may start a server."""
PRINTS: Final = ("echo", "printf")
_ENVIRONMENT: Final = re.compile(r"(?:--env=|-e)?([A-Za-z_]\w*)=")


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """What a command starts, and the place of its first argument among the words."""

    engine: str
    wrapper: str
    start: int


def entry(words: Sequence[Word]) -> EntryPoint | None:
    """The engine that a command starts, or one of the entries that are none; None: it starts nothing of it."""
    texts = [word.text for word in words]
    found = (_entry_at(texts, at) for at in range(len(texts)))
    first = next((one for one in found if one is not None), None)
    return first if first is None or first.engine != NOTHING else None


def _entry_at(texts: Sequence[str], at: int) -> EntryPoint | None:
    """The same for the word at one place."""
    text, after = texts[at], texts[at + 1] if at + 1 < len(texts) else ""
    base = text.rsplit("/", 1)[-1]
    module = after if text == "-m" else ""
    found: EntryPoint | None = None
    if ROUTERS.fullmatch(module or base):
        found = EntryPoint(ROUTER, "", at + (2 if module else 1))
    elif module in MODULES:
        found = EntryPoint(*MODULES[module], at + 2)
    elif base in ("vllm", "sglang") and after == "serve":
        found = EntryPoint(base, "", at + 2)
    elif base == "trtllm-serve" and after == "disaggregated":
        found = EntryPoint(DISAGGREGATED, "", at + 2)
    elif base == "trtllm-serve" and after in ("disaggregated_mpi_worker", "mm_embedding_serve", "grpc"):
        found = EntryPoint(NOTHING, "", at)
    elif base == "trtllm-serve":
        found = EntryPoint("trtllm", "", at + 1 + (after == "serve"))
    elif IMAGES.search(text) and "serve" not in texts[at:] and _runs_container(texts[:at]):
        found = EntryPoint("vllm", "", at + 1)
    return found


def _runs_container(texts: Sequence[str]) -> bool:
    """Whether the words before an image start it, and do not only fetch it."""
    return any(map(CONTAINERS.search, texts)) and ("run" in texts or "create" in texts)


@dataclass(frozen=True, slots=True)
class Image:
    """A container image of an engine, whose tag is a release."""

    engine: str
    release: str
    word: Word

    @property
    def name(self) -> str:
        """The image without the flag that it may stand behind."""
        return self.word.text.rpartition("=")[2]


def image(word: Word) -> Image | None:
    """The image that a word names, also behind its flag (`--container-image=...`); None where its tag is no release."""
    found = TAGS.fullmatch(word.text)
    return Image(IN_IMAGE[found["name"]], found["release"], word) if found else None


def assigned(words: Sequence[Word]) -> dict[str, Word]:
    """The environment that words before a command set: `NAME=VALUE`, `-e NAME=VALUE`, `--env=NAME=VALUE`."""
    found = {}
    for word in words:
        if pair := _ENVIRONMENT.match(word.text):
            found[pair[1]] = Word(word.text[pair.end() :], word.place, word.unknown)
    return found


def started(statement: Statement, text: str) -> tuple[Statement, ...]:
    """The statement; or those that it has another shell read (`bash -c "..."`, `ssh node '...'`), which start a server
    of an engine. `text`: where the statement stands."""
    if statement.words[0].text in PRINTS:
        return (statement,)
    for at, word in enumerate(statement.words):
        if not word.quoted or not STARTS.search(word.text) or len(word.text.split()) < 2:
            continue
        environment = {**statement.environment, **assigned(statement.words[:at])}
        inside = read_inside(word, text, environment)
        if any(entry(one.words) for one in inside):
            note = statement.note
            return tuple(
                replace(one, note=f"{note}\n{one.note}", environment={**environment, **one.environment})
                for one in inside
            )
    return (statement,)
