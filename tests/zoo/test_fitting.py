"""The loop of every training: the schedule is walked through, and both ways of computing learn."""

import pytest
import torch
from torch import nn

from nansparse.zoo.fitting import Schedule, fit, has_bfloat16


def line(count: int, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.rand((count, 8, 1, 4, 4), generator=generator)
    return list(zip(x, 3 * x - 1, strict=True))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_network_learns_and_is_left_in_eval_mode(generator: torch.Generator, bfloat16: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()
    schedule = Schedule(120, 0.2, weight_decay=0.0, bfloat16=bfloat16)
    fit(model, line(120, generator), nn.functional.mse_loss, schedule, progress=False)
    assert not model.training
    assert model[0].weight.dtype == torch.float32
    assert model[0].weight.is_contiguous()
    assert float(model[0].weight.detach()) == pytest.approx(3, abs=0.1)
    assert float(model[0].bias.detach()) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(("capability", "wanted"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_bfloat16_is_for_processors_that_gain(
    monkeypatch: pytest.MonkeyPatch, capability: str, wanted: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert has_bfloat16() is wanted


def test_bfloat16_lays_3d_networks_out_as_volumes(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1))
    seen = []
    model.register_forward_hook(
        lambda module, inputs, out: seen.append(
            inputs[0].is_contiguous(memory_format=torch.channels_last_3d)
            and model[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
        )
    )
    x = torch.rand((1, 2, 4, 4, 4), generator=generator)
    fit(model, [(x, x)], nn.functional.mse_loss, Schedule(1, 0.1, 0.0, bfloat16=True), progress=False)
    assert seen == [True]
    assert model[0].weight.is_contiguous()


def test_bfloat16_reaches_the_network_and_not_the_loss(generator: torch.Generator) -> None:
    seen = []
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    model.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))

    def loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(out.dtype)
        return nn.functional.mse_loss(out, target)

    for bfloat16 in (False, True):
        fit(model, line(1, generator), loss, Schedule(1, 0.1, 0.0, bfloat16=bfloat16), progress=False)
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.float32]


def test_weight_decay_shrinks_what_nothing_asks_for(generator: torch.Generator) -> None:
    def norm_after(decay: float) -> float:
        model = nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            model.weight.fill_(1.0)
        schedule = Schedule(20, 0.1, weight_decay=decay)
        fit(model, line(20, generator), lambda out, _: 0.0 * out.sum(), schedule, progress=False)
        return float(model.weight.detach().abs())

    assert norm_after(0.5) < 0.9 < norm_after(0.0)
