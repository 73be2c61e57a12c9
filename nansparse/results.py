"""What goes into a model and what comes out of it: inputs are scanned once, NaN ends at the exit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from nansparse.errors import EnableError, InputError
from nansparse.marked import MarkedTensor

if TYPE_CHECKING:
    from nansparse.interception import ModelCall


@dataclass(frozen=True)
class InputForm:
    """What the arguments of one call say about the run.

    Attributes:
        channels_last: Whether activations are laid out channels last.
        requires_grad: Whether an input requires gradients.
        parameters_require_grad: Whether a dense run would build a graph.
        like: The first input of a tensor subclass (a MetaTensor, say), or None.
    """

    channels_last: bool
    requires_grad: bool
    parameters_require_grad: bool
    like: Tensor | None

    @classmethod
    def of(cls, values: Any, model: nn.Module) -> InputForm:
        """Look at the arguments of a call.

        Args:
            values: Its arguments, nested as they are.
            model: The model.

        Returns:
            What was found.

        Raises:
            InputError: If a tensor is of a kind that no CNN takes.
        """
        tensors = [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, Tensor)]
        for tensor in tensors:
            if tensor.layout != torch.strided:
                raise InputError(f"inputs must be strided tensors, got layout {tensor.layout}")
        spatial = [t for t in tensors if t.dim() in (4, 5)]
        return cls(
            channels_last=any(_is_channels_last(t) for t in spatial) or _weights_channels_last(model),
            requires_grad=any(t.requires_grad for t in tensors),
            parameters_require_grad=torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()),
            like=next((t for t in tensors if type(t) is not Tensor and not isinstance(t, nn.Parameter)), None),
        )


def released(out: Any, call: ModelCall, form: InputForm) -> Any:
    """Turn what a model returned into plain tensors, NaN replaced as the policy says.

    Args:
        out: Its output, nested as it is.
        call: The state of the call.
        form: What was found in the arguments.

    Returns:
        The output, with no marked tensor left.
    """

    def release(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for name in vars(value):
                object.__setattr__(value, name, tree_map(release, getattr(value, name)))
            return value
        if not isinstance(value, Tensor):
            return value
        value = call.untaint(value)
        if isinstance(value, MarkedTensor):
            value = _filled(value, call)
            if form.like is not None:
                value = _dressed(value, form.like)
        return _without_gradient(value) if form.parameters_require_grad else value

    return tree_map(release, out)


def _filled(value: MarkedTensor, call: ModelCall) -> Tensor:
    wanted = call.policy.output_nan
    if not value.is_floating_point() or wanted == "keep":
        return value.dense()
    if value.dim() not in (4, 5):
        return value.dense().nan_to_num(float(wanted), torch.inf, -torch.inf)
    activation = value.sparse()
    if activation.partial:
        activation = activation.with_rows(activation.rows.nan_to_num(float(wanted), torch.inf, -torch.inf))
    dense = activation.to_dense(float(wanted))
    return dense if call.channels_last else dense.contiguous()


def _dressed(value: Tensor, like: Tensor) -> Tensor:
    """Give a plain tensor the class and the attributes of an input (metadata such as an affine)."""
    dressed = value.as_subclass(type(like))
    for name, attribute in vars(like).items():
        setattr(dressed, name, attribute)
    return dressed


def _is_channels_last(x: Tensor) -> bool:
    # A tensor of one channel or one site is both; it then says nothing.
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=layout) and not x.is_contiguous()


def _weights_channels_last(model: nn.Module) -> bool:
    return any(_is_channels_last(p) for p in model.parameters() if p.dim() in (4, 5))


class _RefuseGradient(torch.autograd.Function):
    """Stands at the output of a model whose parameters require gradients, and refuses to compute them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        """Pass the value on."""
        del ctx, anchor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Refuse.

        Raises:
            EnableError: Always.
        """
        raise EnableError("nansparse runs inference only: compute gradients outside the enable block")


def _without_gradient(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    anchor = torch.zeros((), requires_grad=True)
    with torch.enable_grad():
        return _RefuseGradient.apply(value, anchor)  # type: ignore[no-any-return]
