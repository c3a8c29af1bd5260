"""Radii and their gradients on matrices on which they are hard, against LAPACK in float64.

    KERAS_BACKEND=jax python -m benchmarks.radius [--quick]

Prints a table and writes `benchmarks/results/radius_<backend>.json`, by family of
`benchmarks/matrices.py`: how many were tried with Jacobians that are formed ("dense") and such
that are not ("matrix-free"), how many values and gradients are right, and how many gradients are
said to be those of a common scale. It ends with 1 where one is wrong.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from benchmarks.environment import environment
from benchmarks.matrices import LARGE, SIZES, Case, battery
from keras_lsc import backend
from keras_lsc.stability.radius import radius_and_gain

RESULTS = Path(__file__).parent / "results"
VALUE, GRADIENT = 1e-3, 1e-2
# Eigenvalues whose moduli are as close as this are one radius, of which there is no gradient.
_EQUAL = 1e-6
# Numbers of the matrices that are measured at once: what backpropagation keeps is a hundred times.
_AT_ONCE = 2**22


class Verdict(NamedTuple):
    """What came of one matrix.

    Attributes:
        value: the radius.
        truth: LAPACK's, in float64.
        is_wanted: whether NumPy's float32 eigenvalues are right, so that ours have to be.
        is_right: whether the value is: near the truth, between its bounds, zero only for zero.
        is_own: whether the gradient is said to be the radius' own.
        gradient_is_right: whether a gradient that is said so is.
    """

    value: float
    truth: float
    is_wanted: bool
    is_right: bool
    is_own: bool
    gradient_is_right: bool


def judge(cases: Iterable[Case], dense: bool) -> dict[str, Verdict]:
    """Measures matrices of one size and compares value and gradient with LAPACK's.

    Args:
        cases: of one size.
        dense: whether Jacobians are formed.

    Returns:
        A `Verdict` by name of the case.
    """
    cases = list(cases)
    matrices = np.stack([case.matrix for case in cases])
    count, n = matrices.shape[:2]
    found: list[Any] = []

    def total(flat: Any) -> Any:
        given = ops.reshape(flat, (count, n, n))
        measured = radius_and_gain(
            lambda x: ops.einsum("pij,pj->pi", given, x),
            ops.zeros((count, n)),
            dense_limit=n if dense else 0,
        )
        found.append([ops.convert_to_numpy(ops.stop_gradient(x)) for x in measured[::3]])
        return ops.reshape(ops.sum(measured.radius), (1, 1))

    y, pullback = backend.vjp(total, ops.convert_to_tensor(matrices.reshape(1, -1)))
    gradients = ops.convert_to_numpy(pullback(ops.ones_like(y))).reshape(matrices.shape)
    values, own = found[-1]
    return {
        case.name: _verdict(case.matrix, float(value), bool(is_own), gradient)
        for case, value, is_own, gradient in zip(cases, values, own, gradients, strict=True)
    }


def judged(group: Sequence[Case], dense: bool) -> Iterator[Verdict]:
    """`judge` of a few cases at a time, as many as memory holds."""
    count = max(1, _AT_ONCE // group[0].matrix.size)
    for start in range(0, len(group), count):
        yield from judge(group[start : start + count], dense).values()


def _verdict(matrix: np.ndarray, value: float, is_own: bool, gradient: np.ndarray) -> Verdict:
    exact = matrix.astype("float64")
    truth = float(np.abs(np.linalg.eigvals(exact)).max())
    # Of some not even LAPACK knows the radius: that of the transpose is another one.
    of_transpose = float(np.abs(np.linalg.eigvals(exact.T)).max())
    is_known = abs(of_transpose - truth) <= VALUE * truth
    in_float32 = float(np.abs(np.linalg.eigvals(matrix)).max())
    norm = float(np.linalg.norm(exact, ord=2))
    is_near = abs(value - truth) <= VALUE * truth
    is_bounded = abs(np.trace(exact)) / len(exact) <= value * (1 + VALUE) + 1e-300
    return Verdict(
        value=value,
        truth=truth,
        is_wanted=is_known and abs(in_float32 - truth) <= VALUE * truth,
        is_right=is_near and is_bounded and value <= norm * (1 + VALUE),
        is_own=is_own,
        gradient_is_right=not is_own or _is_gradient(exact, gradient),
    )


def _is_gradient(matrix: np.ndarray, gradient: np.ndarray) -> bool:
    """Whether this is u v^T / (u^T v) of the leader, turned to its phase; false where shared."""
    values, right = np.linalg.eig(matrix)
    leader = int(np.argmax(np.abs(values)))
    value = values[leader]
    sharing = np.abs(np.abs(values) - np.abs(value)) <= _EQUAL * np.abs(value)
    if sharing.sum() > (2 if value.imag else 1):
        return False
    left_values, left = np.linalg.eig(matrix.T)
    u, v = left[:, np.argmin(np.abs(left_values - value))], right[:, leader]
    expected = np.real(np.conj(value) / np.abs(value) * np.outer(u, v) / (u @ v))
    return bool(np.abs(gradient - expected).max() <= GRADIENT * np.abs(expected).max())


def by_size(cases: Iterable[Case], sizes: Iterable[int]) -> dict[int, list[Case]]:
    """Cases by size, each in a corner of zeros of the next of `sizes`: what else is compiled anew.

    Zeros beside a matrix change neither its radius nor the gradient by its entries.
    """
    groups: dict[int, list[Case]] = {size: [] for size in sorted(sizes)}
    for case in cases:
        size = next(size for size in groups if size >= len(case.matrix))
        matrix = np.pad(case.matrix, (0, size - len(case.matrix)))
        groups[size].append(case._replace(matrix=matrix))
    return {size: group for size, group in groups.items() if group}


def main() -> int:
    """Judges the battery and writes the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="sizes up to 96 only")
    quick = parser.parse_args().quick
    sizes = tuple(n for n in SIZES if n <= 96) if quick else (*SIZES, LARGE[0])
    families: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    start = time.perf_counter()
    for group in by_size(battery(sizes), (*sizes, 64)).values():
        for dense in (True, False):
            path = "dense" if dense else "matrix-free"
            for case, verdict in zip(group, judged(group, dense), strict=True):
                counts = families.setdefault(
                    case.family,
                    {"tried": 0, "right": 0, "wrong": 0, "own gradient": 0, "largest error": 0.0},
                )
                counts["tried"] += 1
                is_right = verdict.is_right and verdict.gradient_is_right
                counts["right" if is_right or not verdict.is_wanted else "wrong"] += 1
                counts["own gradient"] += verdict.is_own
                if verdict.truth:
                    error = abs(verdict.value / verdict.truth - 1)
                    counts["largest error"] = max(counts["largest error"], float(f"{error:.1e}"))
                if not is_right:
                    wrong.append(f"{case.name}, {path}: {verdict}")
    content = {
        "environment": environment(),
        "seconds": round(time.perf_counter() - start),
        "tolerance": {"value": VALUE, "gradient": GRADIENT},
        "families": families,
    }
    if not quick:
        path = RESULTS / f"radius_{keras.backend.backend()}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{'family':24}{'tried':>7}{'right':>7}{'own gradient':>14}{'largest error':>15}")
    for family, counts in families.items():
        print(
            f"{family:24}{counts['tried']:7}{counts['right']:7}{counts['own gradient']:14}"
            f"{counts['largest error']:15.1e}"
        )
    print("\n".join(wrong))
    return 1 if any(counts["wrong"] for counts in families.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
