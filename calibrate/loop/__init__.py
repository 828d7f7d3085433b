"""The loop closed on this device: measure the small engine's steps, simulate a service with them, serve it for real.

Model, limits and the service to be predicted are `loop.yaml`. The prediction is `sim.cluster`'s: it takes what a step
costs from here, and shares no scheduling with the engine.
"""
