"""Operations that move data between GPUs: what one GPU sends. See `sim.model.operations`."""

from sim.kernels import collectives, exchange
from sim.model.operations import Operation


def all_to_all(
    kind: exchange.Kind, tokens: float, ep: int, nodes: int, hidden: int, top_k: int,
    mode: str, copies: float, remote_copies: float, layers: int = 1,
) -> Operation:  # fmt: skip
    """DeepEP exchange: FP8 with scales out (7,392 bytes per copy for V3), BF16 back (14,336).

    `tokens` per rank; `copies` of each leave this GPU, `remote_copies` of them over the NIC: in low-latency mode
    one per chosen expert, in normal mode one per node touched and the rest forwarded over NVLink.
    """
    dtype = exchange.WIRE[kind]
    shape = {
        "tokens": tokens, "ep": ep, "nodes": nodes, "hidden": hidden, "top_k": top_k,
        "remote_bytes": exchange.sent(tokens, remote_copies, hidden, dtype),
    }  # fmt: skip
    name = f"{kind} ({mode.replace('_', '-')})"
    traffic = exchange.sent(tokens, copies, hidden, dtype)
    return Operation(
        name,
        "communication",
        kind,
        shape,
        dtype,
        0.0,
        traffic,
        layers,
        stream="exchange",
        options={"mode": mode},
    )


def collective(
    kind: collectives.Kind,
    name: str,
    size_bytes: float,
    gpus: float,
    layers: int = 1,
) -> Operation:
    """Collective over `gpus` of a tensor of `size_bytes` (the whole tensor, before or after the exchange)."""
    shape = {"bytes": size_bytes, "gpus": gpus}
    sent = collectives.ring_bytes(kind, size_bytes, gpus)
    return Operation(name, "communication", kind, shape, "bf16", 0.0, sent, layers)
