"""A user's own benchmark: result files of benchmark clients -> a workload -> measured beside simulated.

file -> runs (`files`, a reader per format) -> workload and figures (`run`) -> cases (`compare`)
"""
