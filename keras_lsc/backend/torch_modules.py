"""Modules of torch, for who asks for one: on whichever backend Keras runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def recurrent(
    kind: str, features: int, units: int, weights: Mapping[str, np.ndarray], **options: Any
) -> torch.nn.Module:
    """Returns a recurrent module, the batch first, on the CPU, with these weights.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        features: Number of features of its inputs.
        units: Number of its units.
        weights: By torch's names, all of one dtype.
        **options: Other arguments of the module.
    """
    state = {name: torch.tensor(array) for name, array in weights.items()}
    module = getattr(torch.nn, kind)(
        features,
        units,
        batch_first=True,
        dtype=next(iter(state.values())).dtype,
        device="cpu",
        **options,
    )
    module.load_state_dict(state)
    return module
