"""What goes into a model and what comes out of it: inputs are scanned once, NaN ends at the exit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nansparse.deferred import DeferredTensor, settled
from nansparse.errors import EnableError, InputError, UnexpectedNaNError
from nansparse.marked import MarkedTensor
from nansparse.nesting import held_by, put, tensors_in

if TYPE_CHECKING:
    from nansparse.model_call import ModelCall

# Tensors whose class says nothing about the outputs.
_PLAIN = (nn.Parameter, MarkedTensor, DeferredTensor)
# What does its work when it is asked for.
LATER = (GeneratorType, AsyncGeneratorType, CoroutineType, map, filter, zip)
_UNEXPECTED = (
    "the model's output holds NaN that no pooling and no input made (NaN or Inf weights, overflow, a "
    "logarithm, a division): run the model without nansparse to see where it starts"
)


@dataclass(frozen=True)
class InputForm:
    """What the arguments of one call say about the run.

    Attributes:
        channels_last: Whether activations are laid out channels last.
        requires_grad: Whether an input requires gradients.
        parameters_require_grad: Whether a dense run would build a graph.
        cells: Cells of all input tensors.
        device: Where the first of them is.
        like: The first input of a tensor subclass (a MetaTensor, say), or None.
    """

    channels_last: bool
    requires_grad: bool
    parameters_require_grad: bool
    cells: int
    device: torch.device
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
        tensors = list(tensors_in(values))
        for tensor in tensors:
            if tensor.layout != torch.strided:
                raise InputError(f"inputs must be strided tensors, got layout {tensor.layout}")
        spatial = [t for t in tensors if t.dim() in (4, 5)]
        return cls(
            channels_last=any(_is_channels_last(t) for t in spatial) or _weights_channels_last(model),
            requires_grad=any(t.requires_grad for t in tensors),
            parameters_require_grad=torch.is_grad_enabled()
            and any(p.requires_grad for p in model.parameters()),
            cells=sum(t.numel() for t in tensors),
            device=tensors[0].device if tensors else torch.device("cpu"),
            like=next((t for t in tensors if type(t) is not Tensor and not isinstance(t, _PLAIN)), None),
        )


def released(out: Any, call: ModelCall, form: InputForm) -> Any:
    """Turn what a model returned into plain tensors, NaN replaced as the policy says.

    Args:
        out: Its output, nested as it is.
        call: The state of the call.
        form: What was found in the arguments.

    Returns:
        The output, with no marked tensor left.

    Raises:
        EnableError: If it holds a generator or the like, which computes later.
    """
    seen: set[int] = set()

    def release(value: Any) -> Any:
        if isinstance(value, Tensor):
            return _plain(call.untaint(settled(value)), call, form)
        if isinstance(value, LATER):
            raise EnableError(
                f"the model returned a {type(value).__name__}, whose work is done after the call, where "
                "nansparse does not see it: return a list"
            )
        if id(value) not in seen:
            seen.add(id(value))
            for container, key, held in held_by(value):
                put(container, key, tree_map(release, held))
        return value

    return tree_map(release, out)


def _plain(value: Tensor, call: ModelCall, form: InputForm) -> Tensor:
    # Turns one tensor into what a dense run would return.
    dress, like = type(value), value
    if isinstance(value, MarkedTensor):
        dress, like = (Tensor, value) if form.like is None else (type(form.like), form.like)
        plain = _filled(value, call)
    else:
        plain = value if dress is Tensor else value.as_subclass(Tensor)
        if plain.is_floating_point() and bool(plain.detach().sum().isnan()) and bool(plain.isnan().any()):
            raise UnexpectedNaNError(_UNEXPECTED)
    plain = _without_gradient(plain) if form.parameters_require_grad else plain
    return plain if dress in (Tensor, nn.Parameter) else _dressed(plain, like)


def _filled(value: MarkedTensor, call: ModelCall) -> Tensor:
    wanted = call.policy.output_nan
    if not value.is_floating_point() or wanted == "keep":
        return value.dense()
    if value.dim() not in (4, 5):
        return value.dense().nan_to_num(float(wanted), torch.inf, -torch.inf)
    activation = value.sparse()
    if not activation.partial and bool(activation.rows.sum().isnan()) and bool(activation.rows.isnan().any()):
        raise UnexpectedNaNError(_UNEXPECTED)
    if activation.partial:
        activation = activation.with_rows(activation.rows.nan_to_num(float(wanted), torch.inf, -torch.inf))
    dense = activation.to_dense(float(wanted))
    return dense if call.channels_last else dense.contiguous()


def _dressed(value: Tensor, like: Tensor) -> Tensor:
    """Give a plain tensor the class and the attributes of an input (metadata such as an affine)."""
    dressed = value.as_subclass(type(like))
    for name, attribute in vars(like).items():
        # What is added to the output's metadata must not show in the input's.
        setattr(dressed, name, copy.copy(attribute))
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
        return _RefuseGradient.apply(value, anchor)
