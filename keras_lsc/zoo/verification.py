"""Verification: a certificate measured again, on the backend that runs, and compared."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import datasets
from keras_lsc.arguments import one_of
from keras_lsc.datasets.source import chosen_data_dir
from keras_lsc.files import array_identity
from keras_lsc.renamed import argument_without_effect
from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.report import GradientEnergies, StabilityReport
from keras_lsc.zoo import networks, schema
from keras_lsc.zoo.certificate import certificate_data
from keras_lsc.zoo.damage import DamagedCheckpointError, in_short
from keras_lsc.zoo.loading import STORED, Stored, read
from keras_lsc.zoo.pretraining import deviation, energies
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.registry import CheckpointInfo
from keras_lsc.zoo.resolver import info, locate

# Largest difference of a radius between backends and versions; and of the gradient's energies,
# relative to them, and reaches.
AGREEMENT = 2e-3
ENERGY_AGREEMENT = 2e-2


@dataclass(frozen=True)
class Verification:
    """What came of measuring a certificate again.

    Attributes:
        name: Name of the checkpoint.
        report: What is measured now, on this backend.
        backend: Keras backend of this process.
        difference: Largest |radius now - radius certified| of a transition; NaN where there is
            none to compare.
        deviation: Largest |radius now - target| of a transition; of a levelled start largest
            relative distance of an energy from the middle of all.
        tolerance: Tolerance of the certificate; infinite of trained weights.
        agreement: Largest difference that passes; of gains above 1, relative to them.
        energy_difference: Largest relative difference of an energy of the gradient from the
            certificate, 2 % of which pass; None where that has none.
        problems: What differs, in words; empty where the certificate holds.
    """

    name: str
    report: StabilityReport
    backend: str
    difference: float
    deviation: float
    tolerance: float
    agreement: float = AGREEMENT
    energy_difference: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all is as the certificate says, and the network within its tolerance."""
        return (
            not self.problems
            # So written, NaN fails.
            and self.difference <= self.agreement
            and self.deviation <= self.tolerance
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as JSON types."""
        return {
            "name": self.name,
            "passed": self.passed,
            "backend": self.backend,
            "difference": _finite(self.difference),
            "energy_difference": _finite(self.energy_difference),
            "deviation": _finite(self.deviation),
            "tolerance": _finite(self.tolerance),
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        asked = (
            f" (tolerance {self.tolerance})" if math.isfinite(self.tolerance) else " of its start"
        )
        of_energies = (
            ""
            if self.energy_difference is None
            else f", energies by {self.energy_difference:.1e} of them"
        )
        text = (
            f"{self.name}: {verdict} on {self.backend}; radii differ by {self.difference:.1e} from "
            f"the certificate{of_energies}, and the network by {self.deviation:.4f} from what was "
            f"asked for{asked}"
        )
        return "\n  ".join([text, *self.problems])


def _finite(figure: float | None) -> float | None:
    return None if figure is None or not math.isfinite(figure) else figure


class CertificateMismatchError(ValueError):
    """A certificate cannot be measured again: it is none, or the data at hand is other data."""


def verify(
    name: str,
    *,
    weights: Stored = "stabilized",
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Verification:
    """Measures a checkpoint again, on this backend, and compares its certificate.

    Compared are every transition with its kind, shape, radius and gain, the energy and reach of the
    gradient at every layer where the certificate has them, the network with the recipe it is said
    to be of, and its weights with what is finite.

    Args:
        name: Name of a checkpoint of the zoo.
        weights: "stabilized", or "trained" for its trained weights, of which the certificate has
            radii and energies too; these pass however far they are off, for nothing was asked of
            them. Their scores are measured by `fine_tune(name, task, weights="trained", epochs=0)`.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        cache_dir: Without effect, and to go with the next version: no checkpoint is fetched.

    Returns:
        A `Verification`: the report, the differences, what is wrong in words, and whether it
        passed.

    Raises:
        UnknownCheckpointError, UntrainedCheckpointError: As `load`.
        CheckpointUnavailableError, DamagedCheckpointError: As `load`.
        DatasetUnavailableError: The certificate's data is not on this computer.
        ValueError: An argument of no use.
        CertificateMismatchError: The data at hand is other data, or the certificate names none.

    Example:
        >>> from keras_lsc import zoo
        >>> zoo.verify("test_gru_parity_d2_rhovar").passed
        True
    """
    if cache_dir is not None:
        argument_without_effect("keras_lsc.zoo.verify", "cache_dir", "no checkpoint is fetched")
    if data_dir is not None:
        # The data of some tasks is drawn, and nobody would look at it.
        chosen_data_dir(data_dir)
    one_of("weights", weights, STORED)
    known = info(name)
    model = read(locate(name), weights)
    certificate = known.certificate if weights == "stabilized" else of_trained(known)
    x = checked_data(name, certificate, data_dir)
    found = remeasure(name, model, certificate, x, known.parameters)
    return found if weights == "stabilized" else replace(found, tolerance=math.inf)


def of_trained(known: CheckpointInfo) -> dict[str, Any]:
    """Returns the certificate of trained weights, with their report in place of that of the start.

    Args:
        known: What is known of a checkpoint that has some.
    """
    report = known.certificate["trained"]
    off = deviation(StabilityReport.from_dict(report), known.recipe)
    return {**known.certificate, "stabilized": report, "deviation": off}


def checked_data(
    name: str, certificate: Mapping[str, Any], data_dir: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """`certificate_data` of a certificate of any origin.

    Raises:
        CertificateMismatchError: The certificate is none, or its recipe names no such data.
        DatasetUnavailableError: The data is not on this computer.
    """
    recipe = _recipe_of(name, certificate)
    try:
        return certificate_data(recipe, data_dir)
    except (TypeError, ValueError) as error:
        raise CertificateMismatchError(
            f"The recipe in the certificate of {name!r} names data that does not exist "
            f"({in_short(error)})."
        ) from error


def _recipe_of(name: str, certificate: Mapping[str, Any]) -> Recipe:
    try:
        schema.check_certificate(f"The certificate of {name!r}", certificate)
    except DamagedCheckpointError as error:
        raise CertificateMismatchError(str(error)) from error
    return Recipe.from_dict(certificate["recipe"])


def remeasure(
    name: str,
    model: keras.Model,
    certificate: Mapping[str, Any],
    x: np.ndarray,
    parameters: int | None = None,
) -> Verification:
    """Measures a checkpoint again and compares it with all that its certificate says.

    Args:
        name: Name of the checkpoint.
        model: The checkpoint.
        certificate: Its certificate.
        x: The sequences of the certificate.
        parameters: Number of weights that it should have, where that is known.

    Raises:
        CertificateMismatchError: The certificate lacks a field or has one of no use, or `x` are
            other sequences than those of the certificate.
    """
    _recipe_of(name, certificate)
    expected, found = certificate["certificate_data"], array_identity(x)
    if any(found[key] != expected[key] for key in found):
        raise CertificateMismatchError(
            f"The data at hand for {name!r} is not that of its certificate: sha256 "
            f"{found['sha256'][:12]}..., shape {found['shape']}, {found['dtype']}; expected "
            f"{expected['sha256'][:12]}..., shape {expected['shape']}, {expected['dtype']}. "
            "Another version or a part of the dataset is prepared."
        )
    certified = certificate["stabilized"]
    # Not by `measure`, which refuses weights that are not finite: here they are what is wrong.
    samples, seed = certified["samples"], certified["seed"]
    drawn = draw_rows(x, samples, seed, input_structure(model))
    report = Probe(model).report(drawn, samples, seed)
    gradient = certified.get("gradient")
    if gradient is not None:
        report = replace(report, gradient=energies(model, x, gradient["sequences"], seed))
    return compare(name, model, certificate, report, parameters)


def compare(
    name: str,
    model: keras.Model,
    certificate: Mapping[str, Any],
    report: StabilityReport,
    parameters: int | None = None,
) -> Verification:
    """`remeasure` of what is measured already.

    Args:
        name: Name of the checkpoint.
        model: The checkpoint.
        certificate: Its certificate.
        report: Report of the model on the sequences of the certificate.
        parameters: Number of weights that it should have, where that is known.

    Raises:
        CertificateMismatchError: The certificate lacks a field or has one of no use.
    """
    recipe, certified = _recipe_of(name, certificate), certificate["stabilized"]
    problems = _problems_of_network(model, recipe, parameters)
    difference, differing = _compare(report.to_dict(), certified)
    of_energies, uneven = _compare_energies(report.gradient, certified.get("gradient"))
    off = _deviation(report, recipe, problems)
    agreement = AGREEMENT if recipe.method == "lsc" else ENERGY_AGREEMENT
    if not abs(off - certificate["deviation"]) <= agreement:
        problems.append(
            f"the certificate states a deviation of {certificate['deviation']:.4f}, but it is "
            f"{off:.4f}"
        )
    if certified["samples"] < recipe.samples or certified["seed"] != recipe.seed:
        problems.append(
            f"the certificate is of {certified['samples']} points and seed {certified['seed']}, "
            f"the recipe of {recipe.samples} and {recipe.seed}"
        )
    return Verification(
        name=name,
        report=report,
        backend=keras.backend.backend(),
        difference=difference,
        deviation=off,
        tolerance=recipe.tolerance,
        energy_difference=of_energies,
        problems=(*problems, *differing, *uneven),
    )


def _deviation(report: StabilityReport, recipe: Recipe, problems: list[str]) -> float:
    try:
        return deviation(report, recipe)
    except ValueError as error:  # no transition has a target, or there are no energies
        problems.append(in_short(error))
        return math.nan


def _compare(found: Mapping[str, Any], certified: Mapping[str, Any]) -> tuple[float, list[str]]:
    """The largest difference of a radius, and all that differs between two reports, in words."""
    problems = [
        f"{field} is {found[field]!r}, the certificate says {certified[field]!r}"
        for field in ("layers", "steps", "radius_kind")
        if found[field] != certified[field]
    ]
    now, then = ([row["name"] for row in rows["transitions"]] for rows in (found, certified))
    if now != then:
        missing = [name for name in now if name not in then] or then
        problems.append(
            f"the model has the {len(now)} transitions {', '.join(now)}, the certificate "
            f"{len(then)}, which differ at {missing[0]}"
        )
        return math.nan, problems
    differences = []
    for row, other in zip(found["transitions"], certified["transitions"], strict=True):
        for field in ("kind", "layer", "state", "shape"):
            if row[field] != other[field]:
                problems.append(
                    f"{row['name']} has the {field} {row[field]!r}, the certificate says "
                    f"{other[field]!r}"
                )
        differences.append(abs(row["radius"] - other["radius"]))
        for field in ("radius", "radius_std", "gain"):
            # Radii are near 1 or below; a gain may be any size, and a spread with it.
            scale = 1.0 if field == "radius" else max(1.0, abs(other[field]))
            if not abs(row[field] - other[field]) <= AGREEMENT * scale:
                problems.append(
                    f"{row['name']} has the {field} {row[field]:.4f}, the certificate says "
                    f"{other[field]:.4f}"
                )
    if found["firing_rates"].keys() != certified["firing_rates"].keys():
        problems.append("the spiking layers are not those of the certificate")
    for layer in found["firing_rates"].keys() & certified["firing_rates"].keys():
        rate, other_rate = found["firing_rates"][layer], certified["firing_rates"][layer]
        if not abs(rate - other_rate) <= AGREEMENT:
            problems.append(
                f"{layer} has the firing rate {rate:.4f}, the certificate says {other_rate:.4f}"
            )
    # That of NumPy, which keeps NaN wherever it stands.
    return float(np.max(differences)), problems


def _compare_energies(
    found: GradientEnergies | None, certified: Mapping[str, Any] | None
) -> tuple[float | None, list[str]]:
    """The largest relative difference of an energy, and all that differs, in words."""
    if certified is None:
        return None, []
    if found is None:
        return math.nan, ["the energies of the gradient were not measured again"]
    then = GradientEnergies.from_dict(certified)
    if (found.layers, found.sequences) != (then.layers, then.sequences):
        return math.nan, [
            f"the gradient passes {', '.join(found.layers)} on {found.sequences} sequences, the "
            f"certificate says {', '.join(then.layers)} on {then.sequences}"
        ]
    problems = []
    now, before = np.asarray(found.energies), np.asarray(then.energies)
    # Also of what is zero in the certificate.
    scale = np.maximum(before, np.finfo("float32").tiny)
    differences = np.abs(now - before) / scale
    reaches = np.nan_to_num(np.abs(found.reach - then.reach), nan=0.0)
    reaches[np.isnan(found.reach) != np.isnan(then.reach)] = np.inf
    for k, name in enumerate(found.layers):
        if not differences[k] <= ENERGY_AGREEMENT:
            problems.append(
                f"the gradient at {name} has the energy {now[k]:.4g}, the certificate says "
                f"{before[k]:.4g}"
            )
        if not reaches[k] <= ENERGY_AGREEMENT:
            problems.append(
                f"the gradient at {name} has the reach {found.reach[k]:.3f}, the certificate says "
                f"{then.reach[k]:.3f}"
            )
    return float(np.max(differences)), problems


def _problems_of_network(model: keras.Model, recipe: Recipe, parameters: int | None) -> list[str]:
    """What of a model is not as its recipe has it, in words; weights that are no numbers, too."""
    problems = [
        f"the weight {weight.path} has values that are not finite"
        for weight in model.weights
        if "float" in weight.dtype and not np.isfinite(ops.convert_to_numpy(weight)).all()
    ]
    count = model.count_params()
    if parameters is not None and count != parameters:
        problems.append(f"the model has {count:,} weights, the index says {parameters:,}")
    try:
        sizes = _sizes_that_differ(model, recipe)
        if sizes:
            return [*problems, *sizes]
        wanted = _outline(networks.build_network(recipe))
    except ValueError as error:
        return [*problems, f"the recipe makes no network ({in_short(error)})"]
    found = _outline(model)
    if len(found) != len(wanted):
        problems.append(f"the model has {len(found)} layers, its recipe makes {len(wanted)}")
    pairs = zip(found, wanted, strict=False)
    problems.extend(
        f"the model has {is_there}, its recipe makes {should_be}"
        for is_there, should_be in pairs
        if is_there != should_be
    )
    return problems


def _sizes_that_differ(model: keras.Model, recipe: Recipe) -> list[str]:
    """What can be seen before the recipe's network, which may be of any size, is built."""
    named = [layer for layer in model.layers if re.fullmatch(r"layer_\d+", layer.name)]
    embeddings = [e for e in model.layers if isinstance(e, keras.layers.Embedding)]
    found: dict[str, Any] = {
        "depth": len(named),
        "embedding": embeddings[0].output_dim if embeddings else None,
        "input_shape": tuple(model.inputs[0].shape[1:]),
    }
    wanted: dict[str, Any] = {
        "depth": recipe.depth,
        "embedding": recipe.embedding,
        "input_shape": recipe.input_shape or datasets.info(recipe.dataset).shape,
    }
    for layer in named:
        found[f"units of {layer.name}"] = getattr(layer, "units", None)
        wanted[f"units of {layer.name}"] = recipe.units
    return [
        f"the model has the {what} {found[what]}, its recipe says {wanted[what]}"
        for what in wanted
        if found[what] != wanted[what]
    ]


def _outline(model: keras.Model) -> list[str]:
    """Class, name, activation and the shapes of the weights of every layer, in words."""
    lines = []
    for layer in model.layers:
        function = getattr(getattr(layer, "activation", None), "__name__", None)
        shapes = ", ".join(str(tuple(weight.shape)) for weight in layer.weights)
        words = [type(layer).__name__, layer.name, function or "", f"[{shapes}]"]
        lines.append(" ".join(word for word in words if word))
    return lines
