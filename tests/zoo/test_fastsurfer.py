"""FastSurferCNN and FastSurferVINN: FastSurfer's parameter names, its arithmetic, its limits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nansparse.errors import InputError
from nansparse.zoo import FastSurferCNN, FastSurferVINN
from nansparse.zoo.fastsurfer import initialise

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = (FastSurferCNN, FastSurferVINN)


def frozen(name: str) -> list[tuple[str, tuple[int, ...]]]:
    pairs = (line.split() for line in (GOLDEN / f"{name}.txt").read_text().splitlines())
    return [(key, () if shape == "scalar" else tuple(map(int, shape.split("x")))) for key, shape in pairs]


def small(network: type, **options: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        model = network(num_filters=6, num_classes=5, **options)
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("network", NETWORKS)
def test_names_and_shapes_are_those_of_the_published_checkpoints(network: type) -> None:
    with torch.device("meta"):
        state = network().state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == frozen(network.__name__)


def test_the_sagittal_network_has_51_classes() -> None:
    with torch.device("meta"):
        state = FastSurferVINN(num_classes=51).state_dict()
    expected = [
        (key, (51, *shape[1:]) if key.startswith("classifier") else shape)
        for key, shape in frozen("FastSurferVINN")
    ]
    assert [(key, tuple(value.shape)) for key, value in state.items()] == expected


def written_out(state: dict[str, Tensor], name: str, x: Tensor, kind: str) -> Tensor:
    """One block spelt out step by step from the published description, with functional calls only."""

    def norm(key: str, value: Tensor) -> Tensor:
        at = f"{name}.{key}"
        return F.batch_norm(
            value,
            state[f"{at}.running_mean"],
            state[f"{at}.running_var"],
            state[f"{at}.weight"],
            state[f"{at}.bias"],
        )

    def conv(i: int, value: Tensor) -> Tensor:
        return F.conv2d(value, state[f"{name}.conv{i}.weight"], state[f"{name}.conv{i}.bias"], padding=1)

    slope = state[f"{name}.prelu.weight"]
    if kind == "input":
        m1 = norm("bn1", conv(0, norm("bn0", x)))
    else:
        m1 = torch.maximum(x, norm("bn1", conv(0, F.prelu(x, slope))))
    m2 = torch.maximum(m1, norm("bn2", conv(1, F.prelu(m1, slope))))
    m3 = torch.maximum(m2, norm("bn3", conv(2, F.prelu(m2, slope))))
    return norm("bn4", conv(3, F.prelu(m3, slope)))


def test_the_cnn_computes_what_the_paper_describes(generator: torch.Generator) -> None:
    model = small(FastSurferCNN)
    state = model.state_dict()
    image = torch.rand(2, 7, 32, 48, generator=generator)
    skips, places, x = [], [], image
    for level in range(1, 5):
        skip = written_out(state, f"encode{level}", x, "input" if level == 1 else "inner")
        x, indices = F.max_pool2d(skip, 2, return_indices=True)
        skips.append(skip)
        places.append(indices)
    x = written_out(state, "bottleneck", x, "inner")
    for level in range(4, 0, -1):
        unpooled = F.max_unpool2d(x, places[level - 1], 2)
        x = written_out(state, f"decode{level}", torch.maximum(unpooled, skips[level - 1]), "inner")
    expected = F.conv2d(x, state["classifier.conv.weight"], state["classifier.conv.bias"])
    with torch.no_grad():
        torch.testing.assert_close(model(image), expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_pools_and_unpools_are_modules_with_indices(network: type) -> None:
    modules = list(small(network).modules())
    pools = [m for m in modules if isinstance(m, nn.MaxPool2d)]
    assert len(pools) == 4
    assert all(pool.return_indices for pool in pools)
    assert sum(isinstance(m, nn.MaxUnpool2d) for m in modules) == 4


@pytest.mark.parametrize("kernel_size", [1, 5])
def test_other_kernels_keep_the_size(kernel_size: int, generator: torch.Generator) -> None:
    model = small(FastSurferCNN, kernel_size=kernel_size)
    with torch.no_grad():
        assert model(torch.rand(1, 7, 16, 32, generator=generator)).shape == (1, 5, 16, 32)


def test_vinn_takes_any_size_and_voxel_size(generator: torch.Generator) -> None:
    model = small(FastSurferVINN, inner_shape=(32, 32))
    image = torch.rand(2, 7, 41, 37, generator=generator)
    with torch.no_grad():
        together = model(image, [[1.3, 1.25], [0.9, 1.1]])
        apart = [model(image[:1], [[1.3, 1.25]]), model(image[1:], [[0.9, 1.1]])]
    assert together.shape == (2, 5, 41, 37)
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("network", NETWORKS)
def test_even_kernels_are_refused(network: type) -> None:
    with pytest.raises(InputError, match="kernel_size must be odd, got 4"):
        network(kernel_size=4)


def test_sizes_that_cannot_be_pooled_four_times_are_refused() -> None:
    with pytest.raises(InputError, match="multiples of 16 .*, got 32 x 40"):
        small(FastSurferCNN)(torch.zeros(1, 7, 32, 40))


def test_initialise_depends_on_its_generator_alone() -> None:
    first, second = small(FastSurferCNN), small(FastSurferCNN)
    before = torch.random.get_rng_state()
    for model in (first, second):
        initialise(model, torch.Generator().manual_seed(5))
    assert torch.equal(before, torch.random.get_rng_state())
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    initialise(second, torch.Generator().manual_seed(6))
    assert not torch.equal(first.encode1.conv0.weight, second.encode1.conv0.weight)
