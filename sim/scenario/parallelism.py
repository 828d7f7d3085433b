"""`dp` of a pool: the attention's data parallelism, instead of `tp` or beside it; always gpus / tp."""

from pydantic import ValidationInfo

from sim.scenario.section import whole


def tp_from_dp(value: object) -> object:
    """A pool's data with the `tp` that follows where only `dp` is given; what does not divide is left to the check."""
    if not isinstance(value, dict) or value.get("tp") is not None:
        return value
    gpus, dp = whole(value.get("gpus")), whole(value.get("dp"))
    if type(gpus) is int and type(dp) is int and dp > 0 and gpus % dp == 0:
        return {**value, "tp": gpus // dp}
    return value


def dp_times_tp(dp: int | None, info: ValidationInfo) -> int | None:
    """`dp`, if tp x dp are the pool's gpus. Raises ValueError, which says what would do."""
    gpus, tp = info.data.get("gpus"), info.data.get("tp")
    if dp is None or gpus is None or tp is None or dp * tp == gpus:
        return dp
    if gpus % dp:
        raise ValueError(f"dp {dp} does not divide gpus {gpus}")
    meant = f"expected tp {gpus // dp}" + (f", or dp {gpus // tp}" if gpus % tp == 0 else "")
    # SGLang's --tp counts all GPUs of a worker, those of the attention's data parallelism included.
    flags = f"; SGLang's `--tp {tp} --dp {dp}` is tp {gpus // dp}, dp {dp} here" if tp == gpus else ""
    raise ValueError(f"tp {tp} x dp {dp} is {tp * dp}, not gpus {gpus}; {meant}{flags}")
