"""How the gradient's energy changes along depth and time, beside the law and the bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.summary import LEAST_SEEDS, Network, Start
from experiments.tables import markdown

KINDS = ("measured", "predicted", "bound")
# Steps back from the last one between which the change in time is taken: past the first steps,
# where the layers fill, and before the energies of vanishing gradients lose their digits.
_FROM, _TO = 4, 16


def energy_table(networks: list[Network]) -> str:
    """Energies of every start: bottom over top layer, and per step back in time."""
    rows = []
    for network in networks:
        for start in network.starts.values():
            depth, time = changes(start, depth_ratio), changes(start, time_rate)
            if not depth or not time:
                continue
            cells = [f"{depth[kind]:.3g}" for kind in KINDS] + [
                f"{time[kind]:.3g}" for kind in KINDS
            ]
            rows.append([network.label, start.label, *cells, str(len(start.reached))])
    if not rows:
        return ""
    header = ["network", "start"]
    header += [f"bottom over top: {name}" for name in ("measured", "law", "bound")]
    header += [f"per step back: {name}" for name in ("measured", "law", "bound")]
    return markdown([*header, "seeds"], rows)


def changes(start: Start, figure: Any) -> dict[str, float]:
    """Geometric mean over the seeds of `depth_ratio` or `time_rate`.

    Returns:
        By kind; empty with fewer than `LEAST_SEEDS` seeds that have a gradient.
    """
    found = []
    for seed in start.reached:
        gradients = start.rows[start.learning_rates[0], seed]["start"]["gradients"]
        if gradients and "silent" not in gradients:
            found.append([figure(gradients[kind], gradients["lags"]) for kind in KINDS])
    values = np.array([line for line in found if all(value for value in line)])
    if len(values) < LEAST_SEEDS:
        return {}
    return dict(zip(KINDS, np.exp(np.log(values).mean(axis=0)), strict=True))


def depth_ratio(energies: dict[str, list[float]], lags: list[int]) -> float | None:
    """Energy of the bottom layer over that of the top one, each summed over time."""
    del lags
    bottom, top = energies["layers"][0], energies["layers"][-1]
    return bottom / top if bottom and top else None


def time_rate(energies: dict[str, list[float]], lags: list[int]) -> float | None:
    """Factor of the energy, summed over layers, per step back in time."""
    by_lag = dict(zip(lags, energies["lags"], strict=True))
    near, far = by_lag.get(_FROM), by_lag.get(_TO)
    return (far / near) ** (1 / (_TO - _FROM)) if near and far else None
