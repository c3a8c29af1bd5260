#!/usr/bin/env bash
# Fetches what run.sh needs beside JAX and torch, for CPython 3.12 on x86-64 Linux.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
platforms=()
for version in 2014 _2_17 _2_27 _2_28; do
	platforms+=(--platform "manylinux${version}_x86_64")
done
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
	--implementation cp "${platforms[@]}" --dest wheels \
	"keras>=3.15,<3.16" namex optree h5py rich markdown-it-py mdurl pygments absl-py ml_dtypes \
	pytest iniconfig pluggy hypothesis sortedcontainers
