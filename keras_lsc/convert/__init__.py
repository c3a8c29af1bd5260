"""Exchange with other frameworks: weights of torch and Flax, NIR, named arrays.

Nothing here needs another backend than the one in use: what comes from torch or Flax may be a
dictionary of NumPy arrays.
"""

from keras_lsc.convert.flax import from_flax, to_flax
from keras_lsc.convert.named_weights import load_safetensors, save_safetensors
from keras_lsc.convert.nir_reading import from_nir
from keras_lsc.convert.nir_writing import to_nir
from keras_lsc.convert.torch import from_torch, to_torch

__all__ = [
    "from_flax",
    "from_nir",
    "from_torch",
    "load_safetensors",
    "save_safetensors",
    "to_flax",
    "to_nir",
    "to_torch",
]


def __dir__() -> list[str]:
    return sorted(__all__)
