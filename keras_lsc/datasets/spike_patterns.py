"""Random spike patterns: noisy repetitions of fixed spike trains, to be told apart."""

from __future__ import annotations

import numpy as np

from keras_lsc.arguments import number, positive_integer
from keras_lsc.datasets.events import SpikeTrains
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.generators import random_stream
from keras_lsc.datasets.info import GENERATED_SIZES, generated

INFO = generated(
    "spike_patterns",
    "Noisy repetitions of ten fixed random spike patterns.",
    shape=(100, 100),
    target="label",
    outputs=10,
    homepage="https://doi.org/10.1038/nn1643",
    citation="""@article{gutig2006tempotron,
  title   = {The tempotron: a neuron that learns spike timing-based decisions},
  author  = {G{\\"u}tig, Robert and Sompolinsky, Haim},
  journal = {Nature Neuroscience},
  volume  = {9},
  pages   = {420--428},
  year    = {2006}
}""",
)
# A third kind of random stream beside those of the splits: the patterns are common to all splits.
_PATTERNS = 3


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    classes: int = 10,
    channels: int = 100,
    steps: int = 100,
    rate: float = 0.02,
    jitter: float = 2.0,
    deletion: float = 0.1,
    noise: float = 0.002,
    seed: int = 0,
) -> Examples:
    """Draws noisy repetitions of fixed random spike patterns, labelled with the pattern.

    A pattern is drawn once: in each channel and step a spike with probability `rate`. An example
    repeats one pattern; each of its spikes is lost with probability `deletion`, or else moved in
    time by a normal deviate, and spikes that belong to no pattern are added. Classes have equal
    mean rates, so that only the timing tells them apart.

    Args:
        split: "train" (50,000 examples), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own, all with the same patterns.
        limit: return only the first `limit` examples of the split; None returns them all.
        classes: number of patterns.
        channels: number of channels.
        steps: time steps T.
        rate: probability of a spike in a pattern, per channel and step.
        jitter: standard deviation of the displacement of a spike, in steps.
        deletion: probability that a spike of the pattern is lost.
        noise: probability of an added spike, per channel and step.
        seed: non-negative integer; the same seed gives the same examples everywhere.

    Returns:
        Inputs: float32 (N, steps, channels), 1 where there is a spike and 0 elsewhere (2 where a
            moved or added spike falls on another).
        Targets: int32 (N,), 0 to classes - 1.

    Raises:
        ValueError: the split is unknown or a number is out of range.
        MemoryError: the array is larger than the memory of this computer.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("spike_patterns", limit=64, classes=4)
        >>> x.shape, int(y.max())
        ((64, 100, 100), 3)

    Source:
        R. Gütig, H. Sompolinsky, Nature Neuroscience 9, 2006.
    """
    for argument, count in (("classes", classes), ("channels", channels), ("steps", steps)):
        positive_integer(argument, count)
    number("rate", rate, above=0, at_most=1)
    number("jitter", jitter, at_least=0)
    number("deletion", deletion, at_least=0, below=1)
    number("noise", noise, at_least=0, below=1)
    random, count = random_stream(split, seed), GENERATED_SIZES[split]
    pattern_stream = np.random.default_rng([seed, _PATTERNS])
    patterns = [np.nonzero(pattern_stream.random((steps, channels)) < rate) for _ in range(classes)]
    labels = random.integers(0, classes, size=count).astype(np.int32)[:limit]
    examples = []
    for label in labels:
        step, channel = patterns[label]
        kept = random.random(len(step)) >= deletion
        moved = np.rint(step + jitter * random.standard_normal(len(step))).astype(int)
        kept &= (moved >= 0) & (moved < steps)
        added = random.binomial(steps * channels, noise)
        examples.append(
            (
                np.concatenate([moved[kept], random.integers(0, steps, added)]),
                np.concatenate([channel[kept], random.integers(0, channels, added)]),
            )
        )
    return Examples(SpikeTrains.from_examples(examples, (steps, channels)), labels)
