"""stabilize: pre-training to stability in one call, checked on held-out sequences."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras

from keras_lsc import arguments, methods
from keras_lsc.arguments import integer, number, one_of, positive_integer
from keras_lsc.choosing import choose
from keras_lsc.flossing import floss
from keras_lsc.levelling import level
from keras_lsc.methods.run import start_by
from keras_lsc.pretrainer import LSCPretrainer
from keras_lsc.pretraining import pretrain
from keras_lsc.stability.graph import is_graph_model
from keras_lsc.stability.measure import measure
from keras_lsc.stability.parametrization import Mode
from keras_lsc.stability.radius import RadiusKind
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.targets import Target

# Beside those of `keras_lsc.methods`.
_OWN_METHODS = ("lsc", "level", "flossing", "auto")
_TOLERANCE = {"lsc": 0.02, "level": 0.05, "flossing": 0.05}
# Of flossing, without others: number of exponents, and learning rate.
_EXPONENTS, _FLOSSING_RATE = 4, 0.01
_SAMPLES, _SAMPLES_OF_SIBLINGS = 256, 64
# What only pre-training takes, as it is where it is not given.
_OF_LSC = {
    "target": "variance",
    "mode": "scales",
    "radius": "spectral",
    "include_input": False,
    "max_updates": 400,
    "batch_size": 32,
    "optimizer": None,
    "learning_rate": None,
    "callbacks": (),
    "tolerance": None,
}


def stabilize(
    model: keras.Model,
    x: Any,
    target: Target = "variance",
    *,
    y: Any = None,
    method: str | methods.Method = "lsc",
    growth: float | None = None,
    exponents: int | None = None,
    tolerance: float | None = None,
    mode: Mode = "scales",
    radius: RadiusKind = "spectral",
    include_input: bool = False,
    max_updates: int = 400,
    batch_size: int = 32,
    samples: int | None = None,
    seed: int = 0,
    optimizer: Any = None,
    learning_rate: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = (),
    verbose: str | int = "auto",
) -> StabilityReport:
    """Makes a model stable, in place: its radii (method "lsc") or its gradient itself ("level").

    Method "lsc", of the paper, pre-trains until every transition has its target radius. Method
    "level" gives every layer one scale, on the weights through which it reads the layer below, so
    that the gradient has the same energy at every layer, and leaves the dynamics in time alone. It
    takes a few backward passes, and any Keras model; networks of sigmoid cells are pre-trained
    first, and spiking layers scaled by the height of their surrogate gradient. Method "flossing"
    drives the leading Lyapunov exponents of recurrent layers to zero, for dependencies over many
    steps. Method "auto" takes "lsc", "level" or nothing at all, by a rule that the handbook gives
    ("Levelled starts"), and the report says which and why. The methods of `keras_lsc.methods`, from
    "orthogonal" to "gradinit", are those of others; each is told about there. What follows is of
    "lsc".

    Spiking layers that are silent or saturated are given a firing rate first, by their biases.
    Mode "scales" then solves for the scales, by measurements alone, which takes seconds; where that
    does not get there, or an optimiser or a learning rate is given, gradients do what they do in
    mode "weights", and the paper: the steps of an optimiser given by name halve in every seventh of
    the updates (in mode "weights" in every two fifths): at the end it is the noise of single
    updates that keeps a radius off its target.
    A third of the sequences is held out. The radii are measured there, and before they are accepted
    at as many points as make the standard error of their means a third of the tolerance; while
    there are updates left that error counts as a deviation.
    Frozen layers stay as they are, and constraints of the weights hold (see `LSCPretrainer`).

    Args:
        model: a built Sequential or functional `keras.Model`, recurrent or feed-forward; of method
            "level" any built `keras.Model`.
        x: its inputs: arrays or a dataset, as `measure` takes them. Labels are ignored.
        target: Target, as `LSCPretrainer` takes it.
        y: targets `(rows, ...)`, of a method that needs them, and of no other.
        method: "lsc", "level", "flossing", "auto", the name of one of `keras_lsc.methods`, or one
            of these with options, such as `keras_lsc.methods.LSUV(tolerance=0.05)`.
        growth: of method "level", by how much the energy of the gradient grows from a layer to the
            one below; 1 without it.
        exponents: of method "flossing", number of leading exponents of every recurrent layer; 4
            without it.
        tolerance: largest |mean radius - target| to accept, for every transition, 0.02 without it;
            of method "level" the largest relative distance of an energy from the middle of all,
            0.05 (twice that after the last of 25 passes, when most of what is left is noise); of
            method "flossing" the largest distance of an exponent from zero, 0.05.
        mode: "scales" or "weights", see `LSCPretrainer`.
        radius: "spectral", "rms" or "norm".
        include_input: whether the input transitions are driven to their target as well.
        max_updates: number of updates after which pre-training gives up; every measurement of the
            solver is one.
        batch_size: sequences in an update by gradients, one point in each.
        samples: fewest points of the held-out measurement of radii, 256 without it; of method
            "level" and "flossing", which do not go by radii, without it none are measured; of those
            of `keras_lsc.methods` 64.
        seed: Integer, seed of the choice of sequences and points and of their order, 0 or a
            positive integer.
        optimizer: an optimiser or its name, as `LSCPretrainer.compile` takes it, for updates by
            gradients; None to solve for scales first.
        learning_rate: Learning rate of an optimiser given by name; None for the default of the
            mode.
        callbacks: list or tuple of Keras callbacks of the pre-training; a measurement is a batch.
        verbose: 0 is silent; "auto" tells updates, deviation and seconds at a terminal or in a
            notebook, 1 everywhere, on a line that is written over where that can be; 2 on a line
            of its own now and then.

    Returns:
        The `StabilityReport` of the held-out sequences.

    Raises:
        NotStabilizedError: a radius stayed outside the tolerance, or a spiking layer is silent or
            saturated. The error carries the report.
        NotLevelledError: the energies did not become even. The error carries them.
        FloatingPointError: updates made weights NaN or infinite; the learning rate is too large.
        TypeError, ValueError: as `measure` and `LSCPretrainer` raise them; or an argument is of
            no use, or of the other method.

    After any error, also one of a callback or an interruption, the model has the weights it had.

    Source: arXiv 2308.12075, section 4; the scales are this project's ("How it is
        changed" in the handbook).

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)),
        ...     keras.layers.GRU(16, return_sequences=True), keras.layers.GRU(16)])
        >>> report = keras_lsc.stabilize(model, np.random.normal(size=(256, 20, 3)))
        >>> report.max_deviation("variance") <= 0.02
        True
    """
    if not isinstance(method, methods.Method):
        one_of("method", method, (*_OWN_METHODS, *methods.names()))
    if tolerance is not None:
        tolerance = number("tolerance", tolerance, above=0)
    max_updates = positive_integer("max_updates", max_updates)
    batch_size = positive_integer("batch_size", batch_size)
    if samples is not None:
        samples = positive_integer("samples", samples)
    seed = integer("seed", seed, at_least=0)
    one_of("verbose", verbose, ("auto", 0, 1, 2))
    watchers = arguments.callbacks(callbacks)
    of_pretraining = {
        "target": target,
        "mode": mode,
        "radius": radius,
        "include_input": include_input,
        "optimizer": optimizer,
        "callbacks": tuple(watchers),
    }
    of_updates = {
        "max_updates": max_updates,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    if method != "level" and growth is not None:
        raise ValueError(f'growth={growth!r} is of method="level". Give that, or leave it out.')
    if method != "flossing" and exponents is not None:
        raise ValueError(
            f'exponents={exponents!r} is of method="flossing". Give that, or leave it out.'
        )
    if method not in _OWN_METHODS:
        sibling = methods.get(method)
        _refuse_of_lsc(sibling.name, **of_pretraining, **of_updates, tolerance=tolerance)
        samples = samples or _SAMPLES_OF_SIBLINGS
        return start_by(sibling, model, x, y, samples, seed, verbose)
    if y is not None:
        raise ValueError(f"y is given, but method={method!r} uses no labels. Leave it out.")
    if method == "auto":
        _refuse_of_lsc(method, **of_pretraining, **of_updates, tolerance=tolerance)
        return _choose(model, x, samples, seed, verbose)
    tolerance = _TOLERANCE[method] if tolerance is None else tolerance
    if method == "level":
        _refuse_of_lsc(method, **of_pretraining, **of_updates)
        growth = 1.0 if growth is None else number("growth", growth, above=0)
        by_radii = (
            partial(stabilize, model, x, seed=seed, verbose=verbose)
            if is_graph_model(model)
            else None
        )
        return level(model, x, growth, tolerance, samples, seed, verbose, by_radii)
    if method == "flossing":
        _refuse_of_lsc(method, **of_pretraining)
        k = _EXPONENTS if exponents is None else positive_integer("exponents", exponents)
        rate = (
            _FLOSSING_RATE
            if learning_rate is None
            else number("learning_rate", learning_rate, above=0)
        )
        return floss(model, x, k, tolerance, max_updates, batch_size, rate, samples, seed, verbose)
    pretrainer = LSCPretrainer(model, target, mode, radius, include_input=include_input, seed=seed)
    return pretrain(
        pretrainer,
        x,
        tolerance,
        max_updates,
        batch_size,
        samples or _SAMPLES,
        optimizer,
        learning_rate,
        watchers,
        verbose,
    )


def _refuse_of_lsc(method: str, **given: Any) -> None:
    """Raises ValueError if an argument is given that means nothing to the method."""
    takes = {
        "auto": "samples, seed and verbose",
        "level": "growth and tolerance, samples, seed and verbose",
        "flossing": "exponents, tolerance, max_updates, batch_size, learning_rate, samples, seed "
        "and verbose",
    }
    if method in methods.names():
        takes[method] = (
            "samples, seed and verbose, and has its options as keras_lsc.methods."
            f"{type(methods.get(method)).__name__}(...)"
        )
    for name, value in given.items():
        if not (isinstance(value, type(_OF_LSC[name])) and value == _OF_LSC[name]):
            raise ValueError(
                f'{name}={value!r} is of method="lsc"; method="{method}" takes {takes[method]}. '
                "Leave it out."
            )


def _choose(
    model: keras.Model, x: Any, samples: int | None, seed: int, verbose: str | int
) -> StabilityReport:
    method, why = choose(model, x, seed)
    if method is None:
        report = measure(model, x, samples or _SAMPLES, seed)
        return replace(report, chosen=f"left alone: {why}")
    report = stabilize(model, x, method=method, samples=samples, seed=seed, verbose=verbose)
    return replace(report, chosen=f'method "{method}": {why}')
