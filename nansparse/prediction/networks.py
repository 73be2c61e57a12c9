"""A loaded network and how it sees a volume; checks that the two fit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nansparse.errors import InputError
from nansparse.imaging.slices import PLANES
from nansparse.prediction.models import first_convolution, spatial_axes
from nansparse.prediction.pieces import Piece, count_windows, slice_pieces, window_pieces
from nansparse.prediction.recipe import WHOLE, Recipe, View


@dataclass(frozen=True, eq=False)
class Network:
    """A network of a recipe, loaded and ready.

    Attributes:
        model: In eval mode, on its device.
        view: How it looks at the volume.
        thickness: Slices per input; 0 for a 3D network.
    """

    model: nn.Module
    view: View
    thickness: int

    def copied(self) -> Network:
        """Copy it, so that one can run dense while the other is enabled.

        Returns:
            The copy.
        """
        return replace(self, model=copy.deepcopy(self.model))

    def pieces(self, shape: tuple[int, ...], recipe: Recipe) -> Iterator[Piece]:
        """Cut a volume into what the network sees.

        Args:
            shape: Of the volume.
            recipe: Windows and batches.

        Returns:
            The pieces.
        """
        view = self.view
        if self.thickness:
            return slice_pieces(
                shape, view.plane, self.thickness, recipe.batch_size, view.weight, recipe.empty
            )
        return window_pieces(shape, window_of(shape, recipe), recipe.overlap, gaussian=recipe.gaussian)

    def count(self, shape: tuple[int, ...], recipe: Recipe) -> int:
        """Count the pieces.

        Args:
            shape: Of the volume.
            recipe: Windows and batches.

        Returns:
            How many there are.
        """
        if self.thickness:
            return -(-shape[PLANES[self.view.plane][0]] // recipe.batch_size)
        return count_windows(shape, window_of(shape, recipe), recipe.overlap)

    def scores(self, x: Tensor, device: torch.device, *, channels_last: bool = True) -> Tensor:
        """Run the network.

        Args:
            x: (N, C, *spatial) on the CPU.
            device: Where the network is.
            channels_last: The layout in which it gets its input.

        Returns:
            Scores (N, classes, *spatial) on the CPU.

        Raises:
            InputError: If the network does not return scores for every voxel.
        """
        layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
        layout = layout if channels_last else torch.contiguous_format
        out = first_output(self.model(x.to(device, memory_format=layout)))
        if out is None or out.dim() != x.dim() or out.shape[0] != x.shape[0] or out.shape[2:] != x.shape[2:]:
            got = None if out is None else tuple(out.shape)
            raise InputError(
                f"{self.view.source.name} was given {tuple(x.shape)} and returned {got}; expected scores "
                f"({x.shape[0]}, classes, {', '.join(map(str, x.shape[2:]))})"
            )
        classes = self.view.classes
        if classes is not None:
            if max(classes) >= out.shape[1]:
                raise InputError(
                    f"the class map names class {max(classes)}, and {self.view.source.name} has "
                    f"{out.shape[1]} classes"
                )
            out = out[:, list(classes)]
        return out.float().cpu()


def load_networks(recipe: Recipe) -> list[Network]:
    """Load every network of a recipe and check that it can see what it will be given.

    Args:
        recipe: The recipe.

    Returns:
        The networks, in the order of the views.

    Raises:
        InputError: If one cannot be loaded, or takes something else than the recipe gives.
    """
    return [_network(view, recipe) for view in recipe.views]


def _network(view: View, recipe: Recipe) -> Network:
    model = view.source.load()
    axes = spatial_axes(model) or (2 if view.plane else 3)
    name = view.source.name
    if axes == 3 and view.plane:
        raise InputError(f"{name} is a 3D network: it sees windows, not {view.plane} slices")
    if axes == 2 and not view.plane:
        raise InputError(f"{name} is a 2D network: name the plane of its slices ({', '.join(PLANES)})")
    first = first_convolution(model)
    channels = recipe.thickness or 1 if first is None else first.in_channels
    if axes == 2 and recipe.thickness not in (None, channels):
        raise InputError(f"{name} takes {channels} slices per input, not {recipe.thickness}")
    if (axes == 2 and channels % 2 == 0) or (axes == 3 and channels != 1):
        raise InputError(
            f"{name} takes {channels} input channels; one image gives "
            + ("an odd number of neighbouring slices" if axes == 2 else "one")
        )
    return Network(model.to(recipe.device), view, channels if axes == 2 else 0)


def window_of(shape: tuple[int, ...], recipe: Recipe) -> tuple[int, ...]:
    """Say which window a 3D network gets.

    Args:
        shape: Of the padded volume.
        recipe: The recipe.

    Returns:
        Voxels along each axis.
    """
    return shape if recipe.window == (WHOLE,) * 3 else recipe.window


def padded_shape(shape: tuple[int, ...], networks: list[Network], recipe: Recipe) -> tuple[int, ...]:
    """Say how far a volume is padded so that every network can see it.

    Args:
        shape: Of the volume.
        networks: The networks.
        recipe: Their windows.

    Returns:
        The padded shape: for slices and whole volumes a multiple of `recipe.multiple`, for windows no axis
        shorter than the window.
    """
    windowed = recipe.window != (WHOLE,) * 3 and not any(network.thickness for network in networks)
    if windowed:
        return tuple(max(size, side) for size, side in zip(shape, recipe.window, strict=True))
    cut = {PLANES[n.view.plane][0] for n in networks if n.thickness} if len(networks) == 1 else set()
    return tuple(
        size if axis in cut else -(-size // recipe.multiple) * recipe.multiple
        for axis, size in enumerate(shape)
    )


def first_output(out: Any) -> Tensor | None:
    """Find the scores in what a network returns.

    Args:
        out: A tensor, several of which the first counts, or a mapping with one (or one under "out").

    Returns:
        The scores, or None.
    """
    if isinstance(out, Tensor):
        return out
    if isinstance(out, (list, tuple)) and out:
        return first_output(out[0])
    if isinstance(out, Mapping):
        values = [out["out"]] if "out" in out else list(out.values())
        return first_output(values[0]) if len(values) == 1 else None
    return None
