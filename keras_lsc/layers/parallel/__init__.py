"""Recurrent layers that take all steps of a sequence at once."""

from keras_lsc.layers.parallel.iterations import predicted_iterations
from keras_lsc.layers.parallel.lin_oss import LinOSS, LinOSSCell
from keras_lsc.layers.parallel.min_gru import MinGRU, MinGRUCell
from keras_lsc.layers.parallel.min_lstm import MinLSTM, MinLSTMCell
from keras_lsc.layers.parallel.nonlinear import SolverCounts
from keras_lsc.layers.parallel.para_gru import ParaGRU, ParaGRUCell
from keras_lsc.layers.parallel.para_leaky import ParaLeaky, ParaLeakyCell
from keras_lsc.layers.parallel.para_lstm import ParaLSTM, ParaLSTMCell
from keras_lsc.layers.parallel.plstm_1d import PLSTM1D, PLSTM1DCell
from keras_lsc.layers.parallel.plstm_2d import PLSTM2D
from keras_lsc.layers.parallel.selective_ssm import SelectiveSSM, SelectiveSSMCell
from keras_lsc.layers.parallel.solve import Solution, solve

__all__ = [
    "PLSTM1D",
    "PLSTM2D",
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
    "Solution",
    "SolverCounts",
    "predicted_iterations",
    "solve",
]


def __dir__() -> list[str]:
    return sorted(__all__)
