"""Writing checkpoints as `.keras` files: a model of one's own, or one of the zoo."""

import json
import os
from pathlib import Path

import keras

from keras_lsc import files
from keras_lsc.arguments import one_of, text
from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo import keras_file
from keras_lsc.zoo.certificate import make_certificate
from keras_lsc.zoo.loading import STORED, Stored, read
from keras_lsc.zoo.resolver import OWN_CERTIFICATE, OWN_MODEL, info, locate


def save(
    model: keras.Model, folder: str | os.PathLike[str], report: StabilityReport | None = None
) -> Path:
    """Saves a stabilised model of one's own, with its certificate, for `load` to read by its path.

    Whenever a process is killed meanwhile, the folder has the old model with the old certificate or
    the new one with the new.

    Args:
        model: Sequential or functional model.
        folder: Folder, which is made; an older checkpoint in it is replaced.
        report: What `keras_lsc.stabilize` or `keras_lsc.measure` returned, or None.

    Returns:
        The folder: `model.keras`, with the certificate inside, and `certificate.json` with that
        and the sha256 of the file.

    Raises:
        TypeError: No model, or no report.
        ValueError: `folder` is no path, or an empty one.
        OSError: The folder cannot be written to.

    Example:
        >>> import keras, keras_lsc, numpy as np, tempfile
        >>> x = np.random.normal(size=(64, 20, 3))
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> report = keras_lsc.measure(model, x)
        >>> path = keras_lsc.zoo.save(model, tempfile.mkdtemp(), report)
        >>> keras_lsc.zoo.load(str(path)).count_params() == model.count_params()
        True
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}.")
    if not isinstance(report, StabilityReport | None):
        raise TypeError(
            "report must be what keras_lsc.measure or keras_lsc.stabilize returns, or None; got "
            f"{type(report).__name__}."
        )
    path = Path(text("folder", os.fspath(folder) if isinstance(folder, os.PathLike) else folder))
    certificate = make_certificate(stabilized=report)
    with keras_file.prepared(model, path, certificate) as (finished, digest):
        beside = finished.with_name(OWN_CERTIFICATE)
        content = json.dumps({"sha256": digest, **certificate}, indent=2) + "\n"
        beside.write_text(content, encoding="utf-8")
        files.to_disk(beside)
        # The model, with the certificate inside, is all there is to know: moving it is the step
        # that counts. Before, the copy of the old certificate goes, lest it stand beside the new
        # model; `locate` takes a model that vouches for itself.
        (path / OWN_CERTIFICATE).unlink(missing_ok=True)
        os.replace(finished, path / OWN_MODEL)
        os.replace(beside, path / OWN_CERTIFICATE)
    return path


def export(
    name: str,
    path: str | os.PathLike[str],
    *,
    weights: Stored = "stabilized",
) -> Path:
    """Writes a checkpoint of the zoo as a `.keras` file, with its certificate inside.

    Keras loads it where `keras_lsc` is imported, and where no layer of it is used also without;
    `keras_lsc.zoo.load` reads it by its path.

    Args:
        name: Name of a checkpoint of the zoo.
        path: Path of the file, which ends in `.keras`; an older one is replaced. Its folder exists.
        weights: "stabilized", or "trained" for the weights that were trained on the task, where
            there are some.

    Returns:
        The path.

    Raises:
        UnknownCheckpointError, UntrainedCheckpointError: As `load`.
        CheckpointUnavailableError, DamagedCheckpointError: As `load`.
        ValueError: `path` is no path of a `.keras` file.
        OSError: It cannot be written.

    Example:
        >>> import tempfile
        >>> from keras_lsc import zoo
        >>> path = zoo.export("test_gru_parity_d2_rhovar", f"{tempfile.mkdtemp()}/model.keras")
        >>> zoo.load(path).count_params() == zoo.info("test_gru_parity_d2_rhovar").parameters
        True
    """
    one_of("weights", weights, STORED)
    known = info(name)
    path = Path(text("path", os.fspath(path) if isinstance(path, os.PathLike) else path))
    if path.suffix != ".keras":
        raise ValueError(f"path must be that of a .keras file, got {str(path)!r:.200}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
    model = read(locate(name), weights)
    certificate = dict(known.certificate)
    if weights != "trained":
        certificate.pop("trained", None)
    with keras_file.prepared(model, path.parent, certificate) as (finished, _):
        os.replace(finished, path)
    return path
