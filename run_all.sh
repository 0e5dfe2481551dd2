#!/usr/bin/env bash
# Everything, set-up included: ./run_all.sh [quick|report|smoke|test|bench|lab] [options]; ./run_all.sh --help tells.
set -euo pipefail
unset CDPATH PYTHONHOME # as in an environment's own activate; PYTHONHOME would give it another Python's library

for name in LTH_RUNS LTH_ARCHIVE LTH_DATA VIRTUAL_ENV CONDA_PREFIX; do # relative to where the user stands
    case ${!name:-} in "" | /* | "~"*) ;; *) export "$name=$PWD/${!name}" ;; esac
done
script=${BASH_SOURCE[0]}
while [ -L "$script" ] && [ ! -e "$(dirname "$script")/requirements.txt" ]; do # a link to it, among other commands
    target=$(readlink "$script")
    case $target in /*) script=$target ;; *) script=$(dirname "$script")/$target ;; esac
done
cd "$(dirname "$script")"

say() { echo "run_all.sh: $*" >&2; }

is_python() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; }

version() { "$1" --version 2>&1 | tail -n 1; }

is_own() { [ "$python" = "$PWD/.venv/bin/python" ]; }

# The Python that is used: the active environment's own, whatever PATH says; in Colab Colab's; else that of .venv.
choose_python() {
    local variable folder variables="VIRTUAL_ENV CONDA_PREFIX"
    usable=yes
    if [ "$(command -v python)" = "${CONDA_PREFIX:-}/bin/python" ]; then # the one that was activated last
        variables="CONDA_PREFIX VIRTUAL_ENV"
    fi
    for variable in $variables; do
        folder=${!variable:-}
        if [ -n "$folder" ] && is_python "$folder/bin/python"; then
            python=$folder/bin/python
            return
        elif [ -n "$folder" ]; then
            say "$variable = $folder is ignored: no Python 3.11 to 3.14 runs there"
        fi
    done
    python=$PWD/.venv/bin/python
    if [ -n "${COLAB_RELEASE_TAG:-}" ]; then
        python=$(command -v python3)
    elif ! is_python "$python"; then
        usable=no
    fi
}

newest_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if is_python "$name"; then
            command -v "$name"
            return
        fi
    done
    say "no Python 3.11 to 3.14 is found (python3 --version: $(version python3))"
    return 1
}

# What the environment lacks of requirements.txt, and lthcore where it is not installed: a line each. In an environment that
# is not .venv nothing moves: what is too old to work is an error, and what is under a security advisory is named.
missing() {
    PYTHONPATH='' "$python" -P - "$(is_own && echo own)" <<'PYTHON'
import importlib.metadata
import importlib.util
import pathlib
import re
import sys


def numbers(version):
    return [int(n) for n in re.findall(r"\d+", version or "")[:3]]


old, unsafe = [], []
for line in pathlib.Path("requirements.txt").read_text().splitlines():
    if not (found := re.match(r"([\w.-]+)>=([\d.]+)\S*", line)):
        continue
    try:
        version = importlib.metadata.version(found[1])
    except importlib.metadata.PackageNotFoundError:
        print(found[0])
        continue
    if numbers(version) >= numbers(found[2]) and version not in re.findall(r"!=([\d.]+)", line):
        continue
    works = re.search(r"# works from ([\d.]+)", line)
    if sys.argv[1] == "own":
        print(found[0])
    elif works and numbers(version) >= numbers(works[1]):
        unsafe.append(f"{found[1]} {version} ({found[0]})")
    else:
        old.append(f"{found[1]} {version} ({found[0]})")
if old:
    words = "is too old for the study: update it there, or deactivate the environment, and .venv is made"
    sys.exit(f"run_all.sh: in {sys.prefix} {', '.join(old)} {words}")
if unsafe:
    words = "works, but has known security flaws: update it there when you can"
    print(f"run_all.sh: in {sys.prefix} {', '.join(unsafe)} {words}", file=sys.stderr)
spec, here = importlib.util.find_spec("lthcore"), pathlib.Path.cwd().resolve()
there = pathlib.Path(spec.origin).resolve().parents[1] if spec and spec.origin else None
if there is None:
    print("lthcore")
elif there != here:
    print(f"run_all.sh: the lthcore of {sys.prefix} is that of {there}; this run uses that of {here}", file=sys.stderr)
PYTHON
}

# name==version of what is installed, so that it does not move; neither editable packages nor those of a URL
present() {
    "$python" - <<'PYTHON'
import re
from importlib.metadata import distributions

for found in distributions():
    if re.fullmatch(r"[\w.!+]+", found.version or "") and found.read_text("direct_url.json") is None:
        print(f"{found.name}=={found.version}")
PYTHON
}

# By the environment's pip, which an environment made by uv has not
install() {
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        if command -v uv >/dev/null; then
            uv pip install --quiet --python "$python" "$@"
            return
        fi
        "$python" -m ensurepip >/dev/null 2>&1 || true # what fails is said by the next line
    fi
    "$python" -m pip install --quiet "$@"
}

# The last error that an installer's log has, else all of it, in one line
reason() { { grep -i error "$scratch/log" | tail -n 1 || cat "$scratch/log"; } | tr -s '[:space:]' ' ' | cut -c 1-400; }

make_environment() {
    echo "making .venv with $(version "$base")"
    if "$base" -m venv .venv >"$scratch/log" 2>&1; then
        return
    elif command -v uv >/dev/null; then
        uv venv --quiet --allow-existing --python "$base" .venv
    else
        say ".venv cannot be made ($(reason)): install this Python's venv (Debian: apt install python3-venv), or uv"
        return 1
    fi
}

# Into .venv the versions of requirements.lock, which are constraints: whether torch comes with CUDA, and what it then needs,
# is left to the build that the index offers. Into another environment only what it lacks.
install_packages() {
    if [ -n "$latest" ]; then
        install --upgrade --requirement requirements.txt
    elif is_own; then
        install --constraint requirements.lock --requirement requirements.txt
    else
        present >"$scratch/present"
        echo "$lacking" | grep -vx lthcore >"$scratch/lacking"
        install --constraint "$scratch/present" --requirement "$scratch/lacking"
    fi
}

set_up() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    [ $usable = yes ] || make_environment
    if [ "$lacking" != lthcore ]; then
        echo "installing requirements.txt (once; several minutes and some GB where torch comes with CUDA)"
        if ! install_packages 2>"$scratch/log"; then
            cat "$scratch/log" >&2
            say "requirements.txt cannot be installed with $(version "$python"): $(reason)"
            return 1
        fi
    else
        echo "installing lthcore (once)"
    fi
    install --no-deps --editable . 2>"$scratch/log" ||
        say "lthcore cannot be installed ($(reason)): this run does without, a notebook opened elsewhere does not"
    rm -rf "$scratch"
}

latest=
words=()
for word in "$@"; do
    if [ "$word" = --latest ]; then latest=$word; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}

choose_python
base=$python
if [ -n "$latest" ] && ! is_own; then
    say "--latest is for .venv: ${python%/bin/python*} is not the study's, update it there or deactivate it"
    exit 1
fi
case " $* " in
*" test "* | *" bench "* | *" lab "*) other=yes ;; # whose options, --help too, are those of what it calls
*) other=no ;;
esac
case "$other $* " in
no*" -h "* | no*" --help "*) # needs no package
    [ $usable = yes ] || python=$(newest_python 2>/dev/null || command -v python3 || command -v python)
    lacking=
    ;;
*)
    if [ $usable = yes ]; then
        lacking=$(missing)
    elif [ -e "$python" ] || [ -L "$python" ]; then
        say ".venv has no working Python 3.11 to 3.14: remove it, and it is made again"
        exit 1
    else
        base=$(newest_python)
        lacking=everything
    fi
    [ -z "$latest" ] || lacking=everything
    ;;
esac
if [ -n "$lacking" ]; then
    [ $other = yes ] || PYTHONPATH=$PWD "$base" -m lthcore "$@" --check # refuses before anything is installed
    case "$lacking $* " in
    *" --dry-run "*)
        if [ "$lacking" != lthcore ]; then
            echo "would first set up: $([ $usable = yes ] || echo "make .venv with $(version "$base") and ")install" \
                "requirements.txt; what would be trained is known after that"
            exit
        fi
        ;;
    *) set_up ;;
    esac
fi

# As activate does: IPython takes what VIRTUAL_ENV names for its own
folder=${python%/bin/python}
if [ -f "$folder/pyvenv.cfg" ]; then
    export VIRTUAL_ENV="$folder" PATH="$folder/bin:$PATH"
else
    unset VIRTUAL_ENV
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m lthcore "$@"
