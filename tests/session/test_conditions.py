"""The conditions a model runs under: types, autocast, changed weights, no batch axis, many forwards."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import nansparse
from nansparse import Policy
from tests.engines.registered import NAMES, usable
from tests.oracle import run_by_definition
from tests.session.nets import NETS, SegNet, Shared, image, image_for, seeded


def run(model: nn.Module, x: Tensor, **options: object) -> Tensor:
    with nansparse.enable(model, output_nan="keep", **options):
        return model(x).detach()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["SegNet", "shared modules", "3D U-Net"])
def test_every_float_type(name, dtype):
    model, x = seeded(NETS[name]).to(dtype), image_for(name, dtype=dtype)
    x = x.masked_fill(x == 0, torch.nan)
    out = run(model, x)
    assert out.dtype == dtype
    assert out.isnan().any()
    assert not out.isnan().all()


@pytest.mark.parametrize("weights", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("background", [False, True])
def test_autocast_gives_the_type_that_the_dense_model_gives(weights, background):
    model, x = seeded(SegNet).to(weights), image(dtype=weights)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(x).dtype
        layer = model.first(x).dtype
    x = x.masked_fill(x == 0, torch.nan) if background else x
    seen = []
    model.third.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert run(model, x).dtype == expected
    assert seen == [layer]


def test_autocast_heads():
    model, x = seeded(NETS["classifier"]), image()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(x).dtype
        assert run(model, x, mode="aggressive").dtype == expected


def test_input_and_weights_of_two_types_are_refused_by_name():
    model, x = seeded(SegNet), image(dtype=torch.float64)
    with (
        nansparse.enable(model),
        pytest.raises(nansparse.InputError, match="float64.*float32.*one dtype, or autocast"),
    ):
        model(x.masked_fill(x == 0, torch.nan))


def replaced(model: nn.Module) -> None:
    model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})


def edited(model: nn.Module) -> None:
    model.third.weight.data.mul_(-1.0)


def pointed_elsewhere(model: nn.Module) -> None:
    model.third.weight.data = model.third.weight.data * 3


def parametrized(model: nn.Module) -> None:
    parametrizations.weight_norm(model.third)
    model.third.parametrizations.weight.original0.data.mul_(2)


def widened(model: nn.Module) -> None:
    model.double()


@pytest.mark.parametrize("change", [replaced, edited, pointed_elsewhere, parametrized, widened])
@pytest.mark.parametrize("engine", ["auto", *NAMES])
def test_weights_changed_between_calls_are_the_ones_used(change, engine):
    if engine != "auto":
        usable(engine)
    model, x = seeded(SegNet), image()
    with nansparse.enable(model, output_nan="keep", engine=engine):
        before = model(x).detach()
        change(model)
        x = x.to(model.last.weight.dtype)
        after = model(x).detach()
    expected = run_by_definition(model, Policy(), x)
    assert torch.equal(after.isnan(), expected.isnan())
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert change is widened or not torch.allclose(after, before, equal_nan=True)


class Unbatched(nn.Module):
    """One image without a batch axis, all the way."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.options = {"kernel_size": 2 + padding, "stride": 2, "padding": padding}

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        self.size = x.shape[-2:]
        x, indices = F.max_pool2d(x, **self.options, return_indices=True)
        return self.last(F.max_unpool2d(x, indices, **self.options, output_size=self.size))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_an_image_without_batch_axis_is_a_batch_of_one(mode, background, padding):
    model, x = seeded(lambda: Unbatched(padding)).double(), image(1, dtype=torch.float64)
    x = x.masked_fill(x == 0, torch.nan) if background else x
    expected = run(model, x, mode=mode, threshold=0.2)[0]
    found = run(model, x[0], mode=mode, threshold=0.2)
    assert expected.isnan().any()
    assert torch.equal(found.isnan(), expected.isnan())
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_modes_pad_first_and_convolve_then(mode):
    model = seeded(lambda: nn.Conv2d(1, 3, 3, padding=1, padding_mode=mode))
    x = image()
    x = x.masked_fill(x == 0, torch.nan)
    expected = run_by_definition(model, Policy(), x)
    assert expected.isnan().any()
    torch.testing.assert_close(run(model, x), expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_memory_stays_flat_over_200_forwards():
    model, x = seeded(SegNet), image(1, 16, 16)
    with nansparse.enable(model) as record:
        for _ in range(20):
            model(x)
        gc.collect()
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        for _ in range(200):
            model(x)
        gc.collect()
        assert len(gc.get_objects()) - objects < 50
        assert sys.getallocatedblocks() - blocks < 1000
    assert record.forwards == 220


@pytest.mark.parametrize("last", [False, True])
def test_no_tensor_outlives_a_forward(last):
    """Nothing waits for the garbage collector: activations are large."""
    model, x = seeded(Shared), image()
    model = model.to(memory_format=torch.channels_last) if last else model

    def alive() -> int:
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    with nansparse.enable(model):
        model(x)
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(5):
                model(x)
            assert alive() <= before
        finally:
            gc.enable()


def test_images_of_many_sizes_do_not_pile_up():
    model = seeded(SegNet)
    with nansparse.enable(model):
        for size in range(16, 76, 2):
            model(image(1, 16, size))
        gc.collect()
        before = sum(isinstance(thing, Tensor) for thing in gc.get_objects())
        for size in range(80, 140, 2):
            model(image(1, 16, size))
        gc.collect()
        assert sum(isinstance(thing, Tensor) for thing in gc.get_objects()) - before < 20


def test_the_random_state_of_the_caller_is_untouched():
    model, x = seeded(SegNet), image()
    state = torch.random.get_rng_state()
    run(model, x)
    run(model, x, mode="aggressive", nan_probability=0.5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_input_is_not_changed_even_by_in_place_layers():
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x.detach(), inplace=True) + 1

    x = image()
    x = x.masked_fill(x == 0, torch.nan)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = (x - 0.5).contiguous(memory_format=layout)
        before = given.clone()
        run(InPlace().eval(), given)
        assert torch.equal(given.nan_to_num(9.0), before.nan_to_num(9.0))


def test_several_inputs_by_name_and_in_containers():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def forward(
            self, pair: dict[str, list[Tensor]], *, scale: float, more: Tensor | None = None
        ) -> Tensor:
            return self.layer(pair["images"][0] * scale) + self.layer(more)

    model, x = seeded(Two), image()
    holed = x.masked_fill(x == 0, torch.nan)
    with nansparse.enable(model, output_nan="keep") as record:
        out = model({"images": [holed]}, scale=2.0, more=x)
        again = model({"images": [x]}, scale=2.0, more=holed)
    assert record.windows_skipped > 0
    assert out.isnan().any()
    assert torch.equal(out.isnan(), again.isnan())


OPTIONAL = {"nibabel", "scipy", "nilearn", "matplotlib", "safetensors", "spconv", "MinkowskiEngine", "monai"}


@pytest.mark.parametrize(("module", "loads"), [("nansparse", False), ("nansparse, scipy", True)])
def test_importing_loads_no_optional_library(module, loads):
    """The second case shows that this test can fail."""
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert bool(set(found.split()) & OPTIONAL) is loads


def test_a_deep_copy_of_the_results_is_ordinary():
    out = run(seeded(SegNet), image())
    assert type(copy.deepcopy(out)) is Tensor
