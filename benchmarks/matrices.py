"""A battery of matrices on which spectral radii are hard, each family with its reason.

`battery()` yields named float32 matrices; the truth of each is LAPACK's in float64 on the same
entries. `benchmarks/radius.py` makes a table of it, `tests/test_radius_battery.py` asserts it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Case(NamedTuple):
    """One matrix of the battery.

    Attributes:
        family: of its kind.
        name: unique: family, size and what else is particular.
        matrix: `(n, n)` float32.
    """

    family: str
    name: str
    matrix: Array


def _orthogonal(n: int, rng: np.random.Generator) -> Array:
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def gaussian(n: int, rng: np.random.Generator) -> Array:
    """Independent entries: moduli lie close to each other at the edge of a disc."""
    return rng.standard_normal((n, n)) / np.sqrt(n)


def symmetric(n: int, rng: np.random.Generator) -> Array:
    """Real eigenvalues of both signs, nearly equal in modulus at the two ends."""
    matrix = gaussian(n, rng)
    return (matrix + matrix.T) / np.sqrt(2)


def antisymmetric(n: int, rng: np.random.Generator) -> Array:
    """Imaginary pairs: no power has a trace at an odd exponent."""
    matrix = gaussian(n, rng)
    return (matrix - matrix.T) / np.sqrt(2)


def positive(n: int, rng: np.random.Generator) -> Array:
    """One eigenvalue far outside of the others (Perron)."""
    return rng.uniform(0.0, 2.0 / n, (n, n))


def orthogonal(n: int, rng: np.random.Generator) -> Array:
    """All moduli equal, all phases different."""
    return _orthogonal(n, rng)


def companion(n: int, rng: np.random.Generator) -> Array:
    """Ones below the diagonal and a polynomial's coefficients in the first row."""
    matrix = np.eye(n, k=-1)
    matrix[0] = rng.standard_normal(n) / 2
    return matrix


def jordan(n: int, rng: np.random.Generator) -> Array:
    """A defective eigenvalue: powers grow by a polynomial before they decay."""
    return rng.uniform(0.3, 1.2) * np.eye(n) + np.eye(n, k=-1)


def delay_line(n: int, rng: np.random.Generator) -> Array:
    """A leaky shift register: a transient of n steps, then a slow decay."""
    return rng.uniform(0.5, 0.999) * np.eye(n) + np.eye(n, k=-1)


def hippo(n: int, rng: np.random.Generator) -> Array:
    """The memory of a Legendre memory unit of order n over a window of 10 n steps."""
    del rng
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    a = np.where(i < j, -1.0, (-1.0) ** (i - j + 1)) * (2 * i + 1)
    step = np.eye(n) - a / (20.0 * n)
    return np.linalg.solve(step, np.eye(n) + a / (20.0 * n))


def grcar(n: int, rng: np.random.Generator) -> Array:
    """A banded Toeplitz matrix whose inner eigenvalues are ill-conditioned."""
    del rng
    return -np.eye(n, k=-1) + sum(np.eye(n, k=k) for k in range(4))


def triangular(n: int, rng: np.random.Generator) -> Array:
    """Eigenvalues on the diagonal under an upper part that is much larger."""
    return np.diag(rng.uniform(-1, 1, n)) + 5.0 * np.triu(rng.standard_normal((n, n)), 1)


def cascade(n: int, rng: np.random.Generator) -> Array:
    """Two coupled groups, the second driven a hundred times as strongly as it acts."""
    half = n // 2
    matrix = np.zeros((n, n))
    matrix[:half, :half] = gaussian(half, rng) * 0.9
    matrix[half:, half:] = gaussian(n - half, rng) * 0.7
    matrix[half:, :half] = 100.0 * gaussian(n, rng)[half:, :half]
    return matrix


def graded(n: int, rng: np.random.Generator) -> Array:
    """Rows and columns over six orders of magnitude: badly scaled, and no worse."""
    scales = 10.0 ** np.linspace(-3, 3, n)
    return gaussian(n, rng) * scales[:, None] / scales[None, :]


def clustered(n: int, rng: np.random.Generator) -> Array:
    """Moduli within 0.1 % of each other."""
    basis = _orthogonal(n, rng)
    return basis @ np.diag(rng.uniform(0.999, 1.0, n)) @ basis.T


def opposite(n: int, rng: np.random.Generator) -> Array:
    """Two leaders of equal modulus and opposite sign."""
    basis = _orthogonal(n, rng) + 0.3 * gaussian(n, rng)
    values = rng.uniform(-0.6, 0.6, n)
    values[:2] = np.array([0.9, -0.9])[:n]
    return basis @ np.diag(values) @ np.linalg.inv(basis)


def rank_one(n: int, rng: np.random.Generator) -> Array:
    """A single eigenvalue that is not zero."""
    return np.outer(rng.standard_normal(n), rng.standard_normal(n)) / n


def rank_four(n: int, rng: np.random.Generator) -> Array:
    """Four eigenvalues that are not zero."""
    rank = min(4, n)
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n)) / n


def dead_rows(n: int, rng: np.random.Generator) -> Array:
    """Most units do not answer at all."""
    matrix = rng.standard_normal((n, n))
    matrix[rng.permutation(n)[: max(1, int(0.95 * n)) if n > 1 else 0]] = 0.0
    return matrix / max(1.0, np.sqrt(0.05 * n))


def multiple_of_identity(n: int, rng: np.random.Generator) -> Array:
    """One eigenvalue n times over."""
    return rng.uniform(0.1, 2.0) * np.eye(n)


def two_values(n: int, rng: np.random.Generator) -> Array:
    """Two distinct eigenvalues, many times each."""
    basis = _orthogonal(n, rng)
    return basis @ np.diag(np.where(np.arange(n) % 3 == 0, 0.99, 0.5)) @ basis.T


def permutation(n: int, rng: np.random.Generator) -> Array:
    """Roots of unity: powers return to where they were."""
    return 0.8 * np.eye(n)[rng.permutation(n)]


def cycle(n: int, rng: np.random.Generator) -> Array:
    """One cycle through all: no power below n has a trace."""
    del rng
    return 1.1 * np.roll(np.eye(n), 1, axis=0)


def lstm_like(n: int, rng: np.random.Generator) -> Array:
    """The Jacobian of an LSTM's two states: a fast half beside a slow one."""
    half = max(1, n // 2)
    rest = n - half
    matrix = np.zeros((n, n))
    matrix[:half, :half] = 0.1 * gaussian(n, rng)[:half, :half]
    matrix[:half, half:] = 0.5 * np.eye(half, rest)
    matrix[half:, :half] = gaussian(n, rng)[half:, :half]
    matrix[half:, half:] = np.diag(rng.uniform(0.3, 0.8, rest))
    return matrix


def equal_forget_gates(n: int, rng: np.random.Generator) -> Array:
    """As of an LSTM at rest: the slow half decays at one rate."""
    matrix = lstm_like(n, rng)
    half = max(1, n // 2)
    matrix[:half] *= 0.2
    matrix[half:, half:] = 0.73 * np.eye(n - half)
    return matrix


def conditioned(condition: float) -> Callable[[int, np.random.Generator], Array]:
    """Eigenvectors of this condition number, a leader 1.3 times the next."""

    def make(n: int, rng: np.random.Generator) -> Array:
        singular = np.geomspace(1.0, 1.0 / condition, n)
        basis = _orthogonal(n, rng) @ np.diag(singular) @ _orthogonal(n, rng)
        values = rng.uniform(-0.7, 0.7, n)
        values[0] = 0.91
        inverse = np.linalg.inv(basis)
        return basis @ np.diag(values) @ inverse

    make.__doc__ = conditioned.__doc__
    return make


FAMILIES: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "gaussian": gaussian,
    "symmetric": symmetric,
    "antisymmetric": antisymmetric,
    "positive": positive,
    "orthogonal": orthogonal,
    "companion": companion,
    "jordan": jordan,
    "delay line": delay_line,
    "hippo": hippo,
    "grcar": grcar,
    "triangular": triangular,
    "cascade": cascade,
    "graded": graded,
    "clustered": clustered,
    "opposite": opposite,
    "rank one": rank_one,
    "rank four": rank_four,
    "dead rows": dead_rows,
    "multiple of I": multiple_of_identity,
    "two values": two_values,
    "permutation": permutation,
    "cycle": cycle,
    "lstm": lstm_like,
    "equal forget gates": equal_forget_gates,
    **{f"condition 1e{k}": conditioned(10.0**k) for k in range(1, 9)},
}
SIZES = (1, 2, 3, 8, 24, 96, 256)
LARGE = (512, 1024)
# A change of scale changes nothing but the exponent: tried on a few.
SCALES = (1e-30, 1e-12, 1e12, 1e30)


def explicit() -> Iterator[tuple[str, Array]]:
    """Matrices written out: each broke a radius once."""
    yield "two by two, coupled 1e6", np.array([[0.9, 1e6], [0.0, 0.9]])
    yield "two by two, coupled 100", np.array([[0.9, 100.0], [0.0, 0.7]])
    yield "two by two, rotation", 0.8 * np.array([[0.6, -0.8], [0.8, 0.6]])
    yield "leader 1e8 above the rest", np.diag([1e4, 1e-4, 0.0, 3.0])
    yield "shift", np.eye(9, k=-1)
    yield "shift of 30", 30.0 * np.eye(40, k=1)
    yield "zero", np.zeros((5, 5))
    yield "strictly triangular", np.triu(np.arange(25.0).reshape(5, 5), k=1)
    yield "nilpotent of rank one", np.outer([1.0, 2.0], [2.0, -1.0])
    yield "nearly nilpotent", np.eye(12, k=-1) + 1e-3 * np.eye(12)
    yield "long Jordan block of a half", 0.5 * np.eye(64) + np.eye(64, k=1)
    yield "Jordan block of a negative", -1.5 * np.eye(7) + np.eye(7, k=1)
    yield "closed delay line", np.eye(50, k=-1) + 1e-6 * np.eye(50, k=49)


def battery(sizes: tuple[int, ...] = SIZES, scales: bool = True) -> Iterator[Case]:
    """Yields the cases: every family at every size, some at other scales, the explicit ones.

    Args:
        sizes: of the matrices of the families.
        scales: whether to repeat the size 24 at `SCALES`.
    """
    for index, (family, make) in enumerate(FAMILIES.items()):
        for n in sizes:
            if family.startswith("condition") and n < 3:
                continue
            matrix = make(n, np.random.default_rng([index, n])).astype("float32")
            yield Case(family, f"{family}, {n}", matrix)
            if scales and n == 24:
                for scale in SCALES:
                    scaled = (matrix.astype("float64") * scale).astype("float32")
                    yield Case(family, f"{family}, {n}, times {scale:g}", scaled)
    for name, matrix in explicit():
        yield Case("explicit", name, matrix.astype("float32"))
