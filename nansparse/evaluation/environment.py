"""What a measurement was made on, so that numbers from two machines are not taken for two results."""

import platform
from pathlib import Path
from typing import Any

import torch

import nansparse


def describe_environment() -> dict[str, Any]:
    """Describe software and processor.

    Returns:
        JSON-able data: versions, processor, threads, whether denormals are flushed is stated by the caller.
    """
    return {
        "nansparse": nansparse.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
