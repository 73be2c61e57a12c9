"""`mask_background`: constant regions at the border become NaN, what they enclose and a margin do not."""

from collections import deque
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import nansparse
from nansparse.background import MISSING, _flooded, _touching_border
from nansparse.errors import InputError

NAN = torch.nan


def flooded(image: Tensor, margin: int) -> Tensor:
    """Background of one image (C, *spatial) cell by cell: a flood from the border, then the margin."""
    empty = (image == 0).all(0)
    grid = empty.shape
    edge = [
        c for c in product(*map(range, grid)) if any(i in (0, s - 1) for i, s in zip(c, grid, strict=True))
    ]
    reached = {cell for cell in edge if empty[cell]}
    queue = deque(reached)
    while queue:
        cell = queue.popleft()
        for axis, step in product(range(len(grid)), (-1, 1)):
            near = tuple(i + step * (axis == a) for a, i in enumerate(cell))
            inside = all(0 <= i < s for i, s in zip(near, grid, strict=True))
            if inside and near not in reached and empty[near]:
                reached.add(near)
                queue.append(near)
    out = torch.zeros(grid, dtype=torch.bool)
    kept = [c for c in product(*map(range, grid)) if c not in reached]
    for cell in reached:
        out[cell] = all(max(abs(a - b) for a, b in zip(cell, k, strict=True)) > margin for k in kept)
    return out


@given(
    seed=st.integers(0, 10_000),
    grid=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    density=st.floats(0.0, 0.7),
)
def test_the_flood_of_gpus_reaches_what_the_labels_of_cpus_reach(
    seed: int, grid: list[int], density: float
) -> None:
    constant = torch.rand(2, *grid, generator=torch.Generator().manual_seed(seed)) >= density
    assert torch.equal(_flooded(constant), _touching_border(constant))


@given(
    seed=st.integers(0, 10_000),
    grid=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    channels=st.integers(1, 3),
    density=st.floats(0.0, 0.6),
    margin=st.integers(0, 3),
)
def test_it_is_the_flood_from_the_border(
    seed: int, grid: list[int], channels: int, density: float, margin: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(2, channels, *grid, generator=generator) < density).float()
    before = x.clone()
    out = nansparse.mask_background(x, margin=margin)
    expected = torch.stack([flooded(image, margin) for image in x])[:, None].expand_as(x)
    assert torch.equal(out.isnan(), expected)
    assert torch.equal(out[~expected], x[~expected])
    assert torch.equal(x, before)


def ring() -> Tensor:
    """A 5x5 ring in a 9x9 image: nothing inside, nothing around."""
    x = torch.zeros(1, 1, 9, 9)
    x[..., 2:7, 2:7] = 1
    x[..., 3:6, 3:6] = 0
    return x


def test_what_the_head_encloses_stays() -> None:
    out = nansparse.mask_background(ring())
    assert not out[..., 2:7, 2:7].isnan().any()
    assert int(out.isnan().sum()) == 81 - 25


def test_cells_that_touch_at_a_corner_only_are_not_connected() -> None:
    x = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])[None, None]
    marked = nansparse.mask_background(x).isnan()[0, 0]
    assert marked.nonzero().tolist() == [[2, 2], [2, 3]]


def test_a_stack_of_slices_is_background_where_every_slice_is() -> None:
    x = torch.zeros(1, 3, 4, 4)
    x[0, 1, 1, 1] = 1
    marked = nansparse.mask_background(x).isnan()
    assert not marked[:, :, 1, 1].any()
    assert int(marked.sum()) == 3 * 15


def test_the_value_may_differ_between_channels_and_samples() -> None:
    levels = torch.tensor([[-0.7, 2.0], [-0.3, 5.0]])
    x = levels[..., None, None].expand(2, 2, 6, 6).clone()
    x[..., 2:4, 2:4] = 1.5
    marked = nansparse.mask_background(x, value=None).isnan()
    assert int(marked.sum()) == 2 * 2 * 32
    one = nansparse.mask_background(x[:1], value=[-0.7, 2.0]).isnan()
    assert torch.equal(one, marked[:1])
    assert not nansparse.mask_background(x, value=-0.7).isnan().any()


def test_a_given_mask_replaces_the_search_and_needs_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.ndimage", None)
    x = torch.rand(2, 3, 4, 5, 6)
    brain = torch.zeros(4, 5, 6)
    brain[1:3, 1:3, 1:3] = 1
    out = nansparse.mask_background(x, mask=brain)
    assert torch.equal(out.isnan(), (brain == 0).expand_as(x))
    per_sample = torch.stack([brain, torch.ones_like(brain)])
    for shaped in (per_sample, per_sample[:, None], per_sample.bool()):
        assert torch.equal(
            nansparse.mask_background(x, mask=shaped).isnan().any(1), per_sample.reshape(2, 4, 5, 6) == 0
        )
    with pytest.raises(InputError, match="needs scipy: pip install 'nansparse") as caught:
        nansparse.mask_background(x)
    assert str(caught.value) == MISSING


def test_the_margin_may_differ_between_axes() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 4] = 1
    kept = ~nansparse.mask_background(x, margin=(1, 3)).isnan()
    assert kept[0, 0].nonzero().tolist() == [[r, c] for r in (3, 4, 5) for c in range(1, 8)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_type_and_memory_format_are_kept(dtype: torch.dtype) -> None:
    x = ring().repeat(2, 3, 1, 1).to(dtype).to(memory_format=torch.channels_last)
    out = nansparse.mask_background(x)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_nan_that_is_there_already_is_background() -> None:
    x = ring()
    x[..., :2, :] = NAN
    assert torch.equal(nansparse.mask_background(x).isnan(), nansparse.mask_background(ring()).isnan())


def test_what_touches_nan_that_touches_the_border_is_background() -> None:
    x = torch.ones(2, 3, 8, 8)
    x[0, 1, 0], x[0, :, 1:3] = NAN, 0.0
    x[0, ::2, 0] = 0.0
    marked = nansparse.mask_background(x)
    assert marked[0, :, :3].isnan().all()
    assert torch.equal(marked[0, :, 3:], x[0, :, 3:])
    assert torch.equal(marked[1], x[1])


@pytest.mark.parametrize("margin", [*range(12), 40])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_margin_reaches_as_far_as_it_says(axis: int, margin: int) -> None:
    x = torch.zeros(2, 1, 17, 17)
    x[0, :, 5, 3], x[1, :, 16, 16] = 1.0, 1.0
    margins = [margin if axis == other else 0 for other in (2, 3)]
    marked = nansparse.mask_background(x, margin=margins)
    for sample, (row, column) in enumerate(((5, 3), (16, 16))):
        distance = (torch.arange(17) - (row if axis == 2 else column)).abs()
        line = marked[sample, 0].select(*((1, column) if axis == 2 else (0, row)))
        assert torch.equal(line.isnan(), distance > margin)
        assert int((~marked[sample].isnan()).sum()) == int((distance <= margin).sum())


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (1, 1, 0, 4), (1, 1, 1, 1)])
def test_empty_and_smallest_images(shape: tuple[int, ...]) -> None:
    out = nansparse.mask_background(torch.zeros(shape), margin=2)
    assert out.shape == shape
    assert bool(out.isnan().all())


def test_a_run_skips_what_was_marked_and_differs_nowhere_else() -> None:
    with torch.random.fork_rng(devices=[]):
        model = torch.nn.Conv2d(1, 4, 3, padding=1).eval()
    x = torch.zeros(1, 1, 16, 16)
    x[..., 6:10, 6:10] = 1
    with torch.inference_mode(), nansparse.enable(model, threshold=1.0) as run:
        out = model(nansparse.mask_background(x, margin=1))
    with torch.inference_mode():
        dense = model(x)
    # 5:11 is kept, and so is every window that meets it or the padding.
    assert run.windows_skipped == 14 * 14 - 8 * 8
    inside = (slice(None), slice(None), slice(6, 10), slice(6, 10))
    torch.testing.assert_close(out[inside], dense[inside])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"x": torch.zeros(4, 4)},
            r"x must be \(N, C, H, W\) or .*got \(4, 4\): a single image needs x\[None\]",
        ),
        ({"x": "image"}, "got str"),
        ({"x": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, r"got torch.uint8: convert it with .float\(\)"),
        ({"margin": -1}, "margin must be an integer >= 0, or one for each of 2 spatial axes, got -1"),
        ({"margin": 1.5}, "got 1.5"),
        ({"margin": True}, "got True"),
        ({"margin": (1, 2, 3)}, r"got \(1, 2, 3\)"),
        ({"value": [0.0, 1.0, 2.0]}, "one for each of 2 channels"),
        ({"value": "black"}, "value must be a number, one number a channel, or None, got 'black'"),
        ({"mask": torch.zeros(4, 4)}, r"over the spatial axes \(9, 9\) of x, got \(4, 4\)"),
        ({"mask": [1]}, "got list"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        nansparse.mask_background(**{"x": torch.zeros(1, 2, 9, 9), **arguments})
    assert "\n" not in str(caught.value)
