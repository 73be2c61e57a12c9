"""Small networks for comparisons: they pool and unpool, so that every mode marks something."""

import torch
from torch import nn


class Segmenter(nn.Module):
    """Two scales with max unpooling, 2D or 3D, three classes by the brightness of the input."""

    def __init__(self, axes=3, classes=3, raises_above=None):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[axes - 2]
        self.inner = conv(1, 4, 3, padding=1)
        self.pool = (nn.MaxPool2d, nn.MaxPool3d)[axes - 2](2, return_indices=True)
        self.unpool = (nn.MaxUnpool2d, nn.MaxUnpool3d)[axes - 2](2)
        self.deep = conv(4, 4, 3, padding=1)
        self.last = conv(4, classes, 1)
        self.raises_above = raises_above
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        if self.raises_above is not None and float(x.nan_to_num().amax()) > self.raises_above:
            raise RuntimeError("too bright for me\nsecond line")
        x = self.inner(x).relu()
        pooled, places = self.pool(x)
        return self.last(self.deep(self.unpool(self.deep(pooled).relu(), places)).relu() + x)


class Classifier(nn.Module):
    """Class scores of a volume."""

    def __init__(self, classes=7):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 8, 3))
        self.last = nn.Linear(8, classes)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        return self.last(self.layers(x).relu().mean((2, 3, 4)))
