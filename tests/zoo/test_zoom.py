"""The interpolation layer of FastSurferVINN."""

import pytest
import torch
from torch.nn import functional as F

from nansparse.errors import InputError
from nansparse.zoo.zoom import Zoom2d, per_image_factors


def test_factor_one_on_the_target_size_changes_nothing(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 8, 6, generator=generator)
    zoomed, applied = Zoom2d((8, 6))(x, 1.0)
    assert torch.equal(zoomed, x)
    assert applied == [(1.0, 1.0)] * 2


def test_a_large_image_is_cropped_then_interpolated(generator: torch.Generator) -> None:
    x = torch.rand(1, 2, 30, 30, generator=generator)
    zoomed, applied = Zoom2d((16, 16))(x, 1.25)
    expected = F.interpolate(x[:, :, :20, :20], size=(16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(zoomed, expected)
    assert applied == [(1.25, 1.25)]


@pytest.mark.parametrize(
    ("anchor", "rows", "columns"),
    [
        ("top_left", slice(0, 8), slice(0, 6)),
        ("top_right", slice(0, 8), slice(6, 12)),
        ("bottom_left", slice(8, 16), slice(0, 6)),
        ("bottom_right", slice(8, 16), slice(6, 12)),
        ("center", slice(4, 12), slice(3, 9)),
    ],
)
def test_a_small_image_is_padded_with_zeros_away_from_its_anchor(
    anchor: str, rows: slice, columns: slice, generator: torch.Generator
) -> None:
    x = 1 + torch.rand(1, 1, 8, 6, generator=generator)
    zoomed, _ = Zoom2d((16, 12), anchor=anchor)(x, 1.0)
    assert torch.equal(zoomed[:, :, rows, columns], x)
    assert int((zoomed == 0).sum()) == 16 * 12 - 8 * 6


@pytest.mark.parametrize("voxel", [0.7, 0.8, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_way_back_restores_the_size_and_a_linear_ramp(voxel: float, dtype: torch.dtype) -> None:
    # 224 pixels of 0.7 mm are 156.8 mm; every image here fits into 320 pixels of 1 mm.
    ramp = torch.arange(224.0).view(1, 1, 224, 1).expand(1, 1, 224, 200)
    inner, applied = Zoom2d((320, 320))(ramp, torch.full((1, 1), 1 / voxel, dtype=dtype))
    back = [(1 / rows, 1 / columns) for rows, columns in applied]
    restored, _ = Zoom2d((320, 320))(inner, back, target_shape=(224, 200))
    assert restored.shape == ramp.shape
    torch.testing.assert_close(restored[..., 4:-4, 4:-4], ramp[..., 4:-4, 4:-4], atol=0.02, rtol=0)


def test_rounding_noise_loses_no_pixel() -> None:
    # 320 pixels of 0.7 mm are 224 of 1 mm; float32 and float64 noise must not make them 223.
    for dtype in (torch.float32, torch.float64):
        _, applied = Zoom2d((256, 256))(torch.ones(1, 1, 320, 320), torch.full((1, 1), 1 / 0.7, dtype=dtype))
        assert applied == [(320 / 224, 320 / 224)]


def test_each_image_has_its_own_factor(generator: torch.Generator) -> None:
    x = torch.rand(3, 1, 20, 20, generator=generator)
    zoom = Zoom2d((16, 16))
    together, applied = zoom(x, [[1.25], [1.25], [1.0]])
    assert torch.equal(together[:2], zoom(x[:2], 1.25)[0])
    assert torch.equal(together[2:], zoom(x[2:], 1.0)[0])
    assert applied == [(1.25, 1.25), (1.25, 1.25), (1.0, 1.0)]


def test_factors_are_spelt_out() -> None:
    assert per_image_factors(1.5, 2) == [(1.5, 1.5)] * 2
    assert per_image_factors([1.0, 2.0], 2) == [(1.0, 1.0), (2.0, 2.0)]
    assert per_image_factors([[1.0, 2.0]], 2) == [(1.0, 2.0)] * 2


@pytest.mark.parametrize(
    ("factors", "batch", "message"),
    [
        ([1.0, 2.0, 3.0], 2, r"scale factors of shape \(3, 1\) for a batch of 2"),
        ([[1.0, 2.0, 3.0]], 1, r"expected one number, \(1, 1\) or \(1, 2\)"),
        (0.0, 1, "must be positive and finite"),
        (float("nan"), 1, "must be positive and finite"),
        (1.0, 0, "an empty batch"),
    ],
)
def test_factors_that_fit_nothing_are_refused(factors: object, batch: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        per_image_factors(factors, batch)


def test_unknown_options_name_what_is_supported() -> None:
    with pytest.raises(InputError, match="mode is 'cubic'; supported: nearest, bilinear, bicubic, area"):
        Zoom2d((4, 4), mode="cubic")
    with pytest.raises(InputError, match="anchor is 'middle'; supported: top_left, .*center"):
        Zoom2d((4, 4), anchor="middle")
