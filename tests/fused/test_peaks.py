"""The pooling kernel against the operations of torch: maxima, ties and, under every tie rule, the winners."""

from __future__ import annotations

import pytest
import torch

from nansparse import Policy
from nansparse.functional.pooling import pooling_windows
from nansparse.fused import fused_for
from nansparse.fused.peaks import peaks_of_rows
from nansparse.sites import Sites
from nansparse.ties import find_peaks, tile_peaks, window_cells
from tests.functional.drawing import levels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(
    fused_for(torch.zeros(1, device=DEVICE)) is None,
    reason="needs a GPU; test_interpreted.py runs it by Triton's interpreter",
)
@pytest.mark.parametrize("max_ties", [1, 2, 3])
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (2, 4, 6)])
def test_windows_that_tile_the_grid(grid, max_ties):
    x = levels(0, (2, *grid, 3), torch.float32).to(DEVICE)
    windows = pooling_windows(grid, 2, None, 0, 1, ceil_mode=False)
    cells = window_cells(x, windows)
    expected = tile_peaks(cells, find_peaks(cells, 0.0), max_ties)
    before, after = Sites(None, 2, grid, DEVICE), Sites(None, 2, windows.out_grid, DEVICE)
    policy, fused = Policy(max_ties=max_ties, epsilon=0.0), fused_for(x)
    found, some, nan, infinite = peaks_of_rows(
        fused, x.reshape(-1, 3), before, after, windows, policy, laid_out=True
    )
    assert (some, nan, infinite) == (bool(expected.unstable.any()), False, False)
    for name in ("values", "codes", "unstable", "winner"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
