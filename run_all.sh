#!/usr/bin/env bash
# Everything, set-up included: ./run_all.sh [quick|report|smoke|test|bench|lab] [options]; ./run_all.sh --help tells.
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"

in_colab() { [ -n "${COLAB_RELEASE_TAG:-}" ]; }

# An active environment or Colab is used as it is; else .venv is, and is made first where it is missing.
if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || in_colab; then
    python=$(command -v python || command -v python3)
    own=no
else
    python=$PWD/.venv/bin/python
    own=yes
fi

newest_python() {
    for name in python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "run_all.sh: no Python 3.11 to 3.13 is found (python3 --version: $(python3 --version 2>&1 | tail -n 1))" >&2
    return 1
}

stamp() { cat requirements.txt pyproject.toml | cksum; }

installed() {
    if [ "$own" = yes ]; then
        [ -x "$python" ] && [ "$(cat .venv/installed 2>/dev/null)" = "$(stamp)" ]
    else
        "$python" - <<'PYTHON' 2>/dev/null
import importlib.metadata, re, sys
names = [re.match(r"[\w-]+", line)[0] for line in open("requirements.txt") if re.match(r"\w", line)]
for name in names:
    importlib.metadata.version(name)
PYTHON
    fi
}

set_up() {
    if [ "$own" = yes ] && [ ! -x "$python" ]; then
        echo "making .venv with $("$base" --version)"
        "$base" -m venv .venv
    fi
    echo "installing requirements.txt (once; several minutes and some GB where torch comes with CUDA)"
    present=$(mktemp)
    if [ "$own" = no ]; then
        "$python" -m pip freeze --exclude-editable | grep -v ' @ ' >"$present" || true # what is there does not move
    fi
    "$python" -m pip install --quiet --constraint "$present" --requirement requirements.txt --editable .
    rm -f "$present"
    if [ "$own" = yes ]; then
        stamp >.venv/installed
    fi
}

if ! installed; then
    base=$python
    [ -x "$base" ] || base=$(newest_python)
    case " $* " in
    *" --dry-run "*)
        echo "would first set up: $([ -x "$python" ] || echo "make .venv with $("$base" --version) and ")install" \
            "requirements.txt; what would be trained is known after that"
        exit
        ;;
    " test "* | " bench "*) set_up ;;
    *" -h "* | *" --help "*) python=$base ;; # needs no package
    *) set_up ;;
    esac
fi

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" LTH_CALLED_FROM="$called_from"
exec "$python" -m notebooks.run_all "$@"
