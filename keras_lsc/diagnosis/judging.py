"""From what was measured of a network to what is wrong with it."""

import math
from collections.abc import Iterator

import numpy as np

from keras_lsc.diagnosis import thresholds
from keras_lsc.diagnosis.checkup import Checkup
from keras_lsc.diagnosis.findings import Finding
from keras_lsc.diagnosis.trial import RateTrial
from keras_lsc.stability.report import SATURATED_RATE, SILENT_RATE

Array = np.ndarray


def of_data(rows: list[Array], checkup: Checkup) -> Iterator[Finding]:
    """What is wrong with the data: it is all the same, or padding.

    Args:
        rows: one array an input, flat.
        checkup: what was measured.
    """
    spread = max(float(np.ptp(array.astype("float64"), axis=0).max()) for array in rows)
    if spread == 0 and len(rows[0]) > 1:
        yield Finding("constant_input", None, f"All {len(rows[0])} sequences are the same.")
    elif checkup.padding is not None and checkup.padding > thresholds.PADDED_SHARE:
        yield Finding("padding", None, f"{checkup.padding:.0%} of the steps are masked.")
    elif checkup.padding is None:
        share = max((_padding(array) for array in rows if array.ndim == 3), default=0.0)
        if share > thresholds.UNMASKED_SHARE:
            what = f"{share:.0%} of the steps repeat the first or last one to the end, unmasked."
            yield Finding("unmasked_padding", None, what)


def _padding(array: Array) -> float:
    """Share of the steps, at one end of a sequence, that are all the same."""
    shares = []
    for side in (array, array[:, ::-1]):
        is_end = np.all(side == side[:, :1], axis=tuple(range(2, side.ndim)))
        shares.append(np.minimum.accumulate(is_end, axis=1).sum(axis=1) - 1)
    return float(np.mean(np.maximum(*shares)) / array.shape[1])


def of_activity(checkup: Checkup, forward: tuple[float, ...] | None = None) -> Iterator[Finding]:
    """What is wrong with what layers give out: the first that is dead, silent or saturated.

    Args:
        checkup: what was measured.
        forward: energy of a small difference at every layer, where it was measured: a layer that
            no difference reaches is not dead itself.
    """
    told = (math.nan, *(forward or (math.nan,) * len(checkup.layers)))
    for layer, below in zip(checkup.layers, told, strict=False):
        if layer.is_spiking:
            rate = layer.rms**2
            if rate < SILENT_RATE:
                what = f"Neurons of {layer.name!r} fire in {rate:.2g} of the steps."
                yield Finding("silent_spikes", layer.name, what)
                return
            if rate > SATURATED_RATE:
                what = f"Neurons of {layer.name!r} fire in {rate:.0%} of the steps."
                yield Finding("saturated_spikes", layer.name, what)
                return
        elif (
            layer.has_units
            and layer.constant >= thresholds.DEAD_SHARE
            and not below < 1 / thresholds.FORWARD_RATIO
        ):
            what = f"{layer.constant:.0%} of the units of {layer.name!r} give out the same always."
            yield Finding("dead_units", layer.name, what)
            return
        elif layer.is_head:  # which may be sure of what it says
            return
        elif (layer.saturated or 0) > thresholds.SATURATED_SHARE:
            what = f"{layer.saturated:.0%} of the outputs of {layer.name!r} are at the bounds."
            yield Finding("saturated", layer.name, what)
            return
        elif (layer.gates or 0) > thresholds.SATURATED_GATES:
            what = f"{layer.gates:.0%} of the values of gates of {layer.name!r} are at the bounds."
            yield Finding("saturated_gates", layer.name, what)
            return


def of_gradient(checkup: Checkup) -> Iterator[Finding]:
    """What is wrong with the gradient, in time and in depth."""
    yield from _in_time(checkup)
    if len(checkup.stages) < 2:
        return
    *below, top = checkup.stages
    sizes = [math.sqrt(layer.energy / top.energy) if top.energy > 0 else 0.0 for layer in below]
    limit = math.sqrt(thresholds.DEPTH_RATIO)
    large = [k for k, size in enumerate(sizes) if size > limit]
    small = [k for k, size in enumerate(sizes) if size < 1 / limit]
    if large:
        name = below[large[-1]].name
        what = f"is up to {max(sizes):.2g} times that at {top.name!r}."
        yield Finding("exploding_in_depth", name, f"The gradient at {name!r} and below {what}")
    elif small:
        name = below[small[-1]].name
        what = f"is down to {min(sizes):.2g} times that at {top.name!r}."
        yield Finding("vanishing_in_depth", name, f"The gradient at {name!r} and below {what}")


def _in_time(checkup: Checkup) -> Iterator[Finding]:
    if checkup.early is None or checkup.growth is None:
        return
    if checkup.growth > thresholds.TIME_GROWTH:
        what = (
            f"Through one layer, the gradient grows {math.sqrt(checkup.growth):.2g} times from the "
            f"last quarter of {checkup.steps:.0f} steps to the first."
        )
        yield Finding("exploding_in_time", None, what)
    elif checkup.early < thresholds.FORGOTTEN_SHARE:
        what = (
            f"The first quarter of {checkup.steps:.0f} steps has {math.sqrt(checkup.early):.1g} of "
            f"the gradient; the last {checkup.memory:.0f} step(s) hold 99 % of its energy."
        )
        yield Finding("vanishing_in_time", None, what)


def of_signal(checkup: Checkup, forward: tuple[float, ...]) -> Iterator[Finding]:
    """What is wrong with what arrives of a small difference, forward.

    Args:
        checkup: what was measured.
        forward: its energy at every layer over that at the first.
    """
    for layer, energy in zip(checkup.layers, forward, strict=True):
        if not layer.is_stage or math.isnan(energy):
            continue
        if energy > thresholds.FORWARD_RATIO:
            what = (
                f"A small difference is {math.sqrt(energy):.2g} times as large at {layer.name!r}."
            )
            yield Finding("exploding_forward", layer.name, what)
            return
        if energy < 1 / thresholds.FORWARD_RATIO:
            what = f"Of a small difference {math.sqrt(energy):.2g} is left at {layer.name!r}."
            yield Finding("vanishing_forward", layer.name, what)
            return


def of_trial(trial: RateTrial) -> Iterator[Finding]:
    """What is wrong with the learning rate."""
    if trial.rate_fails:
        held = "none that was tried does" if trial.holds is None else f"{trial.holds:.2g} holds"
        what = (
            f"In {thresholds.TRIAL_STEPS} steps at a learning rate of {trial.rate:.3g} the loss "
            f"grows; {held}."
        )
        yield Finding("learning_rate", None, what)
