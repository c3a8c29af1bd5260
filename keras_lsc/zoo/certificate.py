"""Certificates: what was measured of a checkpoint, on which data, and how to measure it again."""

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.stability.measure import measure
from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo.recipes import Recipe


def certificate_data(recipe: Recipe, data_dir: str | os.PathLike[str] | None = None) -> np.ndarray:
    """The validation sequences on which a recipe's radii are measured; nothing is fetched.

    Args:
        recipe: of the checkpoint.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        DatasetUnavailableError: the data is not on this computer.
    """
    return _load(recipe, "validation", recipe.certificate_sequences, data_dir)


def training_data(recipe: Recipe, data_dir: str | os.PathLike[str] | None = None) -> np.ndarray:
    """The training sequences that a recipe's pre-training draws from; labels are not read."""
    return _load(recipe, "train", recipe.sequences, data_dir)


def _load(
    recipe: Recipe, split: str, limit: int, data_dir: str | os.PathLike[str] | None
) -> np.ndarray:
    options = dict(recipe.options)
    if datasets.info(recipe.dataset).kind != "generated":
        options |= {"download": False, "data_dir": data_dir}
    return datasets.load(recipe.dataset, split, limit=limit, **options)[0]


def identity(x: np.ndarray) -> dict[str, Any]:
    """Shape, dtype and sha256 of an array: which data it was."""
    digest = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
    return {"shape": list(x.shape), "dtype": str(x.dtype), "sha256": digest}


def make_certificate(
    recipe: Recipe,
    initial: StabilityReport,
    stabilized: StabilityReport,
    training: np.ndarray,
    validation: np.ndarray,
) -> dict[str, Any]:
    """Returns the certificate of a checkpoint as JSON types.

    Args:
        recipe: of the checkpoint.
        initial: report of the network before pre-training.
        stabilized: report after it, at the same points.
        training: sequences of pre-training.
        validation: sequences of the reports.
    """
    return {
        "recipe": recipe.to_dict(),
        "initial": initial.to_dict(),
        "stabilized": stabilized.to_dict(),
        "training_data": identity(training),
        "certificate_data": {"split": "validation", **identity(validation)},
        "backend": keras.backend.backend(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in ("keras", "keras-lsc", "numpy", "jax", "tensorflow", "tensorflow-cpu", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Verification:
    """What came of measuring a certificate again.

    Attributes:
        name: of the checkpoint.
        report: measured now, on this backend.
        backend: this one.
        difference: largest |radius now - radius certified| of a transition.
        deviation: largest |radius now - target| of a transition.
        tolerance: of the certificate.
        agreement: largest difference that passes.
    """

    name: str
    report: StabilityReport
    backend: str
    difference: float
    deviation: float
    tolerance: float
    agreement: float = 2e-3

    @property
    def passed(self) -> bool:
        """Whether the radii are those of the certificate, and within its tolerance."""
        return self.difference <= self.agreement and self.deviation <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as JSON types."""
        return {
            "name": self.name,
            "passed": self.passed,
            "backend": self.backend,
            "difference": self.difference,
            "deviation": self.deviation,
            "tolerance": self.tolerance,
        }

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.name}: {verdict} on {self.backend}; radii differ by {self.difference:.1e} from "
            f"the certificate and by {self.deviation:.4f} from the target "
            f"(tolerance {self.tolerance})"
        )


class CertificateMismatchError(ValueError):
    """A certificate cannot be measured again: the data at hand is other data."""


def remeasure(
    name: str, model: keras.Model, certificate: dict[str, Any], x: np.ndarray
) -> Verification:
    """Measures a checkpoint's radii again and compares them with its certificate.

    Args:
        name: of the checkpoint.
        model: the checkpoint.
        certificate: of it.
        x: the sequences of the certificate.

    Raises:
        CertificateMismatchError: `x` are other sequences than those of the certificate.
    """
    expected, found = certificate["certificate_data"], identity(x)
    if found["sha256"] != expected["sha256"]:
        raise CertificateMismatchError(
            f"The data at hand for {name!r} is not that of its certificate: sha256 "
            f"{found['sha256'][:12]}..., shape {found['shape']}; expected "
            f"{expected['sha256'][:12]}..., shape {expected['shape']}. Another version or a part "
            "of the dataset is prepared."
        )
    certified = certificate["stabilized"]
    recipe = Recipe.from_dict(certificate["recipe"])
    report = measure(model, x, samples=certified["samples"], seed=certified["seed"])
    before = {row["name"]: row["radius"] for row in certified["transitions"]}
    after = {row.name: row.radius for row in report.transitions}
    return Verification(
        name=name,
        report=report,
        backend=keras.backend.backend(),
        difference=max(abs(after[row] - before[row]) for row in before),
        deviation=report.max_deviation(recipe.target),
        tolerance=recipe.tolerance,
    )
