"""FastSurferCNN and FastSurferVINN: U-Nets of competitive dense blocks over seven neighbouring slices.

Published as Henschel et al., "FastSurfer" (NeuroImage 2020) and "FastSurferVINN" (NeuroImage 2022). Written
anew, with the parameter names of the originals, so that their checkpoints load (see
`nansparse.zoo.checkpoints`). The input is (N, C, H, W): C neighbouring slices of a conformed volume, of which
the middle one is labelled; H and W are multiples of 16 (four poolings).
"""

import torch
from torch import Tensor, nn

from nansparse.errors import InputError
from nansparse.zoo.fastsurfer_blocks import (
    CompetitiveBlock,
    DecoderBlock,
    EncoderBlock,
    InputBlock,
    InputEncoderBlock,
    OutputBlock,
)
from nansparse.zoo.zoom import Factors, Zoom2d

STRIDE = 16


class _Classifier(nn.Module):
    """The convolution that turns feature maps into one score per class."""

    def __init__(self, in_channels: int, num_classes: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.conv(x)
        return scores


class _UNet(nn.Module):
    """Four encoders, a bottleneck and four decoders; what both networks share."""

    def __init__(self, in_channels: int, num_filters: int, kernel_size: int) -> None:
        """Create the layers.

        Args:
            in_channels: Channels of the U-Net's input.
            num_filters: Channels of every feature map.
            kernel_size: Side of the square convolution kernels, odd.

        Raises:
            InputError: If the kernel size is even, which would change the size of the feature maps.
        """
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size must be odd, got {kernel_size}")
        super().__init__()
        self.encode1 = InputEncoderBlock(in_channels, num_filters, kernel_size)
        self.encode2 = EncoderBlock(num_filters, num_filters, kernel_size)
        self.encode3 = EncoderBlock(num_filters, num_filters, kernel_size)
        self.encode4 = EncoderBlock(num_filters, num_filters, kernel_size)
        self.bottleneck = CompetitiveBlock(num_filters, num_filters, kernel_size)
        self.decode4 = DecoderBlock(num_filters, kernel_size)
        self.decode3 = DecoderBlock(num_filters, kernel_size)
        self.decode2 = DecoderBlock(num_filters, kernel_size)
        self.decode1 = DecoderBlock(num_filters, kernel_size)

    def features(self, x: Tensor) -> Tensor:
        """Run the U-Net.

        Args:
            x: Input, (N, in_channels, H, W) with H and W multiples of 16.

        Returns:
            Feature maps, (N, num_filters, H, W).

        Raises:
            InputError: If a side is not a multiple of 16.
        """
        height, width = x.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise InputError(
                f"height and width must be multiples of {STRIDE} (four poolings), got {height} x {width}"
            )
        x, skip1, indices1 = self.encode1(x)
        x, skip2, indices2 = self.encode2(x)
        x, skip3, indices3 = self.encode3(x)
        x, skip4, indices4 = self.encode4(x)
        x = self.bottleneck(x)
        x = self.decode4(x, skip4, indices4)
        x = self.decode3(x, skip3, indices3)
        x = self.decode2(x, skip2, indices2)
        decoded: Tensor = self.decode1(x, skip1, indices1)
        return decoded


class FastSurferCNN(_UNet):
    """The network for images of 1 mm: a U-Net and a classifier.

    Args:
        in_channels: Neighbouring slices per input.
        num_filters: Channels of every feature map.
        num_classes: Labels, background included.
        kernel_size: Side of the square convolution kernels, odd.
        classifier_kernel_size: Side of the last convolution's kernel; it is not padded.
    """

    def __init__(
        self,
        *,
        in_channels: int = 7,
        num_filters: int = 71,
        num_classes: int = 79,
        kernel_size: int = 3,
        classifier_kernel_size: int = 1,
    ) -> None:
        super().__init__(in_channels, num_filters, kernel_size)
        self.classifier = _Classifier(num_filters, num_classes, classifier_kernel_size)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Score every pixel of the middle slice.

        Args:
            x: Slices scaled to [0, 1], (N, in_channels, H, W).

        Returns:
            Scores (logits), (N, num_classes, H, W).
        """
        scores: Tensor = self.classifier(self.features(x))
        return scores


class FastSurferVINN(_UNet):
    """The network for images of any voxel size: a U-Net at 1 mm between two interpolations.

    Args:
        in_channels: Neighbouring slices per input.
        num_filters: Channels of every feature map of the U-Net.
        num_filters_interpol: Channels of the maps that are interpolated to the U-Net's grid.
        num_classes: Labels, background included.
        kernel_size: Side of the square convolution kernels, odd.
        classifier_kernel_size: Side of the last convolution's kernel; it is not padded.
        inner_shape: Height and width the U-Net works at.
        interpolation_mode: "nearest", "bilinear", "bicubic" or "area".
        crop_position: Corner (or "center") that stays in place when an image is cropped or padded to
            inner_shape.
    """

    def __init__(
        self,
        *,
        in_channels: int = 7,
        num_filters: int = 71,
        num_filters_interpol: int = 32,
        num_classes: int = 79,
        kernel_size: int = 3,
        classifier_kernel_size: int = 1,
        inner_shape: tuple[int, int] = (256, 256),
        interpolation_mode: str = "bilinear",
        crop_position: str = "top_left",
    ) -> None:
        super().__init__(num_filters_interpol, num_filters, kernel_size)
        self.inp_block = InputBlock(in_channels, num_filters_interpol, kernel_size, norm="gn")
        self.outp_block = OutputBlock(num_filters + num_filters_interpol, num_filters, kernel_size)
        self.interpol1 = Zoom2d(inner_shape, mode=interpolation_mode, anchor=crop_position)
        self.interpol2 = Zoom2d(inner_shape, mode=interpolation_mode, anchor=crop_position)
        self.classifier = _Classifier(num_filters, num_classes, classifier_kernel_size)
        initialise(self)

    def forward(self, x: Tensor, scale_factor: Factors = 1.0) -> Tensor:
        """Score every pixel of the middle slice.

        Args:
            x: Slices scaled to [0, 1], (N, in_channels, H, W), of any size.
            scale_factor: 1 mm / pixel size: one number for all images, or per image one number or one per
                axis.

        Returns:
            Scores (logits), (N, num_classes, H, W).
        """
        outer = self.inp_block(x)
        inner, applied = self.interpol1(outer, scale_factor)
        decoded = self.features(inner)
        back = [(1 / rows, 1 / columns) for rows, columns in applied]
        restored, _ = self.interpol2(decoded, back, target_shape=(outer.shape[-2], outer.shape[-1]))
        scores: Tensor = self.classifier(self.outp_block(restored, outer))
        return scores


def initialise(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw convolution weights from He's normal distribution; biases start at zero.

    Args:
        model: The network, changed in place.
        generator: Source of random numbers; torch's own by default, as for any new layer.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="leaky_relu", generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
