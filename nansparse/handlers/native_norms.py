"""`torch.layer_norm` and its kin: the arguments of `torch.nn.functional` in another order."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from nansparse.handlers import normalization
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.handlers.normalization import GROUP_NORM, LAYER_NORM
from nansparse.model_call import Handler, ModelCall

_BUFFERS = ("input", "weight", "bias", "running_mean", "running_var")
_OPTIONS = ("momentum", "eps", "cudnn_enabled")


def _as(function: Callable[..., Any], names: list[tuple[str, Any]]) -> Handler:
    """Handle a call as one of another function with the same names."""

    def handler(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del func
        bound = bind(names, args, kwargs)
        if bound is None:
            return NotImplemented
        given = {name: value for name, value in bound.items() if not name.startswith("cudnn")}
        return normalization.HANDLERS[function](call, function, (), given)

    return handler


def _required(flag: str) -> list[tuple[str, Any]]:
    return [(name, REQUIRED) for name in (*_BUFFERS, flag, *_OPTIONS)]


HANDLERS: dict[Any, Handler] = {
    torch.layer_norm: _as(F.layer_norm, [*LAYER_NORM, ("cudnn_enable", True)]),
    torch.group_norm: _as(F.group_norm, [*GROUP_NORM, ("cudnn_enabled", True)]),
    torch.instance_norm: _as(F.instance_norm, _required("use_input_stats")),
    torch.batch_norm: _as(F.batch_norm, _required("training")),
}
