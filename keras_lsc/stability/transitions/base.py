"""What is asked of the transitions of a model, however they were found."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lsc.stability.graph import Call, Graph
from keras_lsc.stability.recorder import is_spiking
from keras_lsc.stability.transitions.found import Found
from keras_lsc.stability.transitions.points import Points, Tensor


class Transitions:
    """The transitions of a model, and the forward pass that collects what they need.

    Args:
        model: the model.
        graph: its calls.
        recurrent_calls: those of recurrent layers.
        found: its transitions.

    Attributes:
        transitions: Tuple of `Transition`, in the order of the layers.
        depth: Number of recurrent (else weighted) layers, the paper's L.
        is_recurrent: Whether the model has recurrent layers, and so time transitions.
        no_depth: why there are no transitions in depth, where it is not known what lies between
            layers; else None.
        unseen: which recurrent layers there may be and could not be looked at, a sentence each.
        sample: the forward pass.
    """

    sample: Callable[[Any, Tensor], Points]

    def __init__(self, model: keras.Model, graph: Graph, recurrent_calls: list[Call], found: Found):
        self.model = model
        self.graph = graph
        self.recurrent_calls = recurrent_calls
        self.is_recurrent = bool(recurrent_calls)
        self.transitions = found.transitions
        self.depth = found.depth
        self.no_depth: str | None = None
        self.unseen: tuple[str, ...] = ()

    def steps(self, inputs: list[np.ndarray]) -> int:
        """The number of time steps T of the first recurrent layer; 0 for feed-forward models."""
        raise NotImplementedError

    def not_followed(self, call: Call) -> str | None:
        """Why the states of a recurrent call do not follow one another; None where they do."""
        del call
        return None

    @property
    def spiking_layers(self) -> list[Any]:
        """The recurrent layers whose outputs are spikes, one for every call of them."""
        return [call.layer for call in self.recurrent_calls if is_spiking(call.layer)]

    @property
    def spiking_names(self) -> list[str]:
        """A name for each of the `spiking_layers`, unique in the model."""
        spiking = [call for call in self.recurrent_calls if is_spiking(call.layer)]
        return [call.layer.name + self.graph.suffix(call) for call in spiking]
