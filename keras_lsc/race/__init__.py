"""Starts race on the user's own data."""

from keras_lsc.race.entrants import Entrant, StartRace
from keras_lsc.race.run import best_start

__all__ = ["Entrant", "StartRace", "best_start"]
