"""Spiking neurons and linear recurrent units, as Keras RNN layers, and what goes with them."""

from keras.layers import GRU, LSTM

from keras_lsc.layers import parallel, surrogates
from keras_lsc.layers.alif import ALIF, ALIFCell
from keras_lsc.layers.apply_mask import ApplyMask
from keras_lsc.layers.carried_state import CarriedState
from keras_lsc.layers.firing_rate import FiringRate, FiringRateRegularizer
from keras_lsc.layers.leaky_rnn import LeakyRNN, LeakyRNNCell
from keras_lsc.layers.lif import LIF, LIFCell
from keras_lsc.layers.lru import LRU, LRUBlock, LRUBlockCell, LRUCell
from keras_lsc.layers.parallel import (
    PLSTM1D,
    PLSTM2D,
    LinOSS,
    LinOSSCell,
    MinGRU,
    MinGRUCell,
    MinLSTM,
    MinLSTMCell,
    ParaGRU,
    ParaGRUCell,
    ParaLeaky,
    ParaLeakyCell,
    ParaLSTM,
    ParaLSTMCell,
    PLSTM1DCell,
    SelectiveSSM,
    SelectiveSSMCell,
)
from keras_lsc.layers.readout import LeakyReadout, LeakyReadoutCell
from keras_lsc.layers.surrogates import Surrogate
from keras_lsc.renamed import old_names

__all__ = [
    "ALIF",
    "GRU",
    "LIF",
    "LRU",
    "LSTM",
    "PLSTM1D",
    "PLSTM2D",
    "ALIFCell",
    "ApplyMask",
    "CarriedState",
    "FiringRate",
    "FiringRateRegularizer",
    "LIFCell",
    "LRUBlock",
    "LRUBlockCell",
    "LRUCell",
    "LeakyRNN",
    "LeakyRNNCell",
    "LeakyReadout",
    "LeakyReadoutCell",
    "LinOSS",
    "LinOSSCell",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "PLSTM1DCell",
    "ParaGRU",
    "ParaGRUCell",
    "ParaLSTM",
    "ParaLSTMCell",
    "ParaLeaky",
    "ParaLeakyCell",
    "SelectiveSSM",
    "SelectiveSSMCell",
    "Surrogate",
    "parallel",
    "surrogates",
]

__getattr__ = old_names(
    __name__,
    {
        "FiringRateSchedule": "keras_lsc.callbacks.FiringRateSchedule",
        "GivenMask": "keras_lsc.layers.ApplyMask",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
