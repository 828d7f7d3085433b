"""The engine of a scenario: the catalog's defaults with what the scenario says instead."""

from dataclasses import replace
from typing import Any

from sim import catalog
from sim.catalog import Engine
from sim.deployment.anchored import anchor_of
from sim.scenario.schema import Scenario
from sim.units import GB_BYTES


def engine_of(scenario: Scenario) -> Engine:
    """The scenario's engine, with its `overlap`, `scheduling` and `indexer` applied, and its anchor's part of TTFT.

    Raises UnknownName.
    """
    overlap, scheduling, indexer = scenario.overlap, scenario.scheduling, scenario.indexer
    said: dict[str, Any] = {
        "shared_expert_overlap_prefill": overlap.shared_expert,
        "shared_expert_overlap_decode": overlap.shared_expert,
        "two_batch_overlap_prefill": overlap.two_batch,
        "two_batch_overlap_decode": overlap.two_batch,
        "host_overhead_s": scheduling.host_overhead_s,
        "communication_factor": scheduling.communication_factor,
        "cuda_graphs": scheduling.cuda_graphs,
        "prefill_graph_tokens": scheduling.prefill_graph_tokens,
        "prefill_graph_excludes": None if scheduling.prefill_graph_tokens is None else (),
        "draft_host_s": scheduling.draft_host_s,
        "fixed_ttft_aggregated_s": scheduling.ingress_s,
        "fixed_ttft_disaggregated_s": scheduling.ingress_s,
        "admission_interval_steps": scheduling.poll_every_steps,
        "admission_wait_steps": scheduling.wait_all_ranks_steps,
        "admission_gather_steps": scheduling.gather_prompts_steps,
        "batch_wait_steps": scheduling.batch_wait_steps,
        "batch_wait_fill": scheduling.batch_wait_fill,
        "admission_rest_steps": scheduling.rest_after_prompts_steps,
        "whole_prompts": scheduling.whole_prompts,
        "mixes_prefill_with_decode": scheduling.mix_prompts,
        "decode_poll_steps": scheduling.decode_poll_steps,
        "prefill_answers_between_steps": scheduling.waits_for_prefill_answer,
        "dsa_dense_threshold": indexer.dense_threshold,
        "index_logits_bytes": None if indexer.logits_gb is None else indexer.logits_gb * GB_BYTES,
    }
    engine = catalog.engine(scenario.engine, scenario.engine_version, scenario.precision.weights)
    engine = replace(engine, **{k: v for k, v in said.items() if v is not None})
    anchor = anchor_of(scenario)
    if anchor is None:
        return engine
    fixed = ("fixed_ttft_aggregated_s", "fixed_ttft_disaggregated_s")
    return replace(engine, **{name: max(0.0, getattr(engine, name) + anchor.ttft_added_s) for name in fixed})
