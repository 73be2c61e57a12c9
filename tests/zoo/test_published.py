"""FONDUE and Xception: the published names and shapes, and the habits of their old checkpoints."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nansparse
from nansparse import Policy
from nansparse.errors import InputError
from nansparse.zoo import FONDUE, CheckpointError, Xception, load_weights
from tests.oracle import run_by_definition
from tests.session.nets import seeded
from tests.zoo.test_fastsurfer import frozen


@pytest.mark.parametrize("network", [FONDUE, Xception])
def test_names_and_shapes_are_those_of_the_published_checkpoints(network: type) -> None:
    with torch.device("meta"):
        state = network().state_dict()
    assert [(k, tuple(v.shape)) for k, v in sorted(state.items())] == sorted(frozen(network.__name__))


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(
                torch.rand(value.shape, generator=generator) * 0.4 + (0.3 if value.dim() < 2 else -0.2)
            )
    return model.double().eval()


def small_fondue(multiple: int = 4) -> nn.Module:
    return randomised(seeded(lambda: FONDUE(in_channels=3, num_filters=4, levels=3, multiple=multiple)))


def block(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    def conv(k: int, value: Tensor) -> Tensor:
        return F.conv2d(value, state[f"{name}.conv{k}.weight"], state[f"{name}.conv{k}.bias"], padding=1)

    slope = state[f"{name}.relu1.weight"]
    if name == "conv0_0":
        first = F.prelu(conv(1, x), slope)
        best = torch.maximum(first, conv(2, first))
    else:
        best = torch.maximum(x, conv(1, F.prelu(x, slope)))
        best = torch.maximum(best, conv(2, F.prelu(best, slope)))
    return conv(3, F.prelu(best, slope))


def test_fondue_computes_what_the_paper_draws(generator: torch.Generator) -> None:
    """Three levels spelt out node by node."""
    model = small_fondue()
    state = model.state_dict()
    x = torch.rand(2, 3, 16, 20, generator=generator, dtype=torch.float64)

    def inter(value: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(value, size=size, mode="bilinear", align_corners=False)

    def best(*values: Tensor) -> Tensor:
        return torch.stack(values).amax(0)

    x00 = block(state, "conv0_0", x)
    x10 = block(state, "conv1_0", inter(x00, (20, 24)))
    p1, i1 = F.max_pool2d(x10, 2, return_indices=True)
    x20 = block(state, "conv2_0", p1)
    p2, i2 = F.max_pool2d(x20, 2, return_indices=True)
    x30 = block(state, "conv3_0", p2)
    x01 = block(state, "conv0_1", best(x00, inter(x10, (16, 20))))
    x11 = block(state, "conv1_1", best(x10, F.max_unpool2d(x20, i1, 2)))
    x21 = block(state, "conv2_1", best(x20, F.max_unpool2d(x30, i2, 2)))
    x02 = block(state, "conv0_2", best(x00, x01, inter(x11, (16, 20))))
    x12 = block(state, "conv1_2", best(x10, x11, F.max_unpool2d(x21, i1, 2)))
    x03 = block(state, "conv0_3", best(x00, x01, x02, inter(x12, (16, 20))))
    noise, total = 0.0, 0.0
    for k, features in enumerate((x01, x02, x03), start=1):
        alpha = state[f"alpha_{k}"]
        noise = noise + alpha * F.conv2d(features, state[f"final{k}.weight"], state[f"final{k}.bias"])
        total = total + alpha
    expected = (x[:, 1:2] - noise / total).clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)
        assert float(((expected > 0) & (expected < 1)).double().mean()) > 0.05


@pytest.mark.parametrize("size", [(17, 20), (16, 21), (15, 13)])
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_odd_sizes_and_nan_follow_the_definitions(size: tuple[int, int], mode: str) -> None:
    """Odd sides use the unpool kernels (1, 1), (1, 2) and (2, 1)."""
    model = small_fondue(multiple=1)
    x = torch.zeros(1, 3, *size, dtype=torch.float64)
    x[..., 5:11, 5:11] = torch.rand(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = nansparse.mask_background(x, margin=2)
    policy = Policy(mode=mode, threshold=0.75)
    expected = run_by_definition(model, policy, x)
    with torch.inference_mode(), nansparse.enable(model, mode=mode, threshold=0.75, output_nan="keep"):
        found = model(x)
    assert torch.equal(found.isnan(), expected.isnan())
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_fondue_takes_any_voxel_size() -> None:
    model = small_fondue()
    x = torch.rand(1, 3, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert model(x, 0.5).shape == (1, 1, 12, 16)
        assert not torch.equal(model(x, 0.5), model(x, 2.0))


@pytest.mark.parametrize("options", [{"in_channels": 6}, {"levels": 1}, {"levels": 7}, {"multiple": 0}])
def test_impossible_fondues_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected an odd number of slices, 2 to 6 levels"):
        FONDUE(**options)


def small_xception() -> nn.Module:
    return randomised(seeded(lambda: Xception(num_classes=5, width=0.05, middle_blocks=1)))


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_xception_follows_the_definitions(mode: str) -> None:
    model = small_xception()
    x = torch.zeros(2, 3, 70, 71, dtype=torch.float64)
    x[:, :, 20:50, 20:50] = torch.rand(
        30, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    x = nansparse.mask_background(x)
    expected = run_by_definition(model, Policy(mode=mode, threshold=0.5), x)
    with torch.inference_mode(), nansparse.enable(model, mode=mode, output_nan="keep") as run:
        found = model(x)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert not bool(found.isnan().all())
    densified = {layer.operation for layer in run.layers if layer.densified}
    assert densified <= {"flatten"}


def test_old_checkpoints_load(tmp_path: Path) -> None:
    model, other = small_xception(), seeded(lambda: Xception(num_classes=5, width=0.05, middle_blocks=1))
    old = {
        f"module.{name}": value.float().squeeze(-1).squeeze(-1) if "pointwise" in name else value.float()
        for name, value in model.state_dict().items()
        if "num_batches_tracked" not in name
    }
    torch.save({"state_dict": old}, tmp_path / "xception.pth")
    load_weights(other, tmp_path / "xception.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value.to(other.state_dict()[name].dtype)), name
    del old["module.fc.bias"]
    torch.save(old, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"cut.pth does not fit Xception: 1 missing \(fc.bias\)"):
        load_weights(other, tmp_path / "cut.pth")


@pytest.mark.parametrize("options", [{"width": 0.0}, {"width": 2.0}, {"middle_blocks": 9}])
def test_impossible_xceptions_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"expected width in \(0, 1\] and 0 to 8 middle blocks"):
        Xception(**options)
