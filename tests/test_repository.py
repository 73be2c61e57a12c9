"""What no tracked file may hold, and how long a module may grow; each check finds a planted fault too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The hosts are put together here, or this file would be its own first finding.
HOSTS = [r"py" r"pi\.org", r"python" r"hosted\.org", r"download\.py" r"torch\.org", r"npm" r"js\.org"]
FORBIDDEN = {
    "a path of somebody's machine": re.compile(rb"(?<![\w.~/-])/(work|root|home|Users)/\w"),
    "a package registry's host": re.compile("|".join(HOSTS).encode()),
    "a conflict marker": re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE),
}
BARE_ADAPTERS = re.compile(rb"^\s*(?:import|from)\s+adapters\b", re.MULTILINE)


def tracked() -> list[Path]:
    """List the tracked files that are there; without git (in an unpacked archive) skip the test."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def findings(files: list[Path], forbidden: dict[str, re.Pattern[bytes]]) -> list[str]:
    """Name every file and line that holds what it must not."""
    found = []
    for path in files:
        content = path.read_bytes()
        for what, pattern in forbidden.items():
            for match in pattern.finditer(content):
                line = content.count(b"\n", 0, match.start()) + 1
                found.append(f"{path.name}:{line}: {what}: {match.group().decode(errors='replace')}")
    return found


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    assert findings(tracked(), FORBIDDEN) == []


def test_adapters_are_imported_by_their_installed_name() -> None:
    python = [path for path in tracked() if path.suffix in {".py", ".md"}]
    assert findings(python, {"write nansparse.adapters": BARE_ADAPTERS}) == []


@pytest.mark.parametrize(
    "planted",
    ["see /wo" + "rk/x", "open('/home/" + "me/t1.nii')", "https://py" + "pi.org/simple", "<" * 7 + " ours"],
)
def test_search_finds_what_is_planted(planted: str, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"first line\n{planted}\n")
    (found,) = findings([file], FORBIDDEN)
    assert found.startswith("page.md:2: ")


@pytest.mark.parametrize("innocent", ["network/work/x", "./root/a", "https://example.org/home/me"])
def test_search_leaves_other_paths_alone(innocent: str, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(innocent)
    assert findings([file], FORBIDDEN) == []


def check_file_length(*folders: Path) -> subprocess.CompletedProcess[str]:
    """Run the check as `make check` does."""
    script = str(ROOT / "tools" / "check_file_length.py")
    command = [sys.executable, script, *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_modules_fit_in_one_sitting() -> None:
    done = check_file_length(ROOT / "nansparse", ROOT / "adapters")
    assert done.returncode == 0, done.stdout + done.stderr


def test_file_length_names_every_offender_longest_first(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, lines in {"fits.py": 250, "over.py": 251, "deep/far_over.py": 400}.items():
        (tmp_path / name).write_text("x = 1\n" * lines)
    done = check_file_length(tmp_path)
    assert done.returncode == 1
    assert re.findall(r"(\w+\.py): (\d+) lines", done.stdout) == [("far_over.py", "400"), ("over.py", "251")]


def test_file_length_refuses_a_missing_folder(tmp_path: Path) -> None:
    done = check_file_length(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
