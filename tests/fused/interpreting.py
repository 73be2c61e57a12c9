"""A pytest plugin: Triton's kernels in place of the loops compiled for CPUs, by Triton's own interpreter.

`TRITON_INTERPRET=1 python -m pytest -p tests.fused.interpreting ...` runs on a CPU what a GPU runs.
"""

from hypothesis import settings

from nansparse.compiled import availability
from nansparse.fused import fused_problem

availability._loaded = lambda: "left out, so that the kernels take its place"
problem = fused_problem()
if problem:
    raise RuntimeError(problem)


def pytest_configure() -> None:
    """Draw fewer examples than there are elsewhere: the interpreter takes its time."""
    settings.register_profile("interpreted", settings.get_profile("nansparse"), max_examples=12)
    settings.load_profile("interpreted")
