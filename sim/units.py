"""The only place where units are converted. Inside the simulator everything is SI: seconds, bytes, FLOP.

Bandwidths are decimal and per direction; GB is 1e9 bytes and GiB 2**30.
"""

from typing import Final

NANOSECOND_S: Final = 1e-9
MICROSECOND_S: Final = 1e-6
MILLISECOND_S: Final = 1e-3
HOUR_S: Final = 3600.0
MONTH_HOURS: Final = 365 * 24 / 12
"""Of an average month, 730: what prices per month are divided by."""
GB_BYTES: Final = 1e9
GIB_BYTES: Final = 2**30
TERA: Final = 1e12
MILLION: Final = 1e6

DTYPE_BYTES: Final = {"int4": 0.5, "mxfp4": 0.5, "nvfp4": 0.5, "fp8": 1.0, "bf16": 2.0, "fp32": 4.0}
"""Bytes of one element, without the scales of block formats (those are counted where the format is defined)."""
