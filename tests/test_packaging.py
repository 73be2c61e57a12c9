"""What is built is whole, and importing it loads no more than torch and numpy."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = {
    "nibabel",
    "scipy",
    "nilearn",
    "matplotlib",
    "tqdm",
    "monai",
    "distributed",
    "safetensors",
    "jsonschema",
    "jinja2",
    "spconv",
    "spconv_triton",
    "MinkowskiEngine",
    "torch_scatter",
    "dynamic_network_architectures",
    "sklearn",
}


def run(*command: str, cwd: Path) -> str:
    """Run a command to its end; a failure shows what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_as_installed(folder: str, pattern: str, installed_as: str) -> set[str]:
    """Name the files below a folder of the repository as they lie in the wheel."""
    top = ROOT / folder
    return {f"{installed_as}/{path.relative_to(top).as_posix()}" for path in top.rglob(pattern)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the sources, so that nothing is left in the working folder."""
    source = tmp_path_factory.mktemp("source")
    for name in ("nansparse", "adapters"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-index")
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), ".", cwd=source)
    (built,) = out.glob("nansparse-*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_every_module(wheel: zipfile.ZipFile) -> None:
    core = files_as_installed("nansparse", "*.py", "nansparse")
    engines = files_as_installed("adapters", "*.py", "nansparse/adapters")
    assert "nansparse/__init__.py" in core
    assert engines >= {"nansparse/adapters/dense.py", "nansparse/adapters/gather.py"}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == core | engines


def test_wheel_holds_weights_type_marker_and_texts(wheel: zipfile.ZipFile) -> None:
    weights = files_as_installed("nansparse", "*.safetensors", "nansparse")
    assert weights, "the demo needs trained weights in nansparse/zoo/weights"
    texts = files_as_installed("nansparse", "*.md", "nansparse")
    prices = files_as_installed("nansparse", "default_prices/*.json", "nansparse")
    assert prices, "engine='auto' needs prices in nansparse/default_prices"
    reports = {f"nansparse/evaluation/{name}" for name in ("results.schema.json", "report.html.j2")}
    assert set(wheel.namelist()) >= weights | texts | prices | reports | {
        "nansparse/py.typed",
        "nansparse/adapters/README.md",
    }
    assert all(wheel.getinfo(name).file_size == (ROOT / name).stat().st_size for name in weights)


def test_wheel_names_the_command_and_the_engines(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    declared = configparser.ConfigParser(delimiters="=")
    declared.read_string(wheel.read(name).decode())
    assert dict(declared["console_scripts"]) == {"nansparse": "nansparse.cli.main:main"}
    assert dict(declared["nansparse.engines"]) == {
        "dense": "nansparse.adapters.dense:DenseEngine",
        "gather": "nansparse.adapters.gather:GatherEngine",
        "minkowski": "nansparse.adapters.minkowski:MinkowskiEngine",
        "numba": "nansparse.adapters.numba:NumbaEngine",
        "spconv": "nansparse.adapters.spconv:SpconvEngine",
        "spconv-triton": "nansparse.adapters.spconv:SpconvTritonEngine",
        "torch-scatter": "nansparse.adapters.torch_scatter:TorchScatterEngine",
        "tile": "nansparse.adapters.tile:TileEngine",
        "triton": "nansparse.adapters.triton:TritonEngine",
        "winograd": "nansparse.adapters.winograd:WinogradEngine",
    }


def test_unpacked_wheel_imports_without_the_repository(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    # -I leaves the working folder out of the path; the unpacked wheel goes before the editable install.
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "import nansparse, nansparse.adapters.dense, nansparse.adapters.gather, nansparse.cli.main as main; "
        "print(nansparse.__file__, nansparse.adapters.dense.__file__, main.__file__, sep='\\n')"
    )
    files = run(sys.executable, "-I", "-c", script, cwd=tmp_path).split()
    assert [Path(file).relative_to(tmp_path).as_posix() for file in files] == [
        "nansparse/__init__.py",
        "nansparse/adapters/dense.py",
        "nansparse/cli/main.py",
    ]


def loaded_optional(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and tell which optional libraries it loaded."""
    script = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return OPTIONAL & set(run(sys.executable, "-c", script, cwd=ROOT).split())


@pytest.fixture(scope="module")
def loaded_by_torch() -> set[str]:
    # torch itself loads tqdm where it is installed; that is none of nansparse's doing.
    return loaded_optional("import torch")


def test_import_loads_no_optional_library(loaded_by_torch: set[str]) -> None:
    assert loaded_optional("import nansparse") == loaded_by_torch


def test_built_in_engines_load_no_optional_library(loaded_by_torch: set[str]) -> None:
    assert loaded_optional("import nansparse.adapters.dense, nansparse.adapters.gather") == loaded_by_torch


@pytest.mark.parametrize("library", ["nibabel", "safetensors"])
def test_import_check_can_fail(library: str) -> None:
    pytest.importorskip(library)
    assert library in loaded_optional(f"import nansparse, {library}")
