"""Forwards leave nothing behind, and what looks for it would find it."""

import gc

import pytest
import torch

import nansparse
from benchmarks import memory
from nansparse.zoo import UNet

FEW, MANY = 5, 50


def network():
    torch.manual_seed(0)
    return UNet(rank=2, widths=(4, 8), num_classes=2, unpool=True).eval()


def grown(model, x, mode, keep=None):
    """Bytes of living tensors after many forwards over those after a few."""
    found = []
    with torch.inference_mode(), nansparse.enable(model, mode=mode):
        for number in range(1, MANY + 1):
            out = model(x)
            if keep is not None:
                keep.append(out)
            if number in (FEW, MANY):
                found.append(memory.living_bytes())
    return found[1] - found[0]


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_forwards_leave_no_tensor_behind(mode):
    x = torch.rand(1, 1, 32, 32)
    x[..., :16] = torch.nan
    assert grown(network(), x, mode) <= 0


def test_inputs_of_many_masks_leave_no_more_than_caches_may_hold():
    model, generator = network(), torch.Generator().manual_seed(0)
    found = []
    with torch.inference_mode(), nansparse.enable(model):
        for number in range(1, MANY + 1):
            x = torch.rand(1, 1, 32, 32, generator=generator)
            model(x.masked_fill(torch.rand(1, 1, 32, 32, generator=generator) < 0.5, torch.nan))
            if number in (FEW, MANY):
                found.append(memory.living_bytes())
    assert found[1] - found[0] < x.nbytes * 8


def test_a_leak_is_found():
    x = torch.rand(1, 1, 32, 32)
    leak = []
    assert grown(network(), x, "aggressive", leak) == (MANY - FEW) * leak[0].nbytes


def test_every_storage_counts_once():
    gc.collect()
    before = memory.living_bytes()
    x = torch.zeros(1000, 1000)
    views = [x[i:] for i in range(10)]
    assert memory.living_bytes() - before == x.nbytes
    del views, x
    assert memory.living_bytes() == before


def test_peaks_are_measured_apart(monkeypatch):
    found = iter([{"first_call_mib": 50.0, "peak_memory_mib": peak} for peak in (200.0, 150.0)])
    monkeypatch.setattr(memory, "_alone", lambda measure, *arguments: next(found))
    dense, sparse = memory.measure_peaks(memory.DEMONSTRATION, 0.5, 1)
    assert (dense.policy, sparse.values["of_dense"]) == (None, 0.75)


@pytest.mark.slow
def test_a_process_of_its_own_tells_its_peak():
    found = memory._alone(memory._peak, memory.DEMONSTRATION, 0.5, memory.SPARSE, 1)
    if found["peak_memory_mib"] is None:
        pytest.skip("this system does not tell the peak of the resident memory")
    # A first call loads numba and lays weights out; 256x256 cells of 64 channels in float32 are 16 MiB.
    assert 20 < found["first_call_mib"] < 2000
    assert 16 < found["peak_memory_mib"] < 2000
