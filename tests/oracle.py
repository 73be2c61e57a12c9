"""Runs a model by the definitions alone: every operation of `nansparse.functional` on dense tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nansparse import Policy
from nansparse import functional as spec


class ByDefinition(TorchFunctionMode):
    """Replaces what nansparse defines by its definition, and leaves the rest to IEEE."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.ties: dict[int, tuple[Tensor, Tensor | None]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        threshold = self.policy.threshold
        if func in (F.conv2d, F.conv3d):
            return spec.nan_conv(*args, **kwargs, threshold=threshold)
        if func in (F.conv_transpose2d, F.conv_transpose3d):
            return spec.nan_conv_transpose(*args, **kwargs, threshold=threshold)
        if func is F.linear:
            return spec.nan_linear(*args, **kwargs, threshold=threshold)
        if func in (F.max_pool2d, F.max_pool3d):
            return self._pool(args, {k: v for k, v in kwargs.items() if k != "return_indices"}).values
        if func in (F.max_pool2d_with_indices, F.max_pool3d_with_indices):
            result = self._pool(args[:6], {k: v for k, v in kwargs.items() if k != "return_indices"})
            # Holding the indices keeps their id theirs.
            self.ties[id(result.indices)] = (result.indices, result.ties)
            return result.values, result.indices
        if func in (F.max_unpool2d, F.max_unpool3d):
            return spec.nan_max_unpool(*args, **kwargs, ties=self.ties[id(args[1])][1])
        if func in (F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
            x, nan = args[0].nan_to_num(0.0), args[0].isnan()
            return func(x, *args[1:], **kwargs) / func((~nan).to(x.dtype), *args[1:], **kwargs)
        if func is F.group_norm:
            return _group_norm(*args, **kwargs)
        if func is F.instance_norm and kwargs.get("use_input_stats", True):
            return _instance_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _pool(self, args: Any, kwargs: Any) -> spec.MaxPoolResult:
        policy = self.policy
        return spec.nan_max_pool(
            *args,
            **kwargs,
            mode=policy.mode,
            max_ties=policy.max_ties,
            epsilon=policy.epsilon,
            nan_probability=policy.nan_probability,
            generator=policy.generator,
        )


def _group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Take the statistics over the real values."""
    apart = x.unflatten(1, (groups, -1))
    axes = tuple(range(2, apart.dim()))
    centred = apart - apart.nanmean(axes, keepdim=True)
    out = centred / (centred.square().nanmean(axes, keepdim=True) + eps).sqrt()
    shape = (-1, *[1] * (x.dim() - 2))
    return out.flatten(1, 2) * weight.view(shape) + bias.view(shape)


def _instance_norm(
    x: Tensor, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, **options: Any
) -> Tensor:
    """One group a channel; the running statistics of a layer in eval mode that tracks none are None."""
    assert mean is None
    assert var is None
    weight = x.new_ones(x.shape[1]) if weight is None else weight
    bias = x.new_zeros(x.shape[1]) if bias is None else bias
    return _group_norm(x, x.shape[1], weight, bias, options.get("eps", 1e-5))


def run_by_definition(model: nn.Module, policy: Policy, *inputs: Tensor) -> Tensor:
    """Run a model; NaN stays in its output."""
    with torch.no_grad(), ByDefinition(policy):
        return model(*inputs)
