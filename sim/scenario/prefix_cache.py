"""The `prefix_cache` section of a scenario."""

from typing import Literal

from pydantic import Field

from sim.scenario.section import GB, Flag, Section, TokenCount, WholeTokens


class PrefixCache(Section):
    """Reuse of the KV cache of shared prompt prefixes."""

    enabled: Flag = Field(default=False, description="whether prompts look for cached prefixes")
    scope: Literal["rank", "worker", "cluster"] = Field(default="worker", description="what one cache serves")
    block_tokens: TokenCount = Field(default=64, description="tokens per hashed block")
    hbm_tokens: WholeTokens | None = Field(
        default=None,
        description="tokens cached in GPU memory per unit of scope; default: what the KV budget leaves",
    )
    host_gb: GB = Field(default=0.0, description="host memory per unit of scope, GB")
    disk_gb: GB = Field(default=0.0, description="disk per unit of scope, GB")
