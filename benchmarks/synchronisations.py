"""How often each layer makes the processor wait for the device.

On a GPU work is queued; what reads a value back (`item`, `bool`, `tolist`) or makes a tensor whose size
depends on values (`nonzero`, an index that is a mask) waits until the queue is empty. The operations are the
same on a CPU, so they are counted there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import nansparse
from nansparse.evaluation.masks import nan_mask
from nansparse.evaluation.results import Row

# Operations of torch, by name without overload, whose CUDA kernels copy to the host before they return.
# In inference mode composite operations arrive whole, elsewhere in their parts.
WAITING = {
    "item": "item",
    "_local_scalar_dense": "item",
    "allclose": "item",
    "argwhere": "nonzero",
    "nonzero_numpy": "nonzero",
    "is_nonzero": "item",
    "equal": "equal",
    "nonzero": "nonzero",
    "masked_select": "masked select",
    "_unique2": "unique",
    "unique_consecutive": "unique",
    "unique_dim": "unique",
    "bincount": "bincount",
}
# Methods that leave torch: on a CPU no operation shows them.
LEAVING = {Tensor.tolist: "tolist", Tensor.numpy: "numpy", Tensor.cpu: "cpu"}
ENGINES = ("gather", "tile", "dense")
NOTE = (
    "A forward after the first. Waits: operations that read values back, or make a tensor whose size depends "
    "on values. tolist, numpy and cpu stand beside them: they wait where their tensor is on the device. What "
    "is put off is counted in the layer that asks for it (unpooling in the convolution behind it)."
)


class _Kernels(TorchDispatchMode):
    """Counts the operations that wait."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name = func.overloadpacket.__name__
        if name in WAITING:
            self._note(WAITING[name])
        elif name in ("index", "index_put", "index_put_", "_unsafe_index") and _by_mask(args):
            self._note("index by mask")
        elif name == "repeat_interleave" and (kwargs or {}).get("output_size") is None:
            self._note("repeat_interleave")
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Counts the methods that leave torch."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func in LEAVING:
            self._note(LEAVING[func])
        return func(*args, **(kwargs or {}))


def count_waits(model: nn.Module, x: Tensor, **options: Any) -> dict[str, Counter[str]]:
    """Count what waits, layer by layer, in one forward.

    Args:
        model: A network of torch's layers, in eval mode.
        x: Its input.
        **options: Of `nansparse.enable`.

    Returns:
        Name of the module to what waited how often; "" for what no layer does (the input, the output).
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    at = [""]

    def note(what: str) -> None:
        found[at[-1]][what] += 1

    with torch.inference_mode(), nansparse.enable(model, **options), ExitStack() as blocks:
        model(x)  # prices are read, engines loaded
        blocks.enter_context(_named_layers(model, at))
        blocks.enter_context(_Methods(note))
        blocks.enter_context(_Kernels(note))
        model(x)
    return dict(found)


@contextmanager
def _named_layers(model: nn.Module, at: list[str]) -> Iterator[None]:
    """Keep the name of the layer that runs at the end of a list."""
    handles = []
    for name, module in model.named_modules():
        if name and not list(module.children()):
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: at.append(name)))
            handles.append(module.register_forward_hook(lambda *_: at.pop() and None))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_mask(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


class Chain(nn.Module):
    """A convolution, then pooling, a convolution, unpooling, a convolution."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.unpool = nn.MaxUnpool2d(2)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: (N, channels, H, W), H and W even.

        Returns:
            The same shape.
        """
        pooled, indices = self.pool(self.first(x).relu())
        return self.last(self.unpool(self.norm(self.inner(pooled)).relu(), indices))


def measure_waits(engine: str, mode: str) -> list[Row]:
    """Count the waits of a chain of layers on an input half of which is NaN.

    Args:
        engine: Name of an engine, or "auto".
        mode: Of `nansparse.enable`.

    Returns:
        A row a layer.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        # In double precision no loop compiled for CPUs takes the place of the operations that a GPU runs.
        model = Chain().eval().double()
    x = torch.rand(1, 16, 64, 64, generator=generator, dtype=torch.float64)
    x[..., 40:] = 0.5  # a flat part, whose pooling windows tie
    x = x.masked_fill(nan_mask("blob", 1, (64, 64), 0.5, generator), torch.nan)
    found = count_waits(model, x, engine=engine, mode=mode)
    layers = ["", *(name for name, _ in model.named_children())]
    return [_row(engine, mode, layer, found.get(layer, Counter())) for layer in layers]


def _row(engine: str, mode: str, layer: str, waits: Counter[str]) -> Row:
    kernels = sum(count for what, count in waits.items() if what not in LEAVING.values())
    values: dict[str, float | None] = {"waits": float(kernels)}
    values |= {what: float(count) for what, count in sorted(waits.items())}
    return Row({"mode": mode, "layer": layer or "(input and output)"}, engine, values=values)
