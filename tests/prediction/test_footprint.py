"""The peak of a process is what the kernel calls its high-water mark, in MiB."""

import re
from pathlib import Path

import pytest

from nansparse.prediction.footprint import peak_mib

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells it in /proc")
def test_the_peak_is_the_high_water_mark():
    held = bytearray(64 << 20)
    mark = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert peak_mib() == pytest.approx(int(mark[1]) / 1024, rel=0.02)
    assert peak_mib() > len(held) >> 20
