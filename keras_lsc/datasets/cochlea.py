"""A model of the inner ear that turns sound into spike trains.

    sound -> gammatone filter bank -> rectification -> compression -> leaky threshold units

1. *Filter bank.* Centre frequencies are evenly spaced on the ERB-rate scale of Glasberg and Moore,
   E(f) = 21.4 log10(1 + 0.00437 f), on which a step is a fixed distance along the basilar membrane.
   Each filter is a gammatone of order 4, here its one-sided frequency response
   H(f) = (1 + j (f - fc) / b)^-4 with b = 1.019 * 24.7 (1 + 0.00437 fc), of gain 1 at fc.
2. *Rectification.* An inner hair cell rectifies and smooths. What is left of a narrow band is its
   envelope, which is the magnitude of the one-sided (analytic) band signal. It is slow, so only the
   part of the spectrum around fc is transformed back, at a lower sampling rate.
3. *Compression.* drive = (envelope / sensitivity)^exponent.
4. *Units.* v <- a v + (1 - a) drive with a = exp(-dt / time constant); when v >= 1 the unit
   spikes and v <- v - 1. A steady tone above the sensitivity fires the unit of its frequency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_lsc.arguments import number, positive_integer

# Complex numbers that are transformed at once: 32 MB, so that they stay near the processor.
_BLOCK = 2**21
# Seconds of silence after a sound, in which the longest filter decays.
_TAIL = 0.05


@dataclass(frozen=True)
class Cochlea:
    """A model of the inner ear: its sound goes in, spikes of `channels` units come out.

    It has no random part: the same sound gives the same spikes.

    Attributes:
        channels: number of filters, each with one unit.
        rate: samples of the sound per second, a multiple of `envelope_rate`.
        lowest: centre frequency of the first channel, in Hz.
        highest: Centre frequency of the last one, in Hz; at most half of `rate`.
        sensitivity: envelope (full scale is 1) of a steady tone at which its unit starts to fire.
        exponent: Exponent of the compression of the envelope, in (0, 1].
        time_constant: Time constant of the units, in seconds.
        envelope_rate: time steps of the units per second.

    Raises:
        ValueError: a number is not a possible one.

    Example:
        >>> import numpy as np
        >>> cochlea = Cochlea(channels=64)
        >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
        >>> (times, units), = cochlea.encode([tone])
        >>> bool(abs(cochlea.frequencies[np.bincount(units).argmax()] - 1000) < 50)
        True

    Source:
        The filters: B. Glasberg, B. Moore, Hearing Research 47, 1990; M. Slaney, Apple technical
        report 35, 1993.
    """

    channels: int = 64
    rate: int = 8_000
    lowest: float = 60.0
    highest: float = 3_600.0
    sensitivity: float = 0.01
    exponent: float = 0.5
    time_constant: float = 0.02
    envelope_rate: int = 2_000

    def __post_init__(self) -> None:
        positive_integer("channels", self.channels)
        positive_integer("rate", self.rate)
        positive_integer("envelope_rate", self.envelope_rate)
        number("highest", self.highest, above=0, at_most=self.rate / 2)
        number("lowest", self.lowest, above=0, at_most=self.highest)
        number("sensitivity", self.sensitivity, above=0)
        number("exponent", self.exponent, above=0, at_most=1)
        number("time_constant", self.time_constant, above=0)
        if self.rate % self.envelope_rate:
            raise ValueError(
                f"rate={self.rate} is not a multiple of envelope_rate={self.envelope_rate}."
            )

    @property
    def frequencies(self) -> np.ndarray:
        """Centre frequencies of the channels, in Hz, from low to high."""
        lowest, highest = (np.log10(1 + 0.00437 * f) for f in (self.lowest, self.highest))
        return (10 ** np.linspace(lowest, highest, self.channels) - 1) / 0.00437

    def envelopes(self, audio: np.ndarray) -> np.ndarray:
        """Returns the envelope of every band.

        Args:
            audio: float array (N, samples).

        Returns:
            Float32 array (steps, N, channels), `envelope_rate` steps a second; a steady tone of
            amplitude 1 has envelope 1 in a channel of its frequency.
        """
        samples = audio.shape[1]
        down = self.rate // self.envelope_rate
        # A power of two is the fastest length; zeros keep the end from echoing in the beginning.
        width = 2 ** int(np.ceil(np.log2((samples + _TAIL * self.rate) / down)))
        length = width * down
        spectrum = np.fft.rfft(audio, length)
        centre = np.round(self.frequencies * length / self.rate).astype(int)
        # In the order of an FFT: offset 0 first, negative offsets last.
        offset = np.fft.fftfreq(width, 1 / width).astype(int)
        line = centre[:, np.newaxis] + offset
        inside = (line > 0) & (line < length // 2)
        distance = line * self.rate / length - self.frequencies[:, np.newaxis]
        bandwidth = 1.019 * 24.7 * (1 + 0.00437 * self.frequencies[:, np.newaxis])
        squared = (1 + 1j * distance / bandwidth) ** 2
        response = np.where(inside, 1 / (squared * squared), 0)
        line = np.where(inside, line, 0)
        steps = -(-samples // down)
        envelopes = np.empty((steps, len(audio), self.channels), dtype=np.float32)
        for row, one in enumerate(spectrum):
            for first in range(0, self.channels, max(1, _BLOCK // width)):
                some = slice(first, first + max(1, _BLOCK // width))
                band = np.fft.ifft(one[line[some]] * response[some])[:, :steps]
                # Twice for the other half of the spectrum; by `down` for the shorter transform.
                band *= 2 / down
                envelopes[:, row, some] = np.sqrt(band.real**2 + band.imag**2).T
        return envelopes

    def encode(self, sounds: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the spikes of each sound.

        Args:
            sounds: float arrays (samples,), of any lengths; full scale is 1.

        Returns:
            For each sound the times of its spikes, float64 (spikes,) in seconds and in order, and
            the channels that fired, int64 (spikes,).

        Raises:
            ValueError: a sound is not a row of finite numbers.
        """
        sounds = [np.asarray(sound, dtype=np.float64) for sound in sounds]
        for index, sound in enumerate(sounds):
            if sound.ndim != 1 or not np.isfinite(sound).all():
                raise ValueError(
                    f"sound {index} of shape {sound.shape} is not a row of finite numbers."
                )
        spikes: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for rows in self._batches([len(sound) for sound in sounds]):
            batch = np.zeros((len(rows), max(1, *(len(sounds[row]) for row in rows))))
            for line, row in zip(batch, rows, strict=True):
                line[: len(sounds[row])] = sounds[row]
            fired = self._fire(self.envelopes(batch))
            for place, row in enumerate(rows):
                # Silence that was added to reach the length of others is not part of the sound.
                steps = -(-len(sounds[row]) * self.envelope_rate // self.rate)
                step, channel = np.nonzero(fired[:steps, place])
                spikes[row] = (step / self.envelope_rate, channel)
        return [spikes[row] for row in range(len(sounds))]

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        # Sounds of like length together: little padding, and one transform size for each batch.
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        size = max(1, 2**15 // self.channels)
        for first in range(0, len(order), size):
            yield order[first : first + size]

    def _fire(self, envelopes: np.ndarray) -> np.ndarray:
        decay = np.exp(-1 / (self.time_constant * self.envelope_rate))
        drive = envelopes
        drive /= self.sensitivity
        # A root is many times faster than a power, and rounds alike on every processor.
        if self.exponent == 0.5:
            np.sqrt(drive, out=drive)
        elif self.exponent != 1:
            np.power(drive, self.exponent, out=drive)
        drive *= 1 - decay
        potential = np.zeros(drive.shape[1:], dtype=drive.dtype)
        fired = np.empty(drive.shape, dtype=bool)
        for now, spike in zip(drive, fired, strict=True):
            potential *= decay
            potential += now
            np.greater_equal(potential, 1, out=spike)
            potential -= spike
        return fired
