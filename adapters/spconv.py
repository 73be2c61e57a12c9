"""spconv: the sparse convolution of the library of that name, and of spconv-triton, which has its interface.

Their convolution modules decide by themselves which outputs there are. Below them lies a function that takes
a table of "indice pairs": which input row meets which output row at which kernel position. That is what a
window plan knows, so this adapter writes the table from the plan and leaves the multiplication to the
library. Every kernel, stride and dilation, transposed or not, then comes out at the windows that are kept,
in their order.

The table has two forms. On a CPU: pairs, one list a kernel position. On a GPU, for kernels of up to 32
positions: the input row of every (kernel position, output), with a bit mask an output of the positions that
have one ("implicit GEMM": one launch does it all, and nothing waits for the device).
"""

import math
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.fill import add_fill_terms, zeroed_rows
from nansparse.library import Library
from nansparse.plan import WindowPlan, plan_windows
from nansparse.product import tf32_is_allowed

LARGEST_MASKED_KERNEL = 32  # positions, one bit each
NOTHING = -1  # in a table: no input row here
HALF_TYPES = (torch.float16, torch.bfloat16)
LARGEST_INT32 = torch.iinfo(torch.int32).max


def _spconv() -> Library:
    """Name the wheel that fits this torch and Python; all of them bring the module `spconv`."""
    if torch.version.cuda is None:
        return Library("spconv.pytorch", "pip install spconv")
    wheel = "spconv-cu120" if sys.version_info < (3, 12) else "spconv-cu126"
    return Library("spconv.pytorch", f"pip install {wheel}")


def _spconv_triton() -> Library:
    return Library("spconv_triton.pytorch", "pip install spconv-triton")


class SpconvEngine(Engine):
    """spconv on CPUs and GPUs; on a GPU that no spconv is installed for, spconv-triton."""

    name = "spconv"

    def __init__(self) -> None:
        """Import nothing yet."""
        self.libraries = [_spconv(), _spconv_triton()]
        # Layers that keep a set of sites share its plan, and with it the table, which goes with the plan.
        self._tables: weakref.WeakKeyDictionary[WindowPlan, tuple[Tensor, ...]] = weakref.WeakKeyDictionary()
        # Guards what the library reads from the process: the number of threads, whether TF32 is allowed.
        self._lock = threading.Lock()

    @property
    def devices(self) -> tuple[str, ...]:
        """The device types that the installed libraries run on."""
        found = {device for library in self.libraries if not library.problem for device in _devices(library)}
        return tuple(sorted(found))

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        device, dtype, out_grid = activation.device, activation.dtype, convolution.windows.out_grid
        library = self._library(device)
        if library.problem:
            return [library.problem]
        reasons = []
        if device.type not in _devices(library):
            devices = " and ".join(_devices(library))
            reasons.append(f"device {device.type}: {library.versions or library.name} runs on {devices}")
        if device.type != "cpu" and dtype not in (torch.float32, torch.float16):
            reasons.append(f"{dtype}: {self.name} runs float32 and float16 on a GPU")
        if convolution.groups > 1:
            reasons.append(f"groups={convolution.groups}: {self.name} runs groups=1")
        cells = max(activation.sites.total, activation.sites.batch * math.prod(out_grid))
        if cells * max(activation.channels, convolution.out_channels) > LARGEST_INT32:
            reasons.append(f"more than 2^31 values: {self.name} counts in 32 bits")
        return reasons

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        rows, dtype = zeroed_rows(activation), activation.rows.dtype
        if rows.device.type == "cpu" and dtype in HALF_TYPES:
            # The library would round at every kernel position; the dense operation rounds once.
            rows = rows.float()
        out = self._multiply(rows, convolution, plan)
        if convolution.bias is not None:
            out += convolution.bias
        add_fill_terms(out, rows, activation, convolution, plan)
        return SparseActivation(plan.out, out.to(dtype), partial=False)

    def _library(self, device: torch.device) -> Library:
        """Choose the first library that runs on a device; if there is none, the first."""
        for library in self.libraries:
            if not library.problem and device.type in _devices(library):
                return library
        return self.libraries[0]

    def _multiply(self, rows: Tensor, convolution: Convolution, plan: WindowPlan) -> Tensor:
        """Give conv(x0, W) at the kept windows, (M, C_out) in the dtype of the rows."""
        masked = rows.device.type != "cpu" and plan.windows.volume <= LARGEST_MASKED_KERNEL
        tables = self._tables.get(plan)
        if tables is None:
            tables = self._tables[plan] = _masked_table(plan) if masked else _pairs(plan)
        outputs, channels = len(plan.out), rows.shape[1]
        if not (outputs and len(rows)):
            return rows.new_zeros(outputs, convolution.out_channels)
        # (C_out, *kernel, C), written anew each time: that costs little, and no packed copy can go stale.
        weight = convolution.packed(list(range(plan.windows.volume))).to(rows.dtype).contiguous()
        weight = weight.view(convolution.out_channels, *plan.windows.kernel, channels)
        library = self._library(rows.device)
        ops = library.load().ops
        with self._lock, _conditions(library, rows.device):
            if not masked:
                return ops.indice_conv(rows, weight, *tables, outputs)
            reads, masks, order = tables
            every = [np.array([0xFFFFFFFF], dtype=np.uint32)]
            options = {"is_train": False, "is_subm": False, "fp32_accum": True}
            return ops.implicit_gemm(rows, weight, reads, [masks], [order], outputs, every, **options)[0]


class SpconvTritonEngine(SpconvEngine):
    """spconv-triton alone, also where spconv is installed: for comparing the two."""

    name = "spconv-triton"

    def __init__(self) -> None:
        """Import nothing yet."""
        super().__init__()
        self.libraries = [_spconv_triton()]


def _devices(library: Library) -> tuple[str, ...]:
    if library.name == "spconv_triton":
        return ("cuda",)
    return ("cpu",) if library.load().ops.CPU_ONLY_BUILD else ("cpu", "cuda")


@contextmanager
def _conditions(library: Library, device: torch.device) -> Iterator[None]:
    """Set what the library takes from the process, and put it back whatever happens.

    On a CPU: one thread, because the library adds rows to the output from several threads without keeping
    them apart, and gives wrong sums. On a GPU: TF32 as the dense convolution would use it, and the device of
    the rows.
    """
    if device.type == "cpu":
        threads = torch.get_num_threads()
        if threads == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        return
    constants: Any = sys.modules[f"{library.name}.constants"]
    before, constants.SPCONV_ALLOW_TF32 = constants.SPCONV_ALLOW_TF32, tf32_is_allowed()
    try:
        with torch.cuda.device(device):
            yield
    finally:
        constants.SPCONV_ALLOW_TF32 = before


def _pairs(plan: WindowPlan) -> tuple[Tensor, Tensor]:
    """Write the table for `indice_conv`.

    Args:
        plan: The kept windows and what they read.

    Returns:
        int32 (2, kernel volume, longest list), input rows and output rows; the length of each list, int32.
    """
    volume, device = plan.windows.volume, plan.keep.device
    counts = torch.zeros(volume, dtype=torch.int32, device=device)
    lists = {}
    for taps in plan.taps:
        real = taps.table < len(plan.sites)
        for column, position in enumerate(taps.positions):
            met = real[:, column].nonzero().flatten()
            outputs = met if taps.outputs is None else taps.outputs.index_select(0, met)
            lists[position] = (taps.table[:, column].index_select(0, met), outputs)
            counts[position] = len(met)
    longest = max((len(inputs) for inputs, _ in lists.values()), default=0)
    pairs = torch.full((2, volume, max(longest, 1)), NOTHING, dtype=torch.int32, device=device)
    for position, (inputs, outputs) in lists.items():
        pairs[0, position, : len(inputs)] = inputs
        pairs[1, position, : len(inputs)] = outputs
    return pairs, counts


def _masked_table(plan: WindowPlan) -> tuple[Tensor, Tensor, Tensor]:
    """Write the table for `implicit_gemm`.

    Args:
        plan: The kept windows and what they read; at most 32 kernel positions.

    Returns:
        The input row of each output, int32 (kernel volume, M), `NOTHING` where it reads none; the outputs'
        bit masks, sorted, int32 (M, 1); and the outputs in that order, int32 (M,).
    """
    shape, device = (plan.windows.volume, len(plan.out)), plan.keep.device
    reads = torch.full(shape, NOTHING, dtype=torch.int32, device=device)
    for taps in plan.taps:
        rows = taps.table.masked_fill(taps.table >= len(plan.sites), NOTHING).T.to(torch.int32)
        positions = torch.tensor(taps.positions, dtype=torch.int64, device=device)
        if taps.outputs is None:
            reads[positions] = rows
        else:
            reads[positions[:, None], taps.outputs.long()[None]] = rows
    bits = torch.ones(shape[0], dtype=torch.int64, device=device) << torch.arange(shape[0], device=device)
    masks, order = ((reads >= 0) * bits[:, None]).sum(0).sort(stable=True)
    return reads, masks.to(torch.int32)[:, None].contiguous(), order.to(torch.int32)
