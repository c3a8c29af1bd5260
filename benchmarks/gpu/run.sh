#!/usr/bin/env bash
# All that is measured on a GPU, in one call of under nine minutes, on JAX and torch.
#
#     benchmarks/gpu/run.sh [--device gpu|cpu] [--out FOLDER]
#
# The machine needs Python with JAX and torch, and no network: what else is needed is installed from
# the wheels in benchmarks/gpu/wheels, which wheels.sh fetches on a machine that has one. Every part
# has a limit of its own, and what it has measured is written when it ends: FOLDER/gpu.json, and
# FOLDER/log with all that was printed. With --device cpu the sizes are small, to try the script.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

device=gpu
out=benchmarks/results
while (($#)); do
	case $1 in
	--device) device=$2 ;;
	--out) out=$2 ;;
	*)
		echo "usage: $0 [--device gpu|cpu] [--out FOLDER]" >&2
		exit 2
		;;
	esac
	shift 2
done
if [[ $device != gpu && $device != cpu ]]; then
	echo "--device must be gpu or cpu, got $device" >&2
	exit 2
fi
mkdir -p "$out"
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
# The memory is shared with the process of the other backend, which has ended by then.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
if [[ $device == cpu ]]; then
	export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=
fi

if compgen -G "benchmarks/gpu/wheels/*.whl" >/dev/null; then
	"$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" \
		benchmarks/gpu/wheels/*.whl || exit 1
	# Behind what the machine has, which fits its GPU.
	export PYTHONPATH=$PYTHONPATH:$work/site
fi

failed=0
part() { # name, backend, seconds
	echo "==== $1 on $2 ===="
	KERAS_BACKEND=$2 timeout "$3" "$python" benchmarks/gpu/parts.py "$1" \
		--device "$device" --out "$out" --work "$work" || {
		echo "$1 on $2 ended with $?"
		failed=1
	}
}

{
	for backend in jax torch; do
		part roofline $backend 25
		part layers $backend 60
		part pretraining $backend 60
	done
	# Where there is no GPU to be seen, outputs and radii are those of the CPU.
	for backend in jax torch; do
		JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES='' part reference $backend 20
		part zoo $backend 30
	done
	for backend in jax torch; do
		echo "==== tests on $backend ===="
		KERAS_BACKEND=$backend timeout 70 "$python" -m pytest -q -x -p no:cacheprovider \
			tests/test_radius.py tests/test_scan.py tests/test_lif.py || {
			echo "tests on $backend ended with $?"
			failed=1
		}
	done
} 2>&1 | tee "$out/gpu.log"
exit $failed
