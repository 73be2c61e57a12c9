"""What a model must be before nansparse runs it, and the remedy where it is not."""

from __future__ import annotations

import torch
from torch import nn

from nansparse.errors import EnableError, InputError
from nansparse.results import InputForm

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
DIFFER_IN_TRAINING = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


def unwrapped(model: nn.Module) -> nn.Module:
    """Find the module that computes: inside a data-parallel wrapper it is what the replicas are made of.

    Args:
        model: A model.

    Returns:
        The model, or the one inside the wrapper.

    Raises:
        InputError: If it is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model.module if isinstance(model, PARALLEL) else model


def check_model(model: nn.Module) -> None:
    """Check that a model can be enabled.

    Args:
        model: The model.

    Raises:
        EnableError: If it cannot; the message says what to do.
    """
    for name, module in model.named_modules():
        where = f" (module {name!r})" if name else ""
        if isinstance(module, torch.jit.ScriptModule):
            raise EnableError(
                f"TorchScript hides its operations{where}: enable the Python model it was made from"
            )
        if getattr(type(module), "_nansparse_session", None) is not None:
            raise EnableError(f"the model is enabled already{where}: leave that block first")
        if (
            type(module).__name__ == "OptimizedModule"
            or getattr(module, "_compiled_call_impl", None) is not None
        ):
            raise EnableError(
                f"torch.compile hides the operations{where}: enable the model before compiling it"
            )
        if module.training:
            raise EnableError(f"the model is in training mode{where}: call model.eval() first")
    if "forward" in vars(model):
        raise EnableError(
            "the model's forward was replaced on the instance: put it into its class, or undo it"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not tensor.is_meta and bool(tensor.detach().isnan().any()):
            raise EnableError(f"parameter or buffer {name!r} holds NaN: load sound weights first")


def _called_by_compiled_code() -> bool:
    """Say whether torch.compile looks at the code that runs now; what it cannot trace, it runs as it is."""
    # Public functions answer only inside what is traced. None and False mean that no compiler listens.
    return bool(torch._C._dynamo.eval_frame.get_eval_frame_callback())


def check_call(model: nn.Module, form: InputForm) -> None:
    """Check one call.

    Args:
        model: The model or a copy of it.
        form: What was found in its arguments.

    Raises:
        EnableError: If the call cannot run; the message says what to do.
    """
    if torch.compiler.is_compiling() or _called_by_compiled_code():
        raise EnableError(
            "torch.compile traces a model that is enabled: call the model itself inside the block"
        )
    for name, module in model.named_modules():
        if module.training and (module is model or isinstance(module, DIFFER_IN_TRAINING)):
            where = f" (module {name!r})" if name else ""
            raise EnableError(
                f"the model was put into training mode{where}: call model.eval() before the call"
            )
    if torch.is_grad_enabled() and form.requires_grad:
        raise EnableError(
            "an input requires gradients, and skipped windows have none: call it under "
            "torch.inference_mode(), or on x.detach(), or compute gradients outside the block"
        )
