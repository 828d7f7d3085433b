"""The clock: SimPy lets time pass between the decisions of `sim.serving`. `run.run_cluster` is the way in."""
