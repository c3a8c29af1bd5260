"""What is wrong with a network, and what to do about it."""

from keras_lsc.diagnosis.findings import Finding
from keras_lsc.diagnosis.page import Diagnosis
from keras_lsc.diagnosis.run import diagnose

__all__ = ["Diagnosis", "Finding", "diagnose"]


def __dir__() -> list[str]:
    return sorted(__all__)
