"""The local stability condition: transitions, radii, targets, theory and reports."""

# Which the documentation names, and nothing else here imports.
from keras_lsc.stability import critical as critical
