"""Workers where they are asked for."""

from typing import Any, Literal

from keras_lsc.arguments import positive_integer
from keras_lsc.workers.cluster import RayWorkers, import_ray
from keras_lsc.workers.local import LocalWorkers
from keras_lsc.workers.run import Workers
from keras_lsc.workers.work import Work

RAY = "ray"
Jobs = int | Literal["ray"]


def checked_jobs(jobs: Any) -> Jobs:
    """Returns how many jobs are done at a time, or "ray".

    Args:
        jobs: What was given.

    Raises:
        ValueError: It is neither a positive integer nor "ray".
        ModuleNotFoundError: It is "ray", which is not installed.
    """
    if isinstance(jobs, str) and jobs == RAY:
        import_ray()
        return "ray"
    return positive_integer("jobs", jobs, advice='Or give "ray" for a cluster.')


def start_workers(work: Work, jobs: Jobs) -> Workers:
    """Returns workers, which end with the context that they are.

    Args:
        work: What they are for.
        jobs: Number of processes at a time on this computer; "ray" for as many as the Ray cluster
            has cores.
    """
    return RayWorkers(work) if jobs == RAY else LocalWorkers(work, int(jobs))
