"""3D networks that users run, on a head with its background marked, against dense runs and the bounding box.

The weights are random, which changes no time; what marking costs in accuracy is a matter of trained networks
(`make demo`, `nansparse predict --compare`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import nansparse
from nansparse.errors import InputError
from nansparse.evaluation.results import Row
from nansparse.evaluation.timing import time_interleaved
from nansparse.imaging import conform, load_template
from nansparse.zoo import UNet

CLASSES = 4
MARGIN = 2
# Every network here halves its grid at most four times.
STRIDE = 16
Way = Callable[[], Tensor]
NOTE = (
    "Random weights, the MNI152 T1 at 2 mm. Speed-up: over the faster dense layout of the same network. "
    "Share of grid: of the bounding box, and of the brain."
)


def _monai(name: str, **options: Any) -> nn.Module:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise InputError("this benchmark runs MONAI's networks: pip install 'nansparse[networks]'") from error
    model: nn.Module = getattr(nets, name)(spatial_dims=3, in_channels=1, out_channels=CLASSES, **options)
    return model


def _nnunet() -> nn.Module:
    try:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet
    except ImportError as error:
        raise InputError(
            "this benchmark runs nnU-Net's networks: pip install 'nansparse[networks]'"
        ) from error
    return PlainConvUNet(
        input_channels=1,
        n_stages=5,
        features_per_stage=[32, 64, 128, 256, 320],
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=[1, 2, 2, 2, 2],
        n_conv_per_stage=2,
        num_classes=CLASSES,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


# Name: (builder, side of the cube).
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "U-Net, max pooling, 32 to 256": (lambda: UNet(num_classes=CLASSES), 96),
    "U-Net, max unpooling, 32 to 256": (lambda: UNet(num_classes=CLASSES, unpool=True), 96),
    "U-Net, max pooling, 32 to 256, wide field": (lambda: UNet(num_classes=CLASSES), 128),
    "MONAI UNet, residual, 32 to 256": (
        lambda: _monai("UNet", channels=(32, 64, 128, 256), strides=(2, 2, 2), num_res_units=2),
        96,
    ),
    "MONAI SegResNet, 16": (lambda: _monai("SegResNet", init_filters=16), 96),
    "nnU-Net plain, 32 to 320": (_nnunet, 96),
}


def head(side: int) -> Tensor:
    """Take the skull-stripped MNI152 T1 at 2 mm.

    Args:
        side: Of the cube around it.

    Returns:
        (1, 1, side, side, side), in [0, 1], zero outside the brain.
    """
    volume = torch.from_numpy(conform(load_template().t1).data.copy()).float()[None, None] / 255
    half = nn.functional.avg_pool3d(volume, 2)
    # Averages at the rim mix in background; only whole cells are brain.
    half = half * (nn.functional.max_pool3d(-volume, 2) < 0)
    start = (half.shape[-1] - side) // 2
    part = slice(start, start + side)
    return half[:, :, part, part, part].contiguous()


def bounding_box(x: Tensor) -> tuple[slice, ...]:
    """Find the box of the nonzero voxels, widened to what the networks take.

    Args:
        x: (1, 1, *spatial), sides multiples of 16.

    Returns:
        One slice an axis.
    """
    box = []
    for axis in range(2, x.dim()):
        others = [other for other in range(x.dim()) if other != axis]
        filled = (x != 0).any(dim=others[0], keepdim=True)
        for other in others[1:]:
            filled = filled.any(dim=other, keepdim=True)
        at = filled.flatten().nonzero().flatten()
        start, stop = int(at[0]), int(at[-1]) + 1
        size = -(-(stop - start) // STRIDE) * STRIDE
        start = max(0, min(start, x.shape[axis] - size))
        box.append(slice(start, start + size))
    return tuple(box)


def measure_network(name: str, repeats: int) -> list[Row]:
    """Time one network, all ways side by side; marking the background is part of the marked run's time.

    Args:
        name: A key of `NETWORKS`.
        repeats: Counted rounds.

    Returns:
        A row a way; "speed_up" is over the faster dense layout, "share_of_grid" that of the box, and of the
        brain.
    """
    build, side = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = build().eval()
    x = head(side)
    box = (slice(None), slice(None), *bounding_box(x))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    marked = copy.deepcopy(last)

    def channels_last(part: Tensor) -> Tensor:
        return part.contiguous(memory_format=torch.channels_last_3d)

    with nansparse.enable(marked) as run:
        ways: dict[str, Way] = {
            "dense": lambda: model(x),
            "dense, channels_last": lambda: last(channels_last(x)),
            "dense, bounding box": lambda: last(channels_last(x[box])),
            "background marked": lambda: marked(channels_last(nansparse.mask_background(x, margin=MARGIN))),
        }
        times = time_interleaved(ways, repeats=repeats, warmup=1)
        run.clear()
        found, dense = ways["background marked"](), ways["dense"]()
    inside = x[:, 0] != 0
    best = min(times["dense"].median, times["dense, channels_last"].median)
    rows = {way: Row({"network": name, "grid": "x".join([str(side)] * 3)}, way) for way in times}
    for way, row in rows.items():
        row.timing, row.values = times[way].to_dict(), {"speed_up": best / times[way].median}
    size = float(torch.tensor([part.stop - part.start for part in box[2:]]).prod())
    rows["dense, bounding box"].values["share_of_grid"] = size / side**3
    own = rows["background marked"]
    own.policy = {**nansparse.Policy().to_dict(), "margin": MARGIN}
    own.layers = run.to_dict()["layers"]
    own.values |= {
        "share_of_grid": float(inside.double().mean()),
        "windows_skipped": run.windows_skipped / run.windows,
        "macs_skipped": run.macs_skipped / run.macs,
        "densified": float(run.densified),
        "agreement_inside": float((found.argmax(1) == dense.argmax(1))[inside].double().mean()),
    }
    return list(rows.values())
