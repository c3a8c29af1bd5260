"""Draws the pictures of the pages on the method, from a small network and the digits.

KERAS_BACKEND=jax python docs/figures.py
"""

from pathlib import Path

import keras
from matplotlib import pyplot

import keras_lsc

FOLDER = Path(__file__).parent / "figures"
DPI = 110


def main() -> None:
    """Writes the pictures."""
    keras.utils.set_random_seed(0)
    x, _ = keras_lsc.datasets.load("digits", limit=512)
    model = keras.Sequential([keras.Input((8, 8))])
    for _ in range(5):
        model.add(keras.layers.SimpleRNN(64, activation="sigmoid", return_sequences=True))

    before = keras_lsc.eigenvalues(model, x, samples=4)
    grid_before = keras_lsc.gradient_grid(model, x, samples=64)
    keras_lsc.stabilize(model, x, verbose=0)
    after = keras_lsc.eigenvalues(model, x, samples=4)
    grid_after = keras_lsc.gradient_grid(model, x, samples=64)

    names = [name for name in before if name.endswith(".time")]
    ax = keras_lsc.plot.eigenvalues(before[names[2]], after[names[2]], target=0.5**0.5)
    ax.figure.savefig(FOLDER / "eigenvalues.png", dpi=DPI, metadata={"Software": None})

    grids = {"default start": grid_before, "after pre-training": grid_after}
    figure, panels = pyplot.subplots(
        len(grids), figsize=(keras_lsc.plot.WIDTH, 3.6), layout="constrained"
    )
    keras_lsc.plot.gradient_grids(grids, panels)
    figure.savefig(FOLDER / "gradients.png", dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    main()
