#!/usr/bin/env bash
# MinkowskiEngine is linked with OpenBLAS. Where its headers are missing, root gets them from Debian or Ubuntu; everybody
# else one line.
set -euo pipefail

has_openblas() {
    printf '#include <cblas.h>\nint main() { return cblas_isamax(0, nullptr, 1); }\n' |
        g++ -x c++ - -lopenblas -o /dev/null 2>/dev/null
}

if ! command -v g++ >/dev/null; then
    echo 'MinkowskiEngine needs a C++ compiler: install g++ (Debian and Ubuntu: apt-get install g++)' >&2
    exit 1
fi
has_openblas && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -qq libopenblas-dev >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq libopenblas-dev >/dev/null; }
fi
has_openblas || {
    echo 'MinkowskiEngine needs the headers of OpenBLAS, and installing them takes root:' \
        'sudo apt-get install libopenblas-dev, or ask who looks after this machine; every other engine works without' >&2
    exit 1
}
