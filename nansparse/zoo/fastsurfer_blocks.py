"""The building blocks of the FastSurfer networks: four convolutions that compete through a maximum.

Every block is the same chain of four ``convolution -> batch norm`` steps. Between two steps the running
maximum of all feature maps so far goes through a shared PReLU; the last step ends at its batch norm, so that
maps of different blocks can compete with each other. The blocks differ in how the chain is fed:

===================== ========================== ===========================
block                 fed to the first step      the maximum starts from
===================== ========================== ===========================
CompetitiveBlock      PReLU(x)                   x
InputBlock            batch norm of x            the first step's output
OutputBlock           PReLU(cat(x, skip))        the first step's output
===================== ========================== ===========================

Parameter names (``conv0`` to ``conv3``, ``bn*`` or ``gn*``, ``prelu``) are those of FastSurfer's checkpoints.
All tensors are (N, C, H, W).
"""

import torch
from torch import Tensor, nn

STEPS = 4


class _FourSteps(nn.Module):
    """Four ``convolution -> batch norm`` steps with competition between them; the layers all blocks share.

    Args:
        in_channels: Channels of the block's input.
        num_filters: Channels of every step's output.
        kernel_size: Side of the square convolution kernels; odd, so that sizes are kept.
        norm: Prefix of the batch norms' names, "bn" or "gn" (batch norms too, in spite of the name).
        norm_input: Whether a batch norm of the raw input, ``bn0``, is among the layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_filters: int,
        kernel_size: int,
        *,
        norm: str = "bn",
        norm_input: bool = False,
    ) -> None:
        super().__init__()
        for step in range(STEPS):
            channels = in_channels if step == 0 else num_filters
            conv = nn.Conv2d(channels, num_filters, kernel_size, padding=kernel_size // 2)
            self.add_module(f"conv{step}", conv)
        if norm_input:
            self.bn0 = nn.BatchNorm2d(in_channels)
        for step in range(STEPS):
            self.add_module(f"{norm}{step + 1}", nn.BatchNorm2d(num_filters))
        self.prelu = nn.PReLU()
        self._norm = norm

    def _compete(self, fed: Tensor, best: Tensor | None) -> Tensor:
        """Run the four steps.

        Args:
            fed: Input of the first convolution, (N, in_channels, H, W).
            best: Where the running maximum starts, (N, num_filters, H, W), or None to start at the first
                output.

        Returns:
            The last step's batch norm, (N, num_filters, H, W).
        """
        for step in range(STEPS - 1):
            normed = self._step(step, fed)
            best = normed if best is None else torch.maximum(normed, best)
            fed = self.prelu(best)
        return self._step(STEPS - 1, fed)

    def _step(self, step: int, x: Tensor) -> Tensor:
        convolved = self.get_submodule(f"conv{step}")(x)
        normed: Tensor = self.get_submodule(f"{self._norm}{step + 1}")(convolved)
        return normed


class CompetitiveBlock(_FourSteps):
    """A block inside the network: its input, already normalised, takes part in the competition."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Feature maps that end at a batch norm, (N, num_filters, H, W).

        Returns:
            Feature maps of the same shape.
        """
        return self._compete(self.prelu(x), x)


class InputBlock(_FourSteps):
    """The first block of a network: it normalises the image, which does not compete with the feature maps.

    Args:
        in_channels: Channels of the image.
        num_filters: Channels of every step's output.
        kernel_size: Side of the square convolution kernels, odd.
        norm: Prefix of the batch norms' names, "bn" or "gn".
    """

    def __init__(self, in_channels: int, num_filters: int, kernel_size: int, *, norm: str = "bn") -> None:
        super().__init__(in_channels, num_filters, kernel_size, norm=norm, norm_input=True)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Image, (N, in_channels, H, W).

        Returns:
            Feature maps, (N, num_filters, H, W).
        """
        return self._compete(self.bn0(x), None)


class OutputBlock(_FourSteps):
    """FastSurferVINN's last block: fuses the U-Net's features with those taken before it.

    Args:
        in_channels: Channels of the two inputs together.
        num_filters: Channels of every step's output.
        kernel_size: Side of the square convolution kernels, odd.
    """

    def __init__(self, in_channels: int, num_filters: int, kernel_size: int) -> None:
        super().__init__(in_channels, num_filters, kernel_size, norm="gn")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: The network's features at the image's own resolution, (N, num_filters, H, W).
            skip: Features of the input block, (N, C, H, W).

        Returns:
            Feature maps, (N, num_filters, H, W).
        """
        return self._compete(self.prelu(torch.cat((x, skip), dim=1)), None)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=2, stride=2, return_indices=True)


class EncoderBlock(CompetitiveBlock):
    """A competitive block, then max pooling that hands out its indices.

    Args:
        in_channels: Channels of the block's input.
        num_filters: Channels of every step's output.
        kernel_size: Side of the square convolution kernels, odd.
    """

    def __init__(self, in_channels: int, num_filters: int, kernel_size: int) -> None:
        super().__init__(in_channels, num_filters, kernel_size)
        self.maxpool = _pool()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Apply the block and pool.

        Args:
            x: Feature maps, (N, num_filters, H, W).

        Returns:
            Pooled maps (N, num_filters, H/2, W/2), the maps before pooling (N, num_filters, H, W), and the
            indices of the maxima, of the pooled shape.
        """
        skip = super().forward(x)
        pooled, indices = self.maxpool(skip)
        return pooled, skip, indices


class InputEncoderBlock(InputBlock):
    """The network's first encoder: an input block, then max pooling that hands out its indices.

    Args:
        in_channels: Channels of the image.
        num_filters: Channels of every step's output.
        kernel_size: Side of the square convolution kernels, odd.
    """

    def __init__(self, in_channels: int, num_filters: int, kernel_size: int) -> None:
        super().__init__(in_channels, num_filters, kernel_size)
        self.maxpool = _pool()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Apply the block and pool.

        Args:
            x: Image, (N, in_channels, H, W).

        Returns:
            Pooled maps, the maps before pooling, and the indices of the maxima; shapes as in
            `EncoderBlock.forward`.
        """
        skip = super().forward(x)
        pooled, indices = self.maxpool(skip)
        return pooled, skip, indices


class DecoderBlock(CompetitiveBlock):
    """Unpooling, competition with the encoder's maps, then a competitive block.

    Args:
        num_filters: Channels of the input and of every step's output.
        kernel_size: Side of the square convolution kernels, odd.
    """

    def __init__(self, num_filters: int, kernel_size: int) -> None:
        super().__init__(num_filters, num_filters, kernel_size)
        self.unpool = nn.MaxUnpool2d(kernel_size=2, stride=2)

    def forward(self, x: Tensor, skip: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        """Unpool, compete and apply the block.

        Args:
            x: Feature maps of the level below, (N, num_filters, H/2, W/2).
            skip: The encoder's maps before pooling, (N, num_filters, H, W).
            indices: The indices that pooling handed out, of the shape of x.

        Returns:
            Feature maps, (N, num_filters, H, W).
        """
        return super().forward(torch.maximum(self.unpool(x, indices), skip))
