#!/bin/sh
# Make a virtual environment at $1 with exactly the versions that were tested.
# On Linux torch comes as its CPU build: the default build of PyPI brings gigabytes of CUDA along.
set -eu
venv=$1
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "peerplan needs Python 3.11 or newer; '$python' is older. Set PYTHON=/path/to/python3.11" >&2; exit 1; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check"
torch=$(sed -n 's/^torch==//p' constraints.txt)
if ! "$venv/bin/python" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$torch')" 2>/dev/null; then
  echo "installing torch $torch (CPU build)"
  if [ "$(uname -s)" = Linux ]; then
    $pip -c constraints.txt "torch==$torch+cpu" 2>/dev/null ||
      $pip -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu"
  else
    $pip -c constraints.txt "torch==$torch"
  fi
fi
if ! command -v cc >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing a C compiler for the passes over vectors"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev >/dev/null
fi
echo "installing peerplan"
$pip -c constraints.txt -e '.[author,demo,dev,huggingface,keras]'
"$venv/bin/python" -c 'from protocol.secagg.passes import COMPILED; raise SystemExit(not COMPILED)' || {
  echo "NOT COMPILED: rounds use numpy for the passes over vectors; with a C compiler and Python's headers they take less" >&2
  [ -z "${CI:-}" ] || exit 1
}
