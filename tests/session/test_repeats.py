"""Windows of a uniform background are computed once, and nobody can tell but by the clock and the record."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

import nansparse
from nansparse import NothingToDoWarning, RunRecord
from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for, kernels_problem
from nansparse.convolution import Convolution
from nansparse.handlers import deferring, repeated
from nansparse.plan import WindowPlan
from nansparse.sites import Sites
from nansparse.windows import convolution_windows
from nansparse.zoo.fastsurfer import FastSurferCNN
from tests.engines.registered import NAMES, usable
from tests.functional.drawing import seeds, values
from tests.handlers.caught import Wrapped
from tests.session.nets import seeded

needs_loops = pytest.mark.skipif(kernels_for(torch.zeros(1)) is None, reason=kernels_problem() or "-")


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute windows once however little that saves, and put steps off however small the tensors."""
    monkeypatch.setattr(repeated, "LEAST_MACS", 0)
    monkeypatch.setattr(repeated, "_pays", lambda *_: True)
    monkeypatch.setattr(deferring, "LEAST_CELLS", 0)


@contextmanager
def enabled(model: nn.Module, **options: object) -> Iterator[RunRecord]:
    with warnings.catch_warnings():
        # Of no concern here: whether such a run marks anything (tests/session/test_record.py).
        warnings.simplefilter("ignore", NothingToDoWarning)
        with nansparse.enable(model, **options) as record:  # type: ignore[arg-type]
            yield record


def layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def stripped(seed: int, shape: tuple[int, ...], level: float = 0.0) -> Tensor:
    """Draw heads in a uniform background, another one in each sample."""
    x = values(seed, shape, torch.float32)
    for n, sample in enumerate(x):
        inside = torch.zeros(shape[2:], dtype=torch.bool)
        inside[tuple(slice(size // 3 + n, size // 2 + 1 + n) for size in shape[2:])] = True
        sample[:, ~inside] = level * (n + 1)
    return x.contiguous(memory_format=layout(x))


def weight(seed: int, *shape: int) -> Tensor:
    made = values(seed, shape, torch.float32) / 4
    return made.contiguous(memory_format=layout(made)) if len(shape) > 3 else made


class Everything(nn.Module):
    """A network of drawn blocks: what surrounds convolutions in the networks that people run."""

    def __init__(self, blocks: list[str], rank: int, seed: int) -> None:
        super().__init__()
        self.blocks, self.rank = blocks, rank
        make = (nn.Conv2d, nn.Conv3d)[rank - 2], (nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 2]
        norm = (nn.BatchNorm2d, nn.BatchNorm3d)[rank - 2]
        options = {
            "conv": lambda: make[0](4, 4, 3, padding=1),
            "wide": lambda: make[0](4, 4, 3, padding="same", dilation=2),
            "strided": lambda: make[0](4, 4, 3, stride=2, padding=1),
            "depthwise": lambda: make[0](4, 4, 3, padding=1, groups=4),
            "reflected": lambda: make[0](4, 4, 3, padding=1, padding_mode="replicate"),
            "up": lambda: make[1](4, 4, 2, stride=2),
            "batch norm": lambda: norm(4),
            "group norm": lambda: nn.GroupNorm(2, 4),
            "prelu": lambda: nn.PReLU(4),
            "relu in place": lambda: nn.ReLU(inplace=True),
        }
        self.first = make[0](2, 4, 3, padding=1)
        self.layers = nn.ModuleList(options[name]() if name in options else nn.Identity() for name in blocks)
        self.last = make[0](4, 3, 3, padding=1)
        for number, parameter in enumerate(self.parameters()):
            parameter.data = values(seed + number, tuple(parameter.shape), torch.float32) / 3

    def forward(self, x: Tensor) -> Tensor:
        x = skip = self.first(x)
        pool = (F.max_pool2d, F.max_pool3d)[self.rank - 2]
        average = (F.avg_pool2d, F.avg_pool3d)[self.rank - 2]
        for name, layer in zip(self.blocks, self.layers, strict=True):
            x = layer(x)
            if name == "pool":
                x = pool(x, 2)
            elif name == "pool in place":
                x = pool(x, 3, 1, 1)
            elif name == "average":
                x = average(x, 3, stride=2, padding=1)
            elif name == "nearest":
                x = F.interpolate(x, scale_factor=2.0)
            elif name == "linear":
                x = F.interpolate(x, scale_factor=2.0, mode=("bilinear", "trilinear")[self.rank - 2])
            elif name == "skip" and skip.shape == x.shape:
                x = torch.maximum(x, skip)
            elif name == "residual" and skip.shape == x.shape:
                x = x + skip
            elif name == "sub":
                x += 1
            skip = x if name in ("keep", "up") else skip
        return self.last(x)


BLOCKS = (
    *("conv", "conv", "wide", "strided", "depthwise", "reflected", "up", "up", "batch norm", "group norm"),
    *(
        "prelu",
        "relu in place",
        "pool",
        "pool in place",
        "average",
        "nearest",
        "linear",
        "skip",
        "residual",
        "sub",
        "keep",
    ),
)


def keeps_its_size(blocks: list[str]) -> bool:
    """Say whether a network of these neither fills the memory nor runs out of cells."""
    doubled = sum(name in ("up", "nearest", "linear") for name in blocks)
    return doubled <= 2 and sum(name in ("strided", "pool", "average") for name in blocks) <= 3


@pytest.mark.parametrize("inference", [False, True])
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), max_size=6).filter(keeps_its_size),
    rank=st.sampled_from((2, 2, 3)),
    seed=seeds,
    level=st.sampled_from((0.0, 0.5)),
    last=st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_result_is_that_of_a_dense_run(inference, blocks, rank, seed, level, last):
    size = 26 if rank == 2 else 11
    model = Everything(blocks, rank, seed % 1000).eval()
    with torch.inference_mode() if inference else torch.no_grad():
        x = stripped(seed, (2, 2, *[size] * rank), level)
        x = x if last else x.contiguous()
        expected = model(x.clone(memory_format=torch.preserve_format))
        with enabled(model) as record:
            found = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert found.stride() == expected.stride()
    assert record.macs_repeated > 0 or not last


@pytest.mark.parametrize("block", [name for name in dict.fromkeys(BLOCKS) if name != "reflected"])
def test_behind_each_of_these_the_background_is_still_known(block):
    model = Everything([block], 2, 0).eval()
    with enabled(model) as record:
        model(stripped(0, (1, 2, 40, 40)))
    repeats = {layer.layer: layer.macs_repeated for layer in record.layers}
    assert repeats["last"] > 0


def test_fastsurfer_unpools_the_same_with_and_without():
    model = seeded(lambda: FastSurferCNN(num_filters=8, num_classes=4)).to(memory_format=torch.channels_last)
    x = stripped(0, (2, 7, 48, 48))
    with enabled(model, engine="dense") as plain:
        expected = model(x)
    with enabled(model) as record:
        found = model(x)
    assert plain.macs_repeated == 0 < record.macs_repeated
    assert record.windows_skipped == plain.windows_skipped > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def change(x: Tensor) -> Tensor:
    x[:, :, 2, 2] = 3.0
    return x


def change_a_view(x: Tensor) -> Tensor:
    x[:, :3].add_(torch.linspace(0, 1, x.shape[-1]))
    return x


def change_before_it_was_computed(x: Tensor) -> Tensor:
    y = F.relu(F.batch_norm(x, torch.zeros(4), torch.ones(4)))
    y[:, :, 2, 2] = 3.0
    return y


def change_and_use_both(x: Tensor) -> Tensor:
    y = F.batch_norm(x, torch.zeros(4), torch.ones(4))
    z = F.relu(y)
    y.select(2, 2).mul_(3.0)
    return y + z


def change_what_another_shares(x: Tensor) -> Tensor:
    y = x.detach()
    F.relu(y, inplace=True)[:, :, 2] = 1.0
    return x


def write_out(x: Tensor) -> Tensor:
    torch.add(x, torch.linspace(0, 1, x.shape[-1]), out=x)
    return x


def write_by_numpy(x: Tensor) -> Tensor:
    x.numpy()[:, :, 2, 2] = 3.0
    return x


def swap_the_data(x: Tensor) -> Tensor:
    x.data = x + torch.linspace(0, 1, x.shape[-1])
    return x


@torch.jit.script
def fill_a_site(x: Tensor) -> Tensor:
    x[:, :, 2, 2] = 3.0
    return x


def change_in_a_thread(x: Tensor) -> Tensor:
    thread = threading.Thread(target=lambda: x.data.add_(torch.linspace(0, 1, x.shape[-1])))
    thread.start()
    thread.join()
    return x


def point_elsewhere(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return x.set_(x.clone() + torch.linspace(0, 1, x.shape[-1]))


CHANGES = (
    *(change, change_a_view, change_before_it_was_computed, change_and_use_both, change_what_another_shares),
    *(write_out, write_by_numpy, swap_the_data, fill_a_site, change_in_a_thread, point_elsewhere),
)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("changed", CHANGES, ids=lambda f: getattr(f, "__name__", "scripted"))
def test_what_is_changed_in_place_is_read_as_it_is(changed: Callable[[Tensor], Tensor], inference: bool):
    first, last = weight(1, 4, 2, 3, 3), weight(2, 4, 4, 3, 3)

    def run(x: Tensor) -> Tensor:
        x = F.conv2d(x, first, padding=1)
        return F.conv2d(changed(x), last, padding=1)

    with torch.inference_mode() if inference else torch.no_grad():
        x = stripped(3, (1, 2, 20, 20))
        expected, model = run(x), Wrapped(run).eval()
        model.weight = nn.Parameter(first)
        with enabled(model) as record:
            found = model(x)
    torch.testing.assert_close(found, expected)
    assert record.macs_repeated > 0


class Doubled(Tensor):
    """A weight that is more than its numbers."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is F.conv2d:
            with torch._C.DisableTorchFunctionSubclass():
                return func(args[0], args[1].as_subclass(Tensor) * 2, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)


def gradient(conv: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]


def tangent(conv: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        weight = forward_ad.make_dual(conv.weight.detach(), torch.ones_like(conv.weight))
        return forward_ad.unpack_dual(F.conv2d(x, weight, padding=1)).tangent


UNUSUAL: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a weight of its own kind": lambda conv, x: F.conv2d(
        x, conv.weight.detach().as_subclass(Doubled), padding=1
    ),
    "gradients inside": gradient,
    "forward mode": tangent,
    "detached in place": lambda conv, x: conv(x).detach_(),
    "vmap": lambda conv, x: torch.func.vmap(lambda w: F.conv2d(x, w, padding=1))(
        torch.stack([conv.weight] * 2)
    ),
    "vmap before": lambda conv, x: torch.func.vmap(lambda t: conv(x * t))(torch.arange(3.0)),
    "a trace inside": lambda conv, x: torch.jit.trace(conv, (x,))(x),
    "signs of zero": lambda conv, x: conv(torch.clamp(1 / (x * torch.linspace(-1, 1, 20)), -1, 1)),
    "another layout": lambda conv, x: conv(x.contiguous()),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_no_plain_convolution_is_torchs(name):
    conv = nn.Conv2d(2, 4, 3, padding=1).eval().to(memory_format=torch.channels_last)
    model = Wrapped(lambda x: UNUSUAL[name](conv, x)).eval()
    model.conv, x = conv, stripped(0, (1, 2, 20, 20))
    with torch.no_grad():
        expected = model(x)
        with enabled(model):
            found = model(x)
    torch.testing.assert_close(found, expected)


def test_negative_zeros_at_the_input_are_no_zeros():
    x = torch.zeros(1, 2, 24, 24)
    x[:, :, 12:] = -0.0
    conv = nn.Conv2d(2, 4, 3, padding=1).eval().to(memory_format=torch.channels_last)
    model = Wrapped(lambda x: conv(torch.clamp(1 / x, -1, 1))).eval()
    model.conv = conv
    x = x.contiguous(memory_format=torch.channels_last)
    with enabled(model):
        found = model(x)
    torch.testing.assert_close(found, model(x))


def test_an_empty_input_beside_the_image_is_no_image():
    conv = nn.Conv2d(2, 4, 3, padding=1).eval().to(memory_format=torch.channels_last)
    model = Wrapped(lambda x, y: conv(x) + y.sum()).eval()
    model.conv, x = conv, stripped(0, (1, 2, 20, 20))
    with enabled(model):
        assert model(x, torch.zeros(1, 3, 0, 5)).shape == (1, 4, 20, 20)


@pytest.mark.parametrize(
    ("kernel", "bias", "padding"), [((4, 3, 3, 3), 4, 1), ((4, 2, 3, 3), 5, 1), ((4, 2, 3, 3), 4, -1)]
)
def test_what_torch_refuses_it_refuses_in_its_own_words(kernel, bias, padding):
    given = torch.ones(kernel).contiguous(memory_format=torch.channels_last)
    model = Wrapped(lambda x: F.conv2d(x, given, torch.ones(bias), padding=padding)).eval()
    x = stripped(0, (1, 2, 20, 20))
    with pytest.raises(RuntimeError) as dense:
        model(x)
    with pytest.raises(RuntimeError) as sparse, enabled(model):
        model(x)
    assert str(sparse.value) == str(dense.value)


@needs_loops
def test_only_what_differs_is_computed_and_the_record_says_so():
    x = torch.zeros(1, 2, 32, 32)
    x[:, :, 10:20, 10:20] = 1.0
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1)).to(memory_format=torch.channels_last).eval()
    with enabled(model) as record:
        model(x.contiguous(memory_format=torch.channels_last))
    # 12x12 windows reach the square and 124 the padding; one stands for the rest.
    repeated_windows = 32 * 32 - 12 * 12 - 124 - 1
    assert record.macs_repeated == repeated_windows * 9 * 2 * 4
    assert (record.macs, record.macs_skipped) == (32 * 32 * 9 * 2 * 4, 0)
    assert record.layers[0].engine != "torch"
    assert "73.7 % repeats" in record.summary()
    assert "73.7 % of the multiply-adds were repeats" in record.summary()
    assert record.to_dict()["macs_repeated"] == record.macs_repeated


FORMS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x,
    lambda x: x.contiguous(memory_format=layout(x)),
    lambda x: x.clone(memory_format=layout(x)),
    lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    lambda x: torch.cat([x, x], 1)[:, ::2],
)


@needs_loops
@pytest.mark.parametrize("threads", [1, 2])
@given(data=st.data(), rank=st.sampled_from((2, 3)), forms=st.tuples(*[st.sampled_from(FORMS)] * 2))
@settings(max_examples=100, deadline=None)
def test_the_layout_of_the_result_is_torchs(data, rank, forms, threads):
    sizes = st.sampled_from((1, 2, 5))
    grid = [data.draw(sizes) for _ in range(rank)]
    # One long side: small 3D tensors go another way in torch, which is told apart by their size.
    grid[data.draw(st.integers(0, rank - 1))] = data.draw(st.sampled_from((3, 20500 if rank == 3 else 40)))
    channels = data.draw(sizes)
    kernel = [data.draw(st.sampled_from((1, 3))) for _ in range(rank)]
    x = forms[0](torch.ones(data.draw(st.integers(1, 2)), channels, *grid))
    given = forms[1](torch.ones(data.draw(sizes), channels, *kernel))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.inference_mode():
        expected = (F.conv2d, F.conv3d)[rank - 2](x, given, padding=1)
        said = repeated.gives_channels_last(x, given)
    torch.set_num_threads(before)
    last, first = expected.is_contiguous(memory_format=layout(x)), expected.is_contiguous()
    assert last or not said
    # Where neither argument is ambiguous or has gaps, nothing is missed either.
    whole = all(t.is_contiguous() or t.is_contiguous(memory_format=layout(t)) for t in (x, given))
    if whole and rank == 2 and channels > 1 and last != first:
        assert said == last


@needs_loops
@pytest.mark.parametrize("norm", [nn.BatchNorm3d, nn.InstanceNorm3d])
def test_one_channel_at_the_input_and_rows_that_lie_otherwise_are_no_hindrance(norm):
    layers = [nn.Conv3d(1, 4, 3, padding=1), norm(4), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1)]
    model = nn.Sequential(*layers, norm(4), nn.Conv3d(4, 2, 3)).eval()
    model, x = model.to(memory_format=torch.channels_last_3d), stripped(0, (2, 1, 16, 16, 16)).contiguous()
    with torch.inference_mode():
        expected = model(x)
        with enabled(model) as record:
            found = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.stride() == expected.stride()
    repeats = {layer.layer: layer.macs_repeated for layer in record.layers}
    assert repeats["3"] > 0
    assert repeats["5"] > 0


@pytest.mark.parametrize("why", ["engine", "layout", "values", "half", "autocast", "gradients"])
def test_elsewhere_all_windows_are_computed(why):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1)).to(memory_format=torch.channels_last).eval()
    x, options = stripped(0, (1, 2, 24, 24)), {"engine": "gather"} if why == "engine" else {}
    if why == "layout":
        model, x = model.to(memory_format=torch.contiguous_format), x.contiguous()
    if why == "values":
        x = values(0, (1, 2, 24, 24), torch.float32).contiguous(memory_format=torch.channels_last)
    if why == "half":
        model, x = model.bfloat16(), x.bfloat16()
    autocast = torch.autocast("cpu", torch.bfloat16) if why == "autocast" else nullcontext()
    with torch.no_grad(), autocast:
        expected = model(x)
        with enabled(model, **options) as record:
            found = model(x)
    assert record.macs_repeated == (0 if why != "gradients" else record.macs_repeated)
    torch.testing.assert_close(found, expected)


def test_numbers_that_overflow_are_a_dense_runs_affair():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3)).eval()
    model.to(memory_format=torch.channels_last)
    model[0].weight.data[0] = torch.inf
    x = stripped(0, (1, 2, 24, 24))
    with pytest.raises(nansparse.UnexpectedNaNError, match="no pooling and no input made"), enabled(model):
        model(x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", [2, 3])
def test_every_engine_computes_the_chosen_windows(name, rank):
    engine = usable(name)
    x = values(0, (2, 6, *[7] * rank), torch.float32)
    windows = convolution_windows(x.shape[2:], 3, 2, 1)
    kernel = weight(1, 8, 6, *[3] * rank)
    sites = Sites(None, 2, windows.grid, x.device)
    activation = SparseActivation(sites, x.movedim(1, -1).reshape(-1, 6).contiguous(), partial=False)
    chosen = torch.arange(1, 2 * 4**rank, 3)
    out = Sites(chosen, 2, windows.out_grid, x.device)
    sites.plans[windows, 0.5] = WindowPlan.of_chosen(activation, windows, out)
    convolution = Convolution(kernel, weight(2, 8), windows, 1, 0.5)
    problems = engine.unsupported_reasons(activation, convolution)
    if problems:
        pytest.skip("; ".join(problems))
    found = engine.run(activation, convolution)
    expected = (F.conv2d if rank == 2 else F.conv3d)(x, kernel, convolution.bias, 2, 1)
    assert found.sites is out
    rows = expected.movedim(1, -1).reshape(-1, 8)[chosen]
    torch.testing.assert_close(found.rows, rows, rtol=1e-4, atol=1e-4)


def test_where_dense_is_as_fast_it_runs(monkeypatch):
    monkeypatch.undo()
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1)).to(memory_format=torch.channels_last).eval()
    with enabled(model) as record:
        model(stripped(0, (1, 2, 24, 24)))
    assert record.macs_repeated == 0
    assert [layer.engine for layer in record.layers] == ["torch"]


@needs_loops
@pytest.mark.parametrize("gradients", [False, True])
def test_where_no_layer_marks_any_more_repeats_are_still_spared(gradients):
    """Whether the caller records gradients, which a run does not, makes no difference."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1)).to(memory_format=torch.channels_last).eval()
    x = stripped(0, (1, 2, 24, 24))
    with torch.set_grad_enabled(gradients), enabled(model, marking="when-it-pays") as record:
        for _ in range(5):
            model(x)
        record.clear()
        model(x)
    assert record.trials is not None
    assert record.trials.nothing_marks
    assert record.macs_repeated > 0
