"""Networks of MONAI and nnU-Net at sizes they are trained with, on what `benchmarks.networks` cuts out."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmarks.networks import CLASSES, Case, head, slices
from nansparse.errors import InputError

SIDE = 96
STAGES = {"features_per_stage": [32, 64, 128, 256, 320], "strides": [1, 2, 2, 2, 2]}


def _monai(name: str, **options: Any) -> nn.Module:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise InputError("this benchmark runs MONAI's networks: pip install 'nansparse[networks]'") from error
    model: nn.Module = getattr(nets, name)(**options)
    return model


def _volumetric(name: str, **options: Any) -> nn.Module:
    return _monai(name, spatial_dims=3, in_channels=1, out_channels=CLASSES, **options)


def _nnunet(*, residual: bool) -> nn.Module:
    try:
        from dynamic_network_architectures.architectures import unet
    except ImportError as error:
        raise InputError(
            "this benchmark runs nnU-Net's networks: pip install 'nansparse[networks]'"
        ) from error
    build = unet.ResidualEncoderUNet if residual else unet.PlainConvUNet
    depth = {"n_blocks_per_stage": [1, 3, 4, 6, 6]} if residual else {"n_conv_per_stage": 2}
    return build(
        input_channels=1,
        n_stages=5,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        num_classes=CLASSES,
        n_conv_per_stage_decoder=1 if residual else 2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **STAGES,
        **depth,
    )


CASES = (
    Case(
        "MONAI UNet, residual, 32 to 256",
        lambda: _volumetric("UNet", channels=(32, 64, 128, 256), strides=(2, 2, 2), num_res_units=2),
        lambda _: head(SIDE),
    ),
    Case("MONAI BasicUNet, 32 to 256", lambda: _volumetric("BasicUNet"), lambda _: head(SIDE)),
    Case("MONAI SegResNet, 16", lambda: _volumetric("SegResNet", init_filters=16), lambda _: head(SIDE)),
    Case(
        "MONAI DynUNet, 32 to 320",
        lambda: _volumetric(
            "DynUNet",
            kernel_size=[3] * 5,
            strides=STAGES["strides"],
            upsample_kernel_size=STAGES["strides"][1:],
            filters=STAGES["features_per_stage"],
        ),
        lambda _: head(SIDE),
    ),
    Case(
        "MONAI Quicknat, 64 filters",
        lambda: _monai("Quicknat", num_classes=CLASSES, num_channels=7),
        slices,
        unpools=True,
    ),
    Case("nnU-Net plain, 32 to 320", lambda: _nnunet(residual=False), lambda _: head(SIDE)),
    Case("nnU-Net residual encoder, 32 to 320", lambda: _nnunet(residual=True), lambda _: head(SIDE)),
)
