"""The two forms in which an activation holds its rows mean the same."""

import pytest
import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import registry
from nansparse.sites import Sites
from nansparse.windows import convolution_windows


def both_forms(partial: bool) -> tuple[SparseActivation, SparseActivation, Tensor]:
    """Make the same activation laid out and compact, and as a dense tensor."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 5, 6, generator=generator)
    x = x.masked_fill(torch.rand(2, 1, 5, 6, generator=generator) < 0.3, torch.nan)
    if partial:
        x[0, 1, 2] = torch.nan
    compact = SparseActivation.from_dense(x)
    compact = SparseActivation(compact.sites, compact.rows, compact.partial)
    grid = x.movedim(1, -1).reshape(-1, 3).clone()
    # What stands at missing sites means nothing, NaN or not.
    grid[compact.sites.missing[::2]] = 7.0
    return SparseActivation(compact.sites, grid, compact.partial, laid_out=True), compact, x


@pytest.mark.parametrize("partial", [False, True])
def test_rows_holes_and_the_dense_tensor_are_the_same(partial: bool) -> None:
    laid_out, compact, x = both_forms(partial)
    assert laid_out.laid_out
    assert not compact.laid_out
    assert compact.partial == partial
    for form in (laid_out, compact):
        torch.testing.assert_close(form.to_dense(), x, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(laid_out.rows, compact.rows, equal_nan=True, rtol=0, atol=0)
    for mine, other in zip(laid_out.holes, compact.holes, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("partial", [False, True])
def test_fewer_sites_of_either_form(partial: bool) -> None:
    laid_out, compact, _ = both_forms(partial)
    chosen = torch.arange(0, len(compact.sites), 2)
    fewer = compact.sites.take(chosen)
    for rows in (laid_out.restricted(fewer, chosen).rows, compact.restricted(fewer, chosen).rows):
        torch.testing.assert_close(rows, compact.rows[chosen], equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("name", registry.installed())
def test_engines_take_either_form_and_leave_it_what_it_was(name: str, partial: bool) -> None:
    engine = registry.get(name)
    laid_out, compact, x = both_forms(partial)
    convolution = Convolution(torch.rand(4, 3, 3, 3), None, convolution_windows((5, 6), 3, 1, 1), 1, 0.5)
    reasons = engine.unsupported_reasons(compact, convolution)
    if reasons:
        pytest.skip("; ".join(reasons))
    expected = engine.run(compact, convolution).to_dense()
    found = engine.run(laid_out, convolution).to_dense()
    torch.testing.assert_close(found, expected, equal_nan=True)
    for form in (laid_out, compact):
        torch.testing.assert_close(form.to_dense(), x, equal_nan=True, rtol=0, atol=0)


def test_an_input_is_never_written_to() -> None:
    x = torch.rand(1, 3, 5, 6).to(memory_format=torch.channels_last)
    x[..., :2] = torch.nan
    before = x.clone()
    activation = SparseActivation.from_dense(x)
    assert activation.laid_out
    convolution = Convolution(torch.rand(4, 3, 3, 3), None, convolution_windows((5, 6), 3, 1, 1), 1, 0.5)
    registry.get("dense").run(activation, convolution)
    torch.testing.assert_close(x, before, equal_nan=True, rtol=0, atol=0)


def test_a_complete_set_of_sites_is_both_forms() -> None:
    rows = torch.rand(12, 2)
    activation = SparseActivation(Sites(None, 1, (3, 4), torch.device("cpu")), rows, partial=False)
    assert activation.laid_out
    assert activation.rows is activation.values
