"""What a measurement was made on, so that numbers from two machines are not taken for two results."""

import platform
from importlib import metadata
from typing import Any

import torch

import nansparse
from nansparse.engine import registry
from nansparse.evaluation.conditions import denormals_flushed
from nansparse.memory import memory_is_kept
from nansparse.prices import device_name

# Distributions whose version may change a number in a results file.
_LIBRARIES = (
    *("numpy", "scipy", "numba", "nibabel", "nilearn", "spconv", "spconv-cu120", "spconv-cu126"),
    *("spconv-triton", "triton", "MinkowskiEngine", "torch-scatter"),
)


def describe_environment(device: torch.device | None = None) -> dict[str, Any]:
    """Describe software, processor and conditions.

    Args:
        device: What was computed on; the CPU when None.

    Returns:
        JSON-able data: versions, processor, GPU (None without one), threads, whether denormals are
        flushed and freed memory is kept.
    """
    gpu = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else None
    return {
        "nansparse": nansparse.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": device_name(torch.device("cpu")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "denormals_flushed": denormals_flushed(),
        "memory_kept": memory_is_kept(),
        "engines": registry.installed(),
        "libraries": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
