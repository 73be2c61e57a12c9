"""A real headless browser, for pages that must open from disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")


def opened(page: Path, request: pytest.FixtureRequest, script: str = "") -> str:
    """Open a page in a headless Chromium without network, run a script in it, give the page as it then is.

    The script is added to a copy of the page; the page's content security policy still holds.
    """
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser is None and request.config.getoption("--require-browser"):
        pytest.fail("--require-browser: no Chromium here")
    if browser is None:
        pytest.skip("no Chromium here: `make browser` installs it on Debian")
    copy = page.with_name(f"{page.stem}-opened.html")
    copy.write_text(page.read_text() + f"<script>{script}</script>")
    profile = page.parent / "profile"
    quiet = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    quiet += ["--disable-component-update", "--disable-sync", "--disable-quic", f"--user-data-dir={profile}"]
    refused = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [browser, *quiet, refused, "--virtual-time-budget=2000", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
