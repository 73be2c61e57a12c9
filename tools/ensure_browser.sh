#!/usr/bin/env bash
# The HTML report is tested in a headless Chromium. Where there is none, root gets it from Debian; everybody else one
# line.
set -euo pipefail

has_browser() { command -v chromium chromium-browser google-chrome chromium-headless-shell >/dev/null; }

has_browser && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install=(apt-get install -y -qq --no-install-recommends chromium)
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi
has_browser || {
    echo 'the tests of the HTML report need Chromium, and installing it takes root: sudo apt-get install chromium;' \
        'without it these tests are skipped' >&2
    exit 1
}
