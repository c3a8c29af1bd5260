"""How many threads a worker computes with."""

# How many threads each of the backends, and of the libraries below them, starts.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)


def thread_limits(count: int) -> dict[str, str]:
    """Returns the environment of a process that is to compute with so many threads."""
    return dict.fromkeys(_THREADS, str(count))
