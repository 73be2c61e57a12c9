"""The executable specification: every definition, computed literally on dense tensors.

Arrays are (N, C, *spatial) with two or three spatial axes. NaN means "unstable: carries no information".
Engines are checked against these functions; nothing here is tuned for speed or memory.
"""

from nansparse.functional.convolution import nan_conv, nan_conv_transpose, nan_linear, skipped_windows
from nansparse.functional.pooling import MaxPoolResult, nan_max_pool, nan_max_unpool

__all__ = [
    "MaxPoolResult",
    "nan_conv",
    "nan_conv_transpose",
    "nan_linear",
    "nan_max_pool",
    "nan_max_unpool",
    "skipped_windows",
]
