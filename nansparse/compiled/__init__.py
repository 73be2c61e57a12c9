"""Loops that numba compiles: what would be dozens of passes with torch's operations is one pass here.

They are for float32 on CPUs, and for users who installed numba (`pip install
"nansparse[numba]"`). Everything they compute can be computed with plain torch as well, and is wherever
`kernels_for` says None.
"""

from nansparse.compiled.availability import NUMBA, Kernels, kernels_for, kernels_problem

__all__ = ["NUMBA", "Kernels", "kernels_for", "kernels_problem"]
