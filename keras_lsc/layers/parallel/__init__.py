"""Recurrent layers that take all steps of a sequence at once."""

from keras_lsc.layers.parallel.min_gru import MinGRU, MinGRUCell
from keras_lsc.layers.parallel.min_lstm import MinLSTM, MinLSTMCell

__all__ = ["MinGRU", "MinGRUCell", "MinLSTM", "MinLSTMCell"]


def __dir__() -> list[str]:
    return sorted(__all__)
