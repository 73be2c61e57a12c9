"""From the arguments of `nansparse predict` to a recipe."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nansparse.cli.options import policy_of
from nansparse.errors import InputError
from nansparse.imaging.slices import PLANES
from nansparse.prediction.bundles import bundle_window, has_preprocessing, is_bundle
from nansparse.prediction.grids import BUNDLE, CONFORMED, NATIVE, Grid
from nansparse.prediction.models import ModelSource, spatial_axes
from nansparse.prediction.recipe import SLICED_ORIENTATION, VIEW_WEIGHTS, WHOLE, Background, Recipe, View
from nansparse.zoo.fastsurfer_labels import FULL_LABELS, sagittal_classes

WINDOW = 96
FASTSURFER = "fastsurfer"


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Turn the arguments into a recipe.

    Args:
        options: Parsed arguments.

    Returns:
        The recipe, validated.

    Raises:
        InputError: If arguments do not go together.
    """
    if options.margin < 0:
        raise InputError(f"margin must be 0 or more, got {options.margin}")
    if options.mask is not None and not options.mask.exists():
        raise InputError(f"no mask at {options.mask}")
    marks = options.background or options.mask is not None
    views = read_views(options)
    bundle = Path(views[0].source.name) if is_bundle(Path(views[0].source.name)) else None
    return Recipe(
        views=views,
        grid=_grid(options, bundle, sliced=bool(views[0].plane)),
        policy=policy_of(options),
        seed=options.seed,
        background=Background(options.background_value, options.margin, options.mask) if marks else None,
        thickness=options.thickness,
        window=_window(options.window, bundle),
        overlap=options.overlap,
        gaussian=options.blend == "gaussian",
        multiple=options.multiple,
        batch_size=options.batch_size,
        activation=options.activation,
        label_values=FULL_LABELS if options.label_values == FASTSURFER else _numbers(options.label_values),
        compare=options.compare,
        threads=options.threads or max((os.cpu_count() or 1) // options.workers, 1),
        device=options.device,
    )


def read_views(options: argparse.Namespace) -> tuple[View, ...]:
    """Find out which network looks along which plane.

    Args:
        options: Parsed arguments.

    Returns:
        One view a plane, or one of a 3D network.

    Raises:
        InputError: If planes, models and weights do not fit together.
    """
    models, arguments, weights, maps = (
        _by_plane(values, option)
        for values, option in (
            (options.model, "--model"),
            (options.model_args, "--model-args"),
            (options.weights, "--weights"),
            (options.class_map, "--class-map"),
        )
    )
    named = [plane for plane in PLANES if any(plane in given for given in (models, arguments, weights, maps))]
    planes = list(options.planes or named)
    for plane in [*planes, *named]:
        if plane not in PLANES:
            raise InputError(f"plane is {plane!r}; supported: {', '.join(PLANES)}")
        if plane not in planes:
            raise InputError(
                f"something is given for {plane} slices, which are not among the planes {planes}"
            )

    def source(plane: str) -> ModelSource:
        name = models.get(plane, models.get(""))
        if name is None:
            raise InputError(f"no model for {plane} slices: give --model for every plane, or one for all")
        file = weights.get(plane, weights.get(""))
        given = _arguments(arguments.get(plane, arguments.get("", "{}")))
        return ModelSource(name, given, None if file is None else Path(file), os.getcwd())

    if not planes:
        only = source("")
        planes = [] if spatial_axes(only.load()) == 3 else ["coronal"]
        if not planes:
            return (View(only),)
    shares = _shares(options.view_weights, planes)
    return tuple(View(source(p), p, shares[p], _class_map(maps.get(p, maps.get("")))) for p in planes)


def _shares(given: Sequence[float] | None, planes: list[str]) -> dict[str, float]:
    if given is None:
        return {plane: VIEW_WEIGHTS[plane] if len(planes) > 1 else 1.0 for plane in planes}
    if len(given) != len(planes):
        raise InputError(f"--view-weights has {len(given)} numbers for {len(planes)} planes")
    return dict(zip(planes, given, strict=True))


def _by_plane(values: list[str], option: str) -> dict[str, str]:
    """Read `PLANE=VALUE`; a value without plane is for all of them, under the empty name."""
    found: dict[str, str] = {}
    for text in values:
        head, sign, tail = text.partition("=")
        plane, value = (head, tail) if sign and head in PLANES else ("", text)
        if plane in found:
            raise InputError(f"{option} is given twice" + (f" for {plane} slices" if plane else ""))
        found[plane] = value
    return found


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"--model-args is no JSON ({error}): {text}") from error
    if not isinstance(found, dict):
        raise InputError(f"--model-args must be a JSON object such as '{{\"num_classes\": 4}}', got {text}")
    return found


def _class_map(text: str | None) -> tuple[int, ...] | None:
    return sagittal_classes() if text == FASTSURFER else _numbers(text)


def _numbers(path: str | None) -> tuple[int, ...] | None:
    """Read a JSON list of whole numbers."""
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} (expected a file, or {FASTSURFER!r}): {error}") from error
    whole = isinstance(found, list) and all(type(number) is int and number >= 0 for number in found)
    if not whole or not found:
        raise InputError(f"{path} must hold a JSON list of whole numbers >= 0")
    return tuple(found)


def _grid(options: argparse.Namespace, bundle: Path | None, *, sliced: bool) -> Grid:
    if bundle is not None and options.grid is None and has_preprocessing(bundle):
        return Grid(BUNDLE, options.orientation, _three(options.spacing), options.intensity, bundle)
    kind = options.grid or (CONFORMED if sliced else NATIVE)
    turned = SLICED_ORIENTATION if sliced and kind == NATIVE else ""
    return Grid(kind, options.orientation or turned, _three(options.spacing), options.intensity)


def _three(numbers: Sequence[float] | None) -> tuple[float, float, float] | None:
    if numbers is None:
        return None
    if len(numbers) not in (1, 3):
        raise InputError(f"expected one number or three, got {len(numbers)}")
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


def _window(words: Sequence[str] | None, bundle: Path | None) -> tuple[int, int, int]:
    if words is None:
        own = bundle_window(bundle) if bundle is not None else None
        return (own[0], own[1], own[2]) if own is not None and len(own) == 3 else (WINDOW,) * 3
    if list(words) == ["whole"]:
        return (WHOLE,) * 3
    if len(words) not in (1, 3) or not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--window must be one number or three, or 'whole', got {' '.join(words)}")
    return int(words[0]), int(words[len(words) // 2]), int(words[-1])
