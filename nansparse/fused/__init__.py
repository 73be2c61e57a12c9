"""Kernels that Triton compiles: what would be dozens of launches with torch's operations is one launch here.

A GPU finishes a layer of a usual size before Python has queued the operations of the plain form, so their
number decides. Triton comes with torch's builds for GPUs. Whatever the kernels compute can be computed with
plain torch as well, and is wherever `fused_for` says None.
"""

from nansparse.fused.availability import TRITON, Fused, fused_devices, fused_for, fused_on, fused_problem

__all__ = ["TRITON", "Fused", "fused_devices", "fused_for", "fused_on", "fused_problem"]
