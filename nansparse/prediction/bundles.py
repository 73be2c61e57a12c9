"""MONAI bundles: a folder with `configs/inference.json` (or `.yaml`) and `models/model.pt`.

Of a bundle, the network (`network_def`), its weights, its preprocessing (`preprocessing`) and the window of
its inferer are used; metadata says the names of the classes to whoever reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nansparse.errors import InputError
from nansparse.imaging.volume import Affine, Voxels
from nansparse.prediction.telling import told
from nansparse.zoo.checkpoints import check_fit, read_state

_CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
_WEIGHTS = "models/model.pt"
_IMAGE = "image"


def is_bundle(folder: Path) -> bool:
    """Say whether a folder is a MONAI bundle.

    Args:
        folder: Any path.

    Returns:
        True if it holds the configuration of an inference.
    """
    return _config(folder) is not None


def load_bundle_model(folder: Path, arguments: dict[str, Any], *, own_weights: bool) -> nn.Module:
    """Make a bundle's network.

    Args:
        folder: The bundle.
        arguments: Replace those of `network_def`.
        own_weights: Whether to load the bundle's own weights.

    Returns:
        The network.

    Raises:
        InputError: If the bundle is incomplete, or its weights do not fit.
    """
    parser = _parser(folder)
    for name, value in arguments.items():
        parser[f"network_def::{name}"] = value
    model = _content(parser, "network_def", folder)
    if not isinstance(model, nn.Module):
        raise InputError(f"the bundle {folder.name} has no network under 'network_def'")
    if own_weights:
        if not (folder / _WEIGHTS).is_file():
            raise InputError(f"the bundle {folder.name} has no {_WEIGHTS}: name a file with --weights")
        state = read_state(folder / _WEIGHTS)
        check_fit(model, state, f"{folder.name}/{_WEIGHTS}")
        model.load_state_dict(state, strict=True)
    return model


def bundle_window(folder: Path) -> tuple[int, ...] | None:
    """Find the window of a bundle's sliding-window inferer.

    Args:
        folder: The bundle.

    Returns:
        Voxels along each axis; None if it has no such inferer.
    """
    size = _parser(folder).get("inferer", {})
    size = size.get("roi_size") if isinstance(size, dict) else None
    if isinstance(size, (list, tuple)) and all(isinstance(voxels, int) for voxels in size):
        return tuple(size)
    return None


def prepare_as_bundle(folder: Path, image: Path) -> tuple[Voxels, Affine]:
    """Read and prepare an image as a bundle says.

    Args:
        folder: The bundle.
        image: The image.

    Returns:
        float32 (X, Y, Z) and the affine of that grid.

    Raises:
        InputError: If the bundle's preprocessing fails or gives more than one channel.
    """
    parser = _parser(folder)
    transform = _content(parser, "preprocessing", folder)
    try:
        prepared = transform({_IMAGE: str(image)})[_IMAGE]
    except Exception as error:  # the bundle's code
        raise InputError(f"the preprocessing of the bundle {folder.name} failed: {told(error)}") from error
    if getattr(prepared, "affine", None) is None or prepared.dim() != 4 or len(prepared) != 1:
        raise InputError(
            f"the preprocessing of the bundle {folder.name} must give one channel (1, X, Y, Z) with an "
            f"affine, got {tuple(prepared.shape)}"
        )
    return np.asarray(prepared[0], dtype=np.float32), np.asarray(prepared.affine, dtype=np.float64)


def has_preprocessing(folder: Path) -> bool:
    """Say whether a bundle prepares images itself.

    Args:
        folder: The bundle.

    Returns:
        True if its configuration has an entry `preprocessing`.
    """
    return _parser(folder).get("preprocessing") is not None


def _config(folder: Path) -> Path | None:
    return next((folder / name for name in _CONFIGS if (folder / name).is_file()), None)


def _parser(folder: Path) -> Any:
    try:
        from monai.bundle.config_parser import ConfigParser
    except ImportError as error:
        raise InputError("MONAI bundles need monai: pip install 'nansparse[monai]'") from error
    config = _config(folder)
    if config is None:
        raise InputError(f"{folder} is no MONAI bundle: it has none of {', '.join(_CONFIGS)}")
    try:
        parser = ConfigParser()
        parser.read_config(str(config))
        parser["bundle_root"] = str(folder)
    except Exception as error:  # JSON, YAML and MONAI each have their own
        raise InputError(f"cannot read {config}: {told(error)}") from error
    return parser


def _content(parser: Any, key: str, folder: Path) -> Any:
    if parser.get(key) is None:
        raise InputError(f"the bundle {folder.name} has no {key!r} in its inference configuration")
    try:
        return parser.get_parsed_content(key)
    except Exception as error:  # the bundle's code
        raise InputError(f"{key!r} of the bundle {folder.name} could not be made: {told(error)}") from error
