"""Networks as their libraries build them, small enough for a test: one entry a variant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks.nets import BasicUNet, DynUNet, Quicknat, SegResNet, UNet
from torch import nn

WIDTHS = (6, 8, 10, 12, 14, 6)
DYNUNET = {
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [6, 8, 10],
}
UNET = {"in_channels": 1, "out_channels": 3, "channels": (6, 8, 10), "strides": (2, 2)}


def nnunet(rank: int, *, residual: bool) -> nn.Module:
    """As nnU-Net's planner builds them: instance norm, leaky ReLU, strided down, transposed up."""
    build: Any = ResidualEncoderUNet if residual else PlainConvUNet
    counts = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return build(
        input_channels=1,
        n_stages=3,
        features_per_stage=[6, 8, 10],
        conv_op=(nn.Conv2d, nn.Conv3d)[rank - 2],
        kernel_sizes=3,
        strides=[1, 2, 2],
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=(nn.InstanceNorm2d, nn.InstanceNorm3d)[rank - 2],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **{counts: [1, 2, 1]},
    )


BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "BasicUNet": lambda rank: BasicUNet(rank, 1, 3, features=WIDTHS),
    "BasicUNet, interpolating": lambda rank: BasicUNet(rank, 1, 3, features=WIDTHS, upsample="nontrainable"),
    "BasicUNet, pixel shuffle": lambda rank: BasicUNet(rank, 1, 3, features=WIDTHS, upsample="pixelshuffle"),
    "UNet": lambda rank: UNet(rank, **UNET, num_res_units=0),
    "UNet, residual": lambda rank: UNet(rank, **UNET, num_res_units=2),
    "UNet, batch norm": lambda rank: UNet(rank, **UNET, num_res_units=2, norm="BATCH"),
    "SegResNet": lambda rank: SegResNet(
        rank, init_filters=8, in_channels=1, out_channels=3, blocks_down=(1, 2, 2), blocks_up=(1, 1)
    ),
    "DynUNet": lambda rank: DynUNet(rank, **DYNUNET),
    "DynUNet, residual": lambda rank: DynUNet(rank, **DYNUNET, res_block=True),
    "nnU-Net, plain": lambda rank: nnunet(rank, residual=False),
    "nnU-Net, residual encoder": lambda rank: nnunet(rank, residual=True),
}
# Their own reshapes to and from more axes lay the activation out; every one of them is counted.
DENSIFYING = {"BasicUNet, pixel shuffle"}
CASES = [(name, rank) for name in BUILDERS for rank in (2, 3)]


def build(name: str, rank: int) -> nn.Module:
    """Build a network in double precision: the same weights every time, statistics that are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (
            Quicknat(num_classes=3, num_channels=1, num_filters=6)
            if name == "Quicknat"
            else BUILDERS[name](rank)
        )
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.double().eval()
