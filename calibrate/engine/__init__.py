"""A small real engine: a DeepSeek architecture with random weights, served for real on a CPU or a GPU.

It is a clean room of its own: it shares the mathematics of `calibrate.kernels` and the shapes of the catalog, and no
scheduling code with the simulator, so that holding one against the other says something about both.
"""
