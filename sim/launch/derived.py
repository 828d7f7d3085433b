"""What one launch command says in the terms of a scenario, each value with the flag or the default behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sim import catalog
from sim.catalog import Gpu, LaunchDefaults, Model
from sim.launch.arguments import Told
from sim.launch.command import Command
from sim.launch.model_names import Checkpoint, beside_nvfp4, with_drafter
from sim.launch.words import fail
from sim.model.attention import chooses_keys
from sim.model.attention.csa import FP4_INDEX
from sim.scenario.errors import KeyPath, Place
from sim.scenario.prefix_cache import PrefixCache

Role = Literal["serve", "prefill", "decode"]

QUANTIZATIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("fp8", "modelopt", "modelopt_fp8", "w8a8_fp8", "ptpc_fp8", "fbgemm_fp8"), "fp8"),
    **dict.fromkeys(("modelopt_fp4", "nvfp4_online", "nvfp4", "petit_nvfp4"), "nvfp4"),
}
"""What engines call a format of the weights -> what a scenario calls it."""
BLOCK_TOKENS: Final[int] = PrefixCache.model_fields["block_tokens"].default
"""Of a prefix cache where a scenario says nothing."""
MTP_METHODS: Final = ("mtp", "nextn")
"""What the name of a method, or of a draft checkpoint, has where the drafts are the model's own MTP module's."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A value and where it comes from."""

    value: Any
    why: str
    place: Place


@dataclass(frozen=True)
class Machine:
    """What a command runs on, and what its engine does by itself."""

    checkpoint: Checkpoint
    named: str
    """What names the checkpoint."""
    model: Model
    gpu: Gpu
    defaults: LaunchDefaults
    nodes: int | None
    """Nodes that the user says there are."""

    @property
    def by_default(self) -> str:
        """Whose default a value is."""
        return f"default of {self.defaults.engine} {self.defaults.release}"


@dataclass
class Derived:
    """One command as a pool, and what it says of the whole scenario."""

    command: Command
    machine: Machine
    role: Role
    worker: tuple[str, ...] = ()
    """What tells its worker from others: commands of one worker's nodes share it."""
    pool: dict[str, Noted] = field(default_factory=dict)
    keys: dict[KeyPath, Noted] = field(default_factory=dict)
    not_modelled: list[Told] = field(default_factory=list)
    host_ratio: Noted | None = None
    """The host's prefix cache as a multiple of the GPU's."""

    def put(self, key: str, value: Any, why: str, *settings: str) -> None:
        """A key of the pool; `settings` are those that it follows from, for the place."""
        self.pool[key] = Noted(value, why, self.command.where(*settings))

    def say(self, path: KeyPath, value: Any, why: str, *settings: str) -> None:
        """A key of the scenario."""
        self.keys[path] = Noted(value, why, self.command.where(*settings))

    def tell(self, flag: str, why: str) -> None:
        """A flag that matters and that no key can hold."""
        self.not_modelled.append(Told(flag, why))


def layout(found: Derived, gpus: int, tp: int, ep: int, why: Mapping[str, str]) -> None:
    """GPUs, attention TP and EP of a worker, with the reason for each.

    Raises ScenarioError where the worker does not fit its nodes.
    """
    found.put("gpus", gpus, why["gpus"], "tp", "dp")
    found.put("tp", tp, why["tp"], "tp", "dp")
    found.put("ep", ep, why["ep"], "ep", "a2a", "tp")
    _check_nodes(found, gpus)


def _check_nodes(found: Derived, gpus: int) -> None:
    """A worker's GPUs against the nodes that the command or the user names, and the GPUs that it may see."""
    command, gpu = found.command, found.machine.gpu
    said = command.said("tp", "dp") or "the layout"
    nodes = command.value("nnodes")
    place = command.where("tp", "dp")
    if nodes and gpus % nodes:
        raise fail(command.where("nnodes"), f"{command.said('nnodes')} does not divide {gpus} GPUs ({said})")
    if nodes and gpus // nodes > gpu.gpus_per_node:
        needed = -(-gpus // gpu.gpus_per_node)
        raise fail(
            place,
            f"{said} takes {gpus} GPUs, {gpus // nodes} on each of {nodes} node(s); {gpu.name} has "
            f"{gpu.gpus_per_node} in a node: {needed} nodes would do",
        )
    if found.machine.nodes and gpus > found.machine.nodes * gpu.gpus_per_node:
        raise fail(
            place,
            f"{said} takes {gpus} GPUs; {found.machine.nodes} node(s) of {gpu.name} have "
            f"{found.machine.nodes * gpu.gpus_per_node}",
        )
    visible = command.given("visible")
    here = min(gpus // nodes if nodes else gpus, gpu.gpus_per_node)
    if visible and visible.value and len(visible.value.split(",")) < here:
        raise fail(place, f"{said} takes {here} GPUs on a node; {visible.said} shows fewer")


def divides(found: Derived, size: int, total: int, *names: str) -> None:
    """Raises ScenarioError naming the flag whose `size` does not divide `total`."""
    command = found.command
    if size < 1 or total % size:
        whole = command.said("tp") or f"{total} GPUs"
        raise fail(command.where(*names), f"{command.said(*names)} does not divide {total} ({whole})")


def seats(found: Derived, per_rank: int, tp: int, why: str, *settings: str) -> None:
    """Running sequences of an attention-DP rank of `tp` GPUs; per GPU, where they divide."""
    shares = f", over {tp} GPUs of a rank" if tp > 1 else ""
    if per_rank % tp:
        found.put("max_batch_per_rank", per_rank, f"{why}{shares}, which they do not divide over", *settings)
    else:
        found.put("max_batch_per_gpu", per_rank // tp, f"{why}{shares}", *settings)


def weights(found: Derived) -> None:
    """Formats of the weights: the flag's, else the checkpoint's."""
    command, machine = found.command, found.machine
    form, why = machine.checkpoint.weights, f"the checkpoint, {machine.named}"
    if machine.checkpoint.odd:
        found.tell(machine.named, f"weights in {machine.checkpoint.odd} are priced as {form}")
    asked = command.value("quantization")
    if isinstance(asked, str) and asked.lower() in QUANTIZATIONS:
        form, why = QUANTIZATIONS[asked.lower()], command.said("quantization")
    elif isinstance(asked, str) and asked.lower() not in ("none", "compressed-tensors"):
        found.tell(command.said("quantization"), f"this format of the weights is priced as {form}")
    found.say(("precision", "weights"), form, why, "quantization", "model")
    if form == "nvfp4":
        source = f"as NVIDIA's NVFP4 checkpoints of {machine.model.name} have it"
        for name, beside in zip(("attention", "dense"), beside_nvfp4(machine.model), strict=True):
            found.say(("precision", name), beside, source, "quantization", "model")


def index_keys(found: Derived, in_fp4: bool, *settings: str) -> None:
    """`in_fp4`: the flags ask for index keys in MXFP4, which V4's have on GPUs with FP4 arithmetic. To be said after
    the format of the rest."""
    if not in_fp4:
        return
    machine, why = found.machine, found.command.said(*settings)
    if machine.model.compressed and machine.gpu.fp4_flop_per_s is not None:
        found.say(("precision", "kv_cache"), FP4_INDEX, why, *settings)
    else:
        found.tell(
            why,
            f"{machine.model.name} has no index keys in MXFP4 on {machine.gpu.name}; it has no effect here",
        )


def kv_cache(found: Derived) -> None:
    """Format of the KV cache: the flag's, else the engine's choice for the model and the GPU."""
    command, machine = found.command, found.machine
    asked = str(command.value("kv_dtype", "auto")).lower()
    if asked.startswith("fp8"):
        found.say(("precision", "kv_cache"), "fp8", command.said("kv_dtype"), "kv_dtype")
    elif asked in ("bf16", "bfloat16", "float16", "half", "fp16"):
        found.say(("precision", "kv_cache"), "bf16", command.said("kv_dtype"), "kv_dtype")
    else:
        name = "kv_cache_sparse" if chooses_keys(machine.model) else "kv_cache"
        name = "kv_cache_compressed" if machine.model.compressed else name
        default = machine.defaults.get(name)
        form = default[machine.gpu.generation] if isinstance(default, dict) else default
        if asked not in ("auto", "none"):
            found.tell(command.said("kv_dtype"), "no such format of the KV cache; priced as fp8")
            form = "fp8"
        found.say(("precision", "kv_cache"), form, command.said("kv_dtype") or machine.by_default, "kv_dtype")


def drafts(found: Derived, count: int, why: str, *settings: str) -> None:
    """Draft tokens per step, where the model has an MTP module for them."""
    if count and not found.machine.model.nextn:
        found.tell(why, f"{found.machine.model.name} has no MTP module; no drafts are priced")
        count = 0
    if count > 16:
        found.tell(why, "at most 16 drafts are priced")
        count = 16
    if count:
        count = _with_acceptance(found, count, why, *settings)
    found.say(("speculation", "draft_tokens"), count, why, *settings)


def _with_acceptance(found: Derived, count: int, why: str, *settings: str) -> int:
    """The drafts as far as somebody published how many are accepted: in general, or else for one task."""
    name = found.machine.model.name
    method = found.keys[at].value if (at := ("speculation", "method")) in found.keys else None
    published = catalog.acceptance_rows(name, method)
    if not published:
        found.tell(
            why, f"no accept length of {name} is published; none are priced. Say speculation.acceptance"
        )
        return 0
    if method == "dspark" and count > (longest := catalog.longest_block(name)):
        found.tell(why, f"longer blocks make no more tokens; {longest} drafts are priced")
        count = longest
    task, thinking = published[0]
    if task != catalog.GENERAL:
        reason = "nobody records what is accepted; published for this task"
        found.say(("speculation", "task"), task, reason, *settings)
        if thinking is not None:
            found.say(("speculation", "thinking"), thinking, reason, *settings)
    return count


def drafts_blocks(found: Derived, method: str) -> bool:
    """Whether `method` is DSpark, and the model has its drafter."""
    return method.lower() == "dspark" and bool(found.machine.model.dspark_modules)


def block_drafts(found: Derived, method: str, count: int | None, said: str, *settings: str) -> bool:
    """DSpark, where the model has such a drafter: whether `method` asks for it.

    `count`: drafts of a block; None: as the checkpoint has it."""
    model = found.machine.model
    if not drafts_blocks(found, method):
        return False
    found.say(("speculation", "method"), "dspark", said, *settings)
    if not (found.machine.checkpoint.drafts_blocks or found.command.given("spec_model")):
        release = with_drafter(found.machine.checkpoint.model)
        found.tell(
            found.machine.named,
            f"its checkpoint has no drafter of blocks; that of {release} has, and is priced",
        )
    drafts(found, model.dspark_block if count is None else count, said, *settings)
    return True


def is_mtp(name: str) -> bool:
    """Whether a method or a draft checkpoint is the model's own MTP module."""
    return any(method in name.lower() for method in MTP_METHODS)


def replicas(found: Derived, redundant: int, rebalanced: bool, why: str, static: bool = False) -> None:
    """Replicas of experts, as the pool's own `experts`; `static`: those of the first experts, as nobody balanced."""
    if not (redundant or rebalanced):
        return
    kept: dict[str, Any] = {"redundant": redundant} if redundant else {"placement": "global"}
    if static:
        kept["placement"] = "contiguous"
    found.put("experts", kept, why, "redundant", "eplb", "eplb_config", "load_balancer")


def balances(found: Derived, spread_by: str) -> bool:
    """Whether EPLB is on. Raises ScenarioError where no experts are spread for it, as the engines do."""
    command = found.command
    if command.value("eplb") and found.pool["ep"].value == 1:
        raise fail(command.where("eplb"), f"{command.said('eplb')} needs {spread_by}")
    return bool(command.value("eplb"))


def prefix_cache(found: Derived, enabled: bool, why: str) -> None:
    """The prefix cache of every rank."""
    command = found.command
    if not enabled:
        found.say(("prefix_cache", "enabled"), False, why, "no_prefix_cache", "prefix_cache")
        return
    found.say(("prefix_cache", "enabled"), True, why, "no_prefix_cache", "prefix_cache")
    found.say(("prefix_cache", "scope"), "rank", f"{found.machine.defaults.engine} caches rank by rank")
    machine, why = found.machine, command.said("block")
    block = command.value("block")
    if block is None and machine.model.compressed:
        block, why = (
            machine.defaults.get("block_tokens_compressed"),
            f"{machine.by_default} of {machine.model.name}",
        )
    if block not in (None, 0, 1, BLOCK_TOKENS):
        found.say(("prefix_cache", "block_tokens"), block, why, "block")


def single_stage(found: Derived) -> int:
    """Stages of a pipeline, which are taken as more tensor parallelism."""
    stages = int(found.command.value("pp", 1))
    if stages > 1:
        why = "stages of a pipeline are not modelled; its GPUs are taken as tensor parallelism instead"
        found.tell(found.command.said("pp"), why)
    return max(1, stages)
