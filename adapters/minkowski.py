"""MinkowskiEngine: generalised sparse convolution between two sets of coordinates.

It takes any input and any output coordinates and finds by hashing which of them meet within the kernel.
Outputs are the kept windows of the plan, placed so that its kernels, which are centred for odd sizes, read
what the window reads:

    ordinary:    input at i, output at o * stride - padding + centre
    transposed:  input at i * stride, output at o + padding - reach + centre, kernel turned around

with centre = dilation * ((kernel - 1) // 2) for odd kernels, 0 for even ones, and
reach = dilation * (kernel - 1). Its first spatial column runs fastest over the kernel, so the spatial axes
are handed over in reverse order.
"""

import collections
import collections.abc
import sys
import threading
import warnings
import weakref
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.fill import add_fill_terms, zeroed_rows
from nansparse.library import Library
from nansparse.plan import WindowPlan, plan_windows
from nansparse.sites import Sites
from nansparse.windows import Windows

# Beside a C++ compiler. Built against the torch that is installed: a wheel kept from another would not load.
INSTALL = (
    "apt-get install libopenblas-dev && "
    "pip install --no-build-isolation --no-deps --no-cache-dir --use-pep517 "
    "-C--global-option=--blas=openblas -C--global-option=--cpu_only minkowskiengine==0.5.4"
)
LARGEST_INT32 = torch.iinfo(torch.int32).max


class MinkowskiLibrary(Library):
    """MinkowskiEngine, which needs a hand to load and leaves traces that are wiped."""

    def _import(self) -> ModuleType:
        """Import it without lasting changes to `collections` or the module search path."""
        # It asks for a name that Python 3.10 took out of `collections`.
        added = not hasattr(collections, "Sequence")
        if added:
            collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]
        path = list(sys.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "compiled with CPU_ONLY flag", syntax of older Pythons
                return super()._import()
        finally:
            sys.path[:] = [entry for entry in sys.path if entry in path]
            if added:
                del collections.Sequence  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Maps:
    """What the library knows about the sites of one plan.

    Attributes:
        manager: Its coordinate manager, which also keeps what meets what.
        source: Its key of the input sites.
        target: Its key of the kept windows.
        source_order: Our row of each of its input rows; None where they are the same.
        target_order: Our row of each of its output rows; None where they are the same.
        generator: Its description of the kernel.
    """

    manager: Any
    source: Any
    target: Any
    source_order: Tensor | None
    target_order: Tensor | None
    generator: Any


class MinkowskiEngine(Engine):
    """MinkowskiEngine with explicit output coordinates."""

    name = "minkowski"

    def __init__(self) -> None:
        """Import nothing yet."""
        self.library = MinkowskiLibrary("MinkowskiEngine", INSTALL)
        self.libraries = (self.library,)
        # Layers that keep a set of sites share its plan, and with it these maps, which go with the plan.
        self._maps: weakref.WeakKeyDictionary[WindowPlan, _Maps] = weakref.WeakKeyDictionary()
        # A coordinate manager is no place for two threads.
        self._lock = threading.Lock()

    @property
    def devices(self) -> tuple[str, ...]:
        """The CPU, and CUDA if the library was built with it."""
        if self.library.problem:
            return ()
        return ("cpu", "cuda") if self.library.load().is_cuda_available() else ("cpu",)

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        if self.problem:
            return [self.problem]
        reasons = []
        device = activation.device.type
        if device not in self.devices:
            reasons.append(f"device {device}: MinkowskiEngine was built for {' and '.join(self.devices)}")
        if convolution.groups > 1:
            reasons.append(f"groups={convolution.groups}: minkowski runs groups=1")
        if max(activation.sites.total, *_furthest(convolution.windows)) > LARGEST_INT32:
            reasons.append("more than 2^31 sites: minkowski counts in 32 bits")
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
        rows = rows if dtype == torch.float64 else rows.float()  # it has no half types
        if len(rows) and len(plan.out):
            with self._lock:
                out = self._multiply(rows, convolution, plan)
        else:
            # It crashes the process on an empty set of coordinates.
            out = rows.new_zeros(len(plan.out), convolution.out_channels)
        if convolution.bias is not None:
            out += convolution.bias
        add_fill_terms(out, rows, activation, convolution, plan)
        return SparseActivation(plan.out, out.to(dtype), partial=False)

    def _multiply(self, rows: Tensor, convolution: Convolution, plan: WindowPlan) -> Tensor:
        """Give conv(x0, W) at the kept windows, (M, C_out)."""
        library = self.library.load()
        maps = self._maps.get(plan)
        if maps is None:
            maps = self._maps[plan] = _make_maps(library, plan)
        volume = plan.windows.volume
        weight = convolution.packed(list(range(volume))).to(rows.dtype)
        weight = weight.view(convolution.out_channels, volume, -1).permute(1, 2, 0)
        if plan.windows.transposed:
            weight = weight.flip(0)
        rows = rows if maps.source_order is None else rows.index_select(0, maps.source_order)
        mode = sys.modules["MinkowskiEngineBackend._C"].ConvolutionMode.DEFAULT
        with torch.no_grad():
            found = library.MinkowskiConvolutionFunction.apply(
                rows.contiguous(),
                weight.contiguous(),
                maps.generator,
                mode,
                maps.source,
                maps.target,
                maps.manager,
            )
        if maps.target_order is None:
            return found
        return torch.empty_like(found).index_copy_(0, maps.target_order, found)


def _make_maps(library: ModuleType, plan: WindowPlan) -> _Maps:
    windows, rank = plan.windows, len(plan.windows.grid)
    kinds = library.CoordinateMapType
    kind = kinds.CPU if plan.keep.device.type == "cpu" else kinds.CUDA
    manager = library.CoordinateManager(D=rank, num_threads=torch.get_num_threads(), coordinate_map_type=kind)
    steps = windows.stride if windows.transposed else (1,) * rank
    source, source_order = _insert(manager, plan.sites, steps, (0,) * rank, "source")
    steps = (1,) * rank if windows.transposed else windows.stride
    target, target_order = _insert(manager, plan.out, steps, _shifts(windows), "target")
    generator = library.KernelGenerator(
        kernel_size=list(reversed(windows.kernel)),
        stride=1,
        dilation=list(reversed(windows.dilation)),
        dimension=rank,
    )
    return _Maps(manager, source, target, source_order, target_order, generator)


def _insert(
    manager: Any, sites: Sites, steps: tuple[int, ...], shifts: tuple[int, ...], name: str
) -> tuple[Any, Tensor | None]:
    """Tell the library a set of sites; its tensor stride is 1 whatever the steps between sites."""
    batch, spatial = sites.coords[:, :1], sites.coords[:, 1:]
    placed = spatial * spatial.new_tensor(steps) + spatial.new_tensor(shifts)
    coords = torch.cat([batch, placed.flip(1)], 1).contiguous()
    key, (order, _) = manager.insert_and_map(coords, [1] * len(steps), name)
    order = order.long()
    same = torch.equal(order, torch.arange(len(order), device=order.device))
    return key, None if same else order


def _shifts(windows: Windows) -> tuple[int, ...]:
    """Say where the library must put output 0 along each axis."""
    shifts = []
    for size, apart, low in zip(windows.kernel, windows.dilation, windows.padding, strict=True):
        centre = apart * ((size - 1) // 2) if size % 2 else 0
        shifts.append(low - apart * (size - 1) + centre if windows.transposed else centre - low)
    return tuple(shifts)


def _furthest(windows: Windows) -> list[int]:
    """Bound the coordinates handed over."""
    sizes = zip(windows.grid, windows.out_grid, windows.stride, windows.dilation, windows.kernel, strict=True)
    return [max(grid, out) * step + apart * size for grid, out, step, apart, size in sizes]
