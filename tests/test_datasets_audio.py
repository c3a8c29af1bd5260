"""Recordings, their log-mel frames, and the model of the inner ear that makes spikes of them."""

import numpy as np
import pytest

from keras_lsc import datasets
from keras_lsc.datasets.recordings import read_recordings
from keras_lsc.datasets.spoken_digit import log_mel

pytestmark = pytest.mark.once

RATE = 8_000


def tone(frequency, seconds=0.5, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


def spike_counts(cochlea, *sounds):
    spikes = cochlea.encode(sounds)
    return np.array([np.bincount(units, minlength=cochlea.channels) for _, units in spikes])


@pytest.fixture(scope="module")
def prepared(tfds_folder):
    if datasets.prepared("spoken_digit", tfds_folder) is None:
        pytest.skip(f"spoken_digit is not prepared in {tfds_folder}")
    return {"data_dir": tfds_folder, "download": False}


@pytest.fixture(scope="module")
def recordings(prepared):
    splits = ("train", "validation", "test")
    read = read_recordings(splits, limit=None, **prepared)
    return dict(zip(splits, read, strict=True))


@pytest.fixture(scope="module")
def spikes(prepared):
    return datasets.load("spoken_digit_spikes", "test", masks=True, **prepared)


def test_recordings_are_the_published_ones(recordings):
    for split, each in (("train", 200), ("validation", 25), ("test", 25)):
        audio, labels = recordings[split]
        assert np.bincount(labels).tolist() == [each] * 10
        assert len(audio) == 10 * each
    everything = [one for audio, _ in recordings.values() for one in audio]
    lengths = np.array([len(one) for one in everything])
    assert lengths.sum() == 2_500 * 3_280.632
    assert (lengths.min(), lengths.max(), (lengths > RATE).sum()) == (1_148, 18_262, 4)
    assert max(np.abs(one).max() for one in everything) == 1.0


def test_splits_are_different_recordings(recordings):
    found = {split: {one.tobytes() for one in audio} for split, (audio, _) in recordings.items()}
    assert found["train"].isdisjoint(found["validation"])
    assert found["train"].isdisjoint(found["test"])
    assert found["validation"].isdisjoint(found["test"])


def test_log_mel_frames_are_z_scored_and_padded(prepared, recordings):
    x, y, mask = datasets.load("spoken_digit", "train", masks=True, **prepared)
    assert x.shape == (2_000, 98, 40)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(y, recordings["train"][1])
    np.testing.assert_allclose(x[mask].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(x[mask].std(axis=0), 1, atol=1e-4)
    assert not x[~mask].any()
    lengths = [1 + (min(len(one), RATE) - 200) // 80 for one in recordings["train"][0]]
    np.testing.assert_array_equal(mask.sum(axis=1), lengths)


@pytest.mark.parametrize("frequency", [200, 500, 1_000, 2_000, 3_500])
def test_log_mel_of_a_tone_is_largest_in_its_band(frequency):
    # Centres of 40 triangles, evenly spaced on the mel scale from 0 to 4000 Hz.
    highest = 2595 * np.log10(1 + 4_000 / 700)
    mel = 2595 * np.log10(1 + frequency / 700)
    band = mel / (highest / 41) - 1
    assert np.abs(log_mel(tone(frequency)).argmax(axis=1) - band).max() <= 1


def test_louder_by_a_factor_is_the_log_of_its_square():
    noise = np.random.default_rng(0).standard_normal(4_000)
    np.testing.assert_allclose(log_mel(3 * noise) - log_mel(noise), np.log(9), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 64, 700])
def test_channels_are_evenly_spaced_in_critical_bands(channels):
    frequencies = datasets.Cochlea(channels=channels).frequencies
    assert len(frequencies) == channels
    assert frequencies[0] == pytest.approx(60)
    rate = 21.4 * np.log10(1 + 0.00437 * frequencies)
    if channels > 1:
        assert frequencies[-1] == pytest.approx(3_600)
        np.testing.assert_allclose(np.diff(rate), np.diff(rate)[0])


def test_the_envelope_of_a_tone_is_its_amplitude_times_the_gammatone_response():
    cochlea = datasets.Cochlea(channels=16)
    frequency = cochlea.frequencies[9]
    envelopes = cochlea.envelopes(0.3 * tone(frequency, seconds=1.0)[np.newaxis])
    # After the onset, the response at a distance d is |1 + j d / b|^-4.
    steady = envelopes[1_000:1_800, 0].mean(axis=0)
    bandwidth = 1.019 * 24.7 * (1 + 0.00437 * cochlea.frequencies)
    distance = (frequency - cochlea.frequencies) / bandwidth
    expected = 0.3 * (1 + distance**2) ** -2.0
    # What is left out beyond 1 kHz from the centre is below a hundredth.
    np.testing.assert_allclose(steady, expected, atol=0.003)


@pytest.mark.parametrize("channel", [5, 20, 40, 60])
def test_a_tone_excites_the_channel_of_its_frequency_most(channel):
    cochlea = datasets.Cochlea(channels=64)
    sound = tone(cochlea.frequencies[channel], amplitude=0.1)
    envelope = cochlea.envelopes(sound[np.newaxis])[200:, 0].mean(axis=0)
    assert envelope.argmax() == channel
    counts = spike_counts(cochlea, sound)[0]
    # Neighbours overlap, and spikes are whole numbers, so that one may come level.
    assert counts[channel] == counts.max()
    assert np.abs(np.flatnonzero(counts == counts.max()) - channel).max() <= 1


def test_any_tone_excites_the_nearest_channel():
    cochlea = datasets.Cochlea(channels=64)
    for frequency in np.geomspace(100, 3_400, 12):
        nearest = np.abs(cochlea.frequencies - frequency).argmin()
        envelope = cochlea.envelopes(tone(frequency)[np.newaxis])[200:, 0].mean(axis=0)
        assert abs(int(envelope.argmax()) - nearest) <= 1


def test_silence_and_sounds_below_the_sensitivity_give_no_spikes():
    cochlea = datasets.Cochlea()
    sounds = (np.zeros(RATE), np.zeros(0), tone(1_000, amplitude=0.009))
    assert not spike_counts(cochlea, *sounds).any()


def test_louder_is_more_spikes():
    cochlea = datasets.Cochlea()
    sounds = [tone(1_000, amplitude=amplitude) for amplitude in (0.02, 0.05, 0.2, 1.0)]
    assert (np.diff(spike_counts(cochlea, *sounds).sum(axis=1)) > 0).all()


def test_the_rate_of_a_unit_is_that_of_its_equation():
    # A unit with drive D >> 1 gains D / tau a second, loses v / tau with v between 0 and 1, and
    # pays 1 a spike: between (D - 1) / tau and D / tau spikes a second.
    cochlea = datasets.Cochlea(channels=1, lowest=1_000, highest=1_000)
    drive = (0.25 / cochlea.sensitivity) ** 0.5
    (count,) = spike_counts(cochlea, tone(1_000, seconds=2.0, amplitude=0.25))[0] / 2.0
    assert (drive - 1) / 0.02 - 5 < count < drive / 0.02 + 5


def test_spikes_do_not_depend_on_what_else_is_encoded():
    cochlea = datasets.Cochlea(channels=32)
    random = np.random.default_rng(3)
    sounds = [random.standard_normal(size) * 0.2 for size in (900, 4_000, 2_500)]
    together = cochlea.encode(sounds)
    for sound, (times, units) in zip(sounds, together, strict=True):
        ((alone_times, alone_units),) = cochlea.encode([sound])
        # The length of the transform differs, and with it the last digits of an envelope.
        assert abs(len(times) - len(alone_times)) <= 1 + 0.01 * len(times)
        assert times.max() < len(sound) / RATE
        assert (
            abs(np.bincount(units, minlength=32) - np.bincount(alone_units, minlength=32)).max() < 3
        )


def test_the_encoder_has_no_random_part():
    sound = np.random.default_rng(5).standard_normal(3_000)
    (first,), (again,) = (datasets.Cochlea().encode([sound]) for _ in range(2))
    for array, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(array, other)
    assert (np.diff(first[0]) >= 0).all()


def test_spoken_spikes_are_where_there_is_sound(spikes):
    x, y, mask = spikes
    assert x.shape == (250, 100, 64)
    assert np.bincount(y).tolist() == [25] * 10
    assert not x[~mask].any()
    assert (x.sum(axis=(1, 2)) > 50).all(), "a recording gave hardly a spike"
    assert (x == np.rint(x)).all()
    # Measured 851.6 spikes a recording with 64 channels; processors may round a few differently.
    assert x.sum() / 250 == pytest.approx(851.6, rel=0.01)


def test_spoken_spikes_follow_the_loudness(spikes, recordings):
    x, _, _ = spikes
    for one, sequence in zip(recordings["test"][0][:40], x, strict=False):
        energy = np.array(
            [np.sum(part**2) for part in np.split(one[: len(one) // 80 * 80], len(one) // 80)]
        )
        counts = sequence.sum(axis=1)[: len(energy)]
        assert np.corrcoef(counts, np.sqrt(energy))[0, 1] > 0.3


def test_digits_can_be_told_from_their_spikes(prepared, spikes):
    # A nearest neighbour among a few training examples is far above the 10 % of guessing.
    x, y, _ = datasets.load("spoken_digit_spikes", "train", limit=400, masks=True, **prepared)

    def summary(counts):
        flat = np.sqrt(counts[:, :60].reshape(len(counts), 6, 10, 64).sum(axis=2)).reshape(
            len(counts), -1
        )
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    nearest = (summary(spikes[0]) @ summary(x).T).argmax(axis=1)
    assert np.mean(y[nearest] == spikes[1]) > 0.6


def test_finer_bins_hold_the_same_spikes(prepared, spikes):
    coarse = spikes[0][:20]
    fine, _ = datasets.load("spoken_digit_spikes", "test", limit=20, bin_width=0.005, **prepared)
    assert fine.shape == (20, 200, 64)
    np.testing.assert_array_equal(fine.reshape(20, 100, 2, 64).sum(axis=2), coarse)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spoken_digit", {"mels": 0}, "mels must be a positive integer, got 0"),
        ("spoken_digit", {"max_time": 0.01}, "shorter than a frame"),
        ("spoken_digit_spikes", {"channels": 0}, "channels must be a positive integer, got 0"),
        (
            "spoken_digit_spikes",
            {"bin_width": 0},
            "bin_width must be a positive finite number",
        ),
    ],
)
def test_impossible_numbers_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, **options)


def test_too_many_bands_are_refused():
    with pytest.raises(ValueError, match="mels=200 bands are too narrow"):
        log_mel(np.zeros(400), mels=200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be a positive integer, got 0"),
        ({"highest": 5_000}, "highest must be a finite number above 0 and at most 4000, got 5000"),
        ({"lowest": 4_000}, "lowest must be a finite number above 0 and at most 3600, got 4000"),
        ({"exponent": 1.5}, "exponent must be a finite number above 0 and at most 1, got 1.5"),
        ({"time_constant": 0}, "time_constant must be a positive finite number, got 0"),
        ({"envelope_rate": 3_000}, "rate=8000 is not a multiple of envelope_rate=3000"),
    ],
)
def test_an_impossible_ear_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        datasets.Cochlea(**options)


@pytest.mark.parametrize("sound", [np.zeros((2, 3)), np.array([0.0, np.nan])])
def test_what_is_no_sound_is_refused(sound):
    with pytest.raises(ValueError, match="is not a row of finite numbers"):
        datasets.Cochlea().encode([sound])
