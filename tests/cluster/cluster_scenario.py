"""The scenario that the tests of the cluster put into the run record; only router and warm-up matter to a run."""

from sim.scenario.schema import Scenario


def scenario(router="least_loaded", warmup_s=0.0, roles=("prefill", "decode")):
    return Scenario.model_validate(
        {
            "model": "deepseek-v3",
            "gpu": "h200_sxm",
            "deployment": {role: {"gpus": 8, "ep": 8} for role in roles},
            "router": router,
            "warmup_s": warmup_s,
            "workload": {
                "arrivals": {"poisson": {"rate_per_s": 1.0}},
                "lengths": {"input": {"constant": 1}, "output": {"constant": 1}},
                "requests": 1,
            },
        }
    )
