"""Pictures of one volume: what every policy changes, and where NaN is after every layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nansparse.comparison.collecting import CLASSIFICATION, SEGMENTATION
from nansparse.comparison.running import RunningWay, prepared_way
from nansparse.comparison.ways import WayPlan
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.plots import new_figure, save_figure
from nansparse.evaluation.progress import told
from nansparse.imaging.picture import nan_masks
from nansparse.policy import Policy
from nansparse.prediction.grids import prepare
from nansparse.prediction.networks import first_output

if TYPE_CHECKING:
    from nansparse.comparison.cases import Case
    from nansparse.comparison.volume import Comparison

Slice = np.ndarray[Any, Any]
MOST_ROWS, MOST_LAYERS = 8, 40
# Where NaN arises, moves or ends; activations and norms repeat the mask before them.
_SHOWN = (
    *(nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.MaxPool2d, nn.MaxPool3d, nn.MaxUnpool2d, nn.MaxUnpool3d),
)


def draw_case(comparison: Comparison, case: Case, path: Path) -> list[str]:
    """Draw the middle piece of a volume: differences to dense, and NaN masks by layer.

    Args:
        comparison: What was done.
        case: The volume.
        path: The results file; `NAME_differences.png` and `NAME_nan_N.png` come beside it.

    Returns:
        What could not be drawn, a line each; pictures decide nothing, so the results stand.
    """
    from nansparse.comparison.volume import padded_volume

    faults = []
    native, _ = case.load()
    volume = padded_volume(prepare(native, case.image or Path(), comparison.recipe.grid), comparison)
    plans = [plan for plan in comparison.plans if plan.policy is not None and not plan.cropped]
    with fixed_conditions(comparison.recipe.threads):
        try:
            _draw_differences(
                comparison, plans[:MOST_ROWS], volume, path.with_name(f"{path.stem}_differences.png")
            )
            for number, plan in enumerate(_of_each_kind(plans), start=1):
                _draw_masks(comparison, plan, volume, path.with_name(f"{path.stem}_nan_{number}.png"))
        except Exception as error:  # a model that cannot be drawn has been measured all the same
            faults.append(f"pictures of {case.name}: {told(error)}")
    return faults


def _of_each_kind(plans: list[WayPlan]) -> list[WayPlan]:
    """Take the first policy of each mode, with and without a marked background."""
    kinds = {
        (plan.policy or {}).get("mode", "") + str(plan.margin is not None): plan for plan in reversed(plans)
    }
    return list(reversed(kinds.values()))


def _middle(way: RunningWay) -> tuple[Tensor, int]:
    """Cut the piece around the middle of what is not background: input and number."""
    shares = [float((piece.cut(way.volume) != 0).float().mean()) for _, piece in way.pieces]
    number = int(np.argmax(shares))
    return way.pieces[number][1].cut(way.volume)[:1], number


def _flat(x: Tensor) -> Slice:
    """Show a slice: the middle one of a volume, turned so that rows go down."""
    x = x.reshape(-1, *x.shape[-2:]) if x.dim() > 2 else x[None]
    return x[len(x) // 2].float().numpy().T


def _output(comparison: Comparison, way: RunningWay, x: Tensor) -> Tensor:
    model = way.networks[0].model
    layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    with torch.autocast(way.device.type, torch.bfloat16, enabled=way.plan.bfloat16):
        out = first_output(model(x.to(way.device, memory_format=layout)))
    if out is None or comparison.task == CLASSIFICATION:
        return torch.zeros(1, 1, *x.shape[2:])
    out = out.float().cpu().nan_to_num(0.0)
    return out.argmax(1, keepdim=True) if comparison.task == SEGMENTATION else out[:, :1]


def _draw_differences(comparison: Comparison, plans: list[WayPlan], volume: Tensor, path: Path) -> None:
    recipe, task = comparison.recipe, comparison.task
    if task == CLASSIFICATION or not plans:
        return
    figure = new_figure()
    figure.set_size_inches(11, 2.9 * len(plans))
    axes = figure.subplots(len(plans), 4, squeeze=False)
    with prepared_way(comparison.plans[0], comparison.networks, volume, recipe, task, 32) as dense:
        x, number = _middle(dense)
        expected = _flat(_output(comparison, dense, x)[0, 0])
    for line, plan in zip(axes, plans, strict=True):
        with prepared_way(plan, comparison.networks, volume, recipe, task, 32) as way:
            seen = way.pieces[number][1].cut(way.volume)[:1]
            found = _flat(_output(comparison, way, seen)[0, 0])
        differing = np.abs(found.astype(float) - expected)
        count = int((differing > 0).sum())
        top = float(expected.max()) or 1.0
        _show(line[0], _flat(x[0]), "input", "gray")
        _show(line[1], expected, "dense", "viridis", top)
        _show(line[2], found, plan.name, "viridis", top)
        title = (
            f"{count} voxels differ" if task == SEGMENTATION else f"largest difference {differing.max():.3g}"
        )
        _show(line[3], differing > 0 if task == SEGMENTATION else differing, title, "gray_r")
    save_figure(figure, path, dpi=75)


def _draw_masks(comparison: Comparison, plan: WayPlan, volume: Tensor, path: Path) -> None:
    """Draw where NaN is after every layer that makes, moves or ends it."""
    recipe = comparison.recipe
    plain = WayPlan(plan.name, margin=plan.margin)
    with prepared_way(plain, comparison.networks, volume, recipe, comparison.task, 32) as way:
        x, _ = _middle(way)
        model = way.networks[0].model
        names = [name for name, module in model.named_modules() if isinstance(module, _SHOWN)]
        chosen = names if len(names) <= MOST_LAYERS else names[:: -(-len(names) // MOST_LAYERS)]
        masks = nan_masks(model, x, tuple(chosen), Policy(**(plan.policy or {})))
    if not masks:
        return
    figure = new_figure()
    columns = min(8, len(masks))
    lines = -(-len(masks) // columns)
    figure.set_size_inches(1.5 * columns, 1.75 * lines + 0.4)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, mask) in zip(axes, masks.items(), strict=False):
        _show(
            axis,
            _flat(torch.from_numpy(np.asarray(mask))),
            f"{name}\n{100 * mask.mean():.0f} %",
            "magma",
            1.0,
        )
    figure.suptitle(f"NaN sites after each layer (bright): {plan.name}", fontsize=9)
    save_figure(figure, path, dpi=75)


def _show(axis: Any, image: Slice, title: str, colours: str, top: float | None = None) -> None:
    values = np.nan_to_num(np.asarray(image, dtype=float))
    axis.imshow(
        values, cmap=colours, vmin=0, vmax=top or max(float(values.max()), 1e-9), interpolation="nearest"
    )
    axis.set_title(title, fontsize=7)
    axis.set_xticks([])
    axis.set_yticks([])
