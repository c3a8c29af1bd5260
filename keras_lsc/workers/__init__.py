"""Jobs in processes of their own, on this computer or on the machines of a Ray cluster."""

from keras_lsc.workers.run import Workers
from keras_lsc.workers.start import RAY, Jobs, checked_jobs, start_workers
from keras_lsc.workers.work import Answer, Work, WorkerFailedError

__all__ = [
    "RAY",
    "Answer",
    "Jobs",
    "Work",
    "WorkerFailedError",
    "Workers",
    "checked_jobs",
    "start_workers",
]
