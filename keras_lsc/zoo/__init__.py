"""The zoo: networks pre-trained to stability, each with a certificate that can be recomputed."""

import builtins
import os
from dataclasses import replace
from typing import Any

from keras_lsc.datasets.source import chosen_data_dir
from keras_lsc.zoo import archive, certificate, loading, registry, sources
from keras_lsc.zoo.certificate import CertificateMismatchError, Verification
from keras_lsc.zoo.damage import DamagedCheckpointError
from keras_lsc.zoo.fine_tuning import FineTuning, fine_tune
from keras_lsc.zoo.loading import find_info as info
from keras_lsc.zoo.loading import load, save
from keras_lsc.zoo.recipes import Recipe, RecipeError
from keras_lsc.zoo.registry import CheckpointInfo, UnknownCheckpointError
from keras_lsc.zoo.sources import CheckpointUnavailableError

__all__ = [
    "CertificateMismatchError",
    "CheckpointInfo",
    "CheckpointUnavailableError",
    "DamagedCheckpointError",
    "FineTuning",
    "Recipe",
    "RecipeError",
    "UnknownCheckpointError",
    "Verification",
    "fine_tune",
    "info",
    "list",
    "load",
    "save",
    "verify",
]


def list(pattern: str = "*", *, hidden: bool = False, **filters: Any) -> builtins.list[str]:  # noqa: A001
    """Lists the names of the checkpoints, in natural order.

    Args:
        pattern: with wildcards, such as "lstm_*".
        hidden: whether to list the tiny ones that exist for tests as well.
        **filters: fields of a recipe with the value wanted, such as `dataset="smnist"`,
            `target=0.5`, `depth=2`.

    Returns:
        A list of names.

    Raises:
        TypeError: a filter is no field of a recipe.
        ValueError: `pattern` is no string or an empty one, `hidden` no boolean.
        DamagedCheckpointError: an index cannot be read.

    Example:
        >>> from keras_lsc import zoo
        >>> zoo.list("test_gru_*", hidden=True, target="variance")
        ['test_gru_parity_d2_rhovar']
    """
    return registry.select(sources.entries(), pattern, hidden, filters)


def verify(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Verification:
    """Measures the radii of a checkpoint again, on this backend, and compares its certificate.

    Compared are every transition with its kind, shape, radius and gain, the network with the recipe
    it is said to be of, its weights with what is finite, and the certificate with its copy in the
    file.

    Args:
        name: of a checkpoint of the zoo.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        cache_dir: folder of fetched checkpoints; None for ~/.cache/keras_lsc/zoo.

    Returns:
        A `Verification`: the report, the differences, what is wrong in words, and whether it
        passed.

    Raises:
        UnknownCheckpointError, CheckpointUnavailableError, DamagedCheckpointError: as `load`.
        DatasetUnavailableError: the certificate's data is not on this computer.
        ValueError: an argument of no use.
        CertificateMismatchError: the data at hand is other data, or the certificate names none.

    Example:
        >>> from keras_lsc import zoo
        >>> zoo.verify("test_gru_parity_d2_rhovar").passed
        True
    """
    if data_dir is not None:
        # The data of some tasks is drawn, and nobody would look at it.
        chosen_data_dir(data_dir)
    known = info(name)
    path = loading.find_file(known, cache_dir)
    model = archive.read_model(path)
    x = certificate.checked_data(name, known.certificate, data_dir)
    result = certificate.remeasure(name, model, known.certificate, x, known.parameters)
    if archive.read_certificate(path) == known.certificate:
        return result
    problem = "the certificate in the file is another one than that in the index"
    return replace(result, problems=(*result.problems, problem))
