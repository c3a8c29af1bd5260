"""The pictures show the figures: positions of markers, points and colours are those measured."""

from dataclasses import replace

import keras
import matplotlib as mpl
import numpy as np
import pytest
from harness import recurrent_model, run_python, sequences
from keras import layers
from matplotlib import pyplot

import keras_lsc
from keras_lsc import plot
from keras_lsc.stability.gradients import GradientGrid
from keras_lsc.stability.radius import spectral_radius
from keras_lsc.stability.report import GradientEnergies, StabilityReport, TransitionStatistics

mpl.use("Agg")
pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def data():
    return sequences(np.random.default_rng(3), batch=32, steps=5)


@pytest.fixture(scope="module")
def reports(data):
    return [
        keras_lsc.measure(recurrent_model("gru", depth=3, spread=spread), data, samples=16)
        for spread in (0.3, 0.7)
    ]


def labelled(ax):
    lines = {line.get_label(): line for line in ax.get_lines()}
    return {name: line for name, line in lines.items() if not name.startswith("_")}


def rows_of(report, kinds):
    return [row for kind in kinds for row in report.transitions if row.kind == kind]


def test_radii_are_where_the_reports_say(reports):
    ax = plot.radii(*reports, target=0.5)
    assert isinstance(ax, mpl.axes.Axes)
    lines = labelled(ax)
    assert set(lines) == {"radius, before", "gain, before", "radius, after", "gain, after"}
    for report, name in zip(reports, ("before", "after"), strict=True):
        rows = rows_of(report, ("time", "depth"))
        for figure in ("radius", "gain"):
            drawn = lines[f"{figure}, {name}"]
            np.testing.assert_array_equal(drawn.get_xdata(), [getattr(r, figure) for r in rows])
            names = dict(zip(ax.get_yticks(), ax.get_yticklabels(), strict=True))
            texts = [names[height].get_text() for height in drawn.get_ydata()]
            assert texts == [f"{row.kind}, layer {row.layer + 1}" for row in rows]


def test_everything_is_inside_the_axes(reports):
    ax = plot.radii(*reports, target=(3.0, 0.1))
    left, right = ax.get_xlim()
    bottom, top = sorted(ax.get_ylim())
    for line in ax.get_lines():
        assert left <= min(line.get_xdata()) <= max(line.get_xdata()) <= right
        assert bottom <= min(line.get_ydata()) <= max(line.get_ydata()) <= top


def test_targets_are_dashed_lines_beside_their_kind(reports):
    ax = plot.radii(reports[0], target="unbalanced")
    wanted = reports[0].wanted("unbalanced")
    dashed = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [wanted["time"], wanted["depth"]]
    heights = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    for line, kind in zip(dashed, ("time", "depth"), strict=True):
        low, high = sorted(line.get_ydata())
        inside = {name for name, height in heights.items() if low < height < high}
        assert inside == {name for name in heights if name.startswith(kind)}


def test_the_report_draws_every_transition_and_others_beside_it(reports):
    ax = reports[0].plot(label="first")
    assert reports[1].plot(ax=ax, label="second") is ax
    lines = labelled(ax)
    for report, name in zip(reports, ("first", "second"), strict=True):
        rows = rows_of(report, ("input", "time", "depth"))
        assert len(rows) == len(report.transitions)
        drawn = lines[f"radius, {name}"]
        np.testing.assert_array_equal(drawn.get_xdata(), [row.radius for row in rows])
    first, second = lines["radius, first"], lines["radius, second"]
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()


def test_transitions_of_one_kind_and_layer_have_their_own_names(data):
    model = keras.Sequential(
        [keras.Input(data.shape[1:]), layers.Bidirectional(layers.GRU(3), name="both")]
    )
    ax = keras_lsc.measure(model, data, samples=4).plot()
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["input, layer 1", "both.forward.time", "both.backward.time"]


def test_a_report_survives_its_dictionary(reports):
    again = keras_lsc.StabilityReport.from_dict(reports[0].to_dict())
    assert again == reports[0]


def test_reports_of_different_networks_are_refused(reports, data):
    other = keras_lsc.measure(recurrent_model("gru", depth=2), data, samples=4)
    with pytest.raises(ValueError, match="different networks"):
        plot.radii(reports[0], other)
    with pytest.raises(ValueError, match="other transitions"):
        other.plot(ax=reports[0].plot())
    with pytest.raises(ValueError, match="no transition of kind 'input'; it has depth, time"):
        plot.radii(
            keras_lsc.StabilityReport(
                **{
                    **vars(other),
                    "transitions": tuple(r for r in other.transitions if r.kind != "input"),
                }
            ),
            kinds=("input",),
        )


def test_gradient_maps_show_norms(data):
    grid = keras_lsc.gradient_grid(recurrent_model("gru", depth=3), data, samples=16)
    ax = plot.gradient_grids(grid)
    (image,) = ax.get_images()
    shown = 10.0 ** image.get_array()
    np.testing.assert_allclose(shown.T**2, grid.measured, rtol=1e-5)
    assert image.get_extent() == [0.5, 5.5, 0.5, 3.5]
    # White, the middle of the scale, is the norm at the last output.
    assert image.norm(np.log10(shown[-1, -1])) == pytest.approx(0.5, abs=1e-6)


def test_several_gradient_maps_have_one_scale():
    rng = np.random.default_rng(0)
    energies = {"first": rng.random((7, 2)), "second": 1e3 * rng.random((5, 4))}
    axes = plot.gradient_grids(energies)
    assert [ax.get_title(loc="left") for ax in axes] == ["first", "second"]
    limits = {image.get_clim() for ax in axes for image in ax.get_images()}
    assert len(limits) == 1
    own = pyplot.subplots(2)[1]
    assert plot.gradient_grids(energies, own)[0] is own[0]
    with pytest.raises(ValueError, match="2 grids need as many Axes, got 1"):
        plot.gradient_grids(energies, pyplot.subplots()[1])
    with pytest.raises(ValueError, match="no gradient grid"):
        plot.gradient_grids({})


def test_a_gradient_that_is_zero_is_drawn_at_the_end_of_the_scale(reports):
    energies = np.zeros((4, 2))
    energies[-1, -1] = 1.0
    grid = GradientGrid(energies, energies, energies, reports[0])
    (image,) = plot.gradient_grids(grid).get_images()
    assert np.isfinite(image.get_array()).all()
    assert image.norm(image.get_array()[0, 0]) <= 0.0


def _energies(*values, layers=None):
    names = layers or tuple(f"layer_{k}" for k in range(len(values)))
    return GradientEnergies(names, values, (None,) * len(values), 8)


def test_energies_are_those_of_the_reports_from_the_input_upwards(reports):
    own = pyplot.subplots()[1]
    names = reports[0].gradient.layers
    second = replace(reports[1].gradient, layers=names)
    ax = plot.energies({"narrow": reports[0], "wide": second}, own)
    assert ax is own
    assert ax.get_yscale() == "log"
    lines = labelled(ax)
    assert list(lines) == ["narrow", "wide"]
    for report, line in zip(reports, lines.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), report.energy)
    assert list(ax.get_xticks()) == [1, 2, 3]
    assert tuple(tick.get_text() for tick in ax.get_xticklabels()) == names
    (level,) = [line for line in ax.get_lines() if line not in lines.values()]
    assert list(level.get_ydata()) == [1, 1]
    assert lines["narrow"].get_color() != lines["wide"].get_color()
    assert lines["narrow"].get_marker() != lines["wide"].get_marker()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["narrow", "wide"]


def test_energies_that_hardly_differ_look_level():
    ax = plot.energies({"level": _energies(0.97, 1.02, 1.0)})
    low, high = ax.get_ylim()
    assert low == pytest.approx(0.1, rel=0.05)
    assert high == pytest.approx(10.0, rel=0.05)


def test_a_gradient_that_is_zero_leaves_the_other_energies_on_the_axis():
    ax = plot.energies({"dead": _energies(0.0, 1e-4, 1.0), "level": _energies(1.0, 1.0, 1.0)})
    low, high = ax.get_ylim()
    assert 1e-5 < low < 1e-4
    assert 1.0 < high < 10.0


def test_layers_are_numbered_where_they_are_many_or_have_several_names():
    many = plot.energies({"start": _energies(*np.ones(9))})
    first, second = (_energies(1.0, 1.0, layers=(f"gru_{k}", "top")) for k in range(2))
    differing = plot.energies({"first": first, "second": second})
    for ax in (many, differing):
        for tick, at in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True):
            assert tick.get_text() == str(int(at)) == f"{at:g}"


def test_energies_refuse_what_cannot_be_drawn_together(reports):
    with pytest.raises(ValueError, match=r"'two' has 2, 'three' has 3[.] Draw them on an Axes"):
        plot.energies({"two": _energies(1.0, 1.0), "three": reports[0]})
    with pytest.raises(
        ValueError, match=r"'start' holds no gradient.*gradient_energies\(model, x\)"
    ):
        plot.energies({"start": _with_nan()})
    with pytest.raises(ValueError, match="'start' is 0 at the last layer, 'layer_1'"):
        plot.energies({"start": _energies(1.0, 0.0)})
    with pytest.raises(ValueError, match="'start' is nan at the last layer, 'layer_1'"):
        plot.energies({"start": _energies(1.0, np.nan)})
    with pytest.raises(ValueError, match=r"dictionary from the name of a start.*Name it"):
        plot.energies(reports[0])
    with pytest.raises(ValueError, match="no report to draw"):
        plot.energies({})


def test_eigenvalues_have_the_radii_that_measure_reports(data):
    for cell, depth in (("lstm", 1), ("oscillator", 2)):
        model = recurrent_model(cell, depth=depth)
        report = keras_lsc.measure(model, data, samples=40, seed=5)
        spectra = keras_lsc.eigenvalues(model, data, samples=40, seed=5)
        square = [row for row in report.transitions if row.shape[0] == row.shape[1]]
        assert list(spectra) == [row.name for row in square]
        for row in square:
            spectrum = spectra[row.name]
            assert spectrum.values.shape == (40, row.shape[0])
            assert (spectrum.kind, spectrum.layer) == (row.kind, row.layer)
            # What powers of the matrix give, of which the error is of order 2^-14.
            assert spectrum.radius == pytest.approx(row.radius, rel=1e-3)


def test_eigenvalues_are_those_of_a_known_matrix():
    matrix = np.random.default_rng(1).standard_normal((5, 5)).astype("float32") / 3
    model = keras.Sequential(
        [keras.Input((4, 2)), layers.SimpleRNN(5, activation="linear", name="linear")]
    )
    kernel, _, bias = model.get_weights()
    model.set_weights([kernel, matrix, bias])
    spectrum = keras_lsc.eigenvalues(model, np.ones((3, 4, 2), "float32"), samples=3)["linear.time"]
    expected = np.sort_complex(np.linalg.eigvals(matrix.astype("float64")))
    for values in spectrum.values:
        np.testing.assert_allclose(np.sort_complex(values), expected, atol=1e-5)
    assert spectrum.radius == pytest.approx(
        float(spectral_radius(keras.ops.convert_to_tensor(matrix))), rel=1e-3
    )


def test_eigenvalues_are_drawn_in_the_plane(data):
    spectra = [
        keras_lsc.eigenvalues(recurrent_model("tanh", depth=1, spread=spread), data, samples=8)
        for spread in (0.3, 2.0)
    ]
    before, after = (next(iter(of_model.values())) for of_model in spectra)
    own = pyplot.subplots()[1]
    ax = plot.eigenvalues(before, after, target=0.7, ax=own, labels=("small", "large"))
    assert ax is own
    lines = labelled(ax)
    np.testing.assert_allclose(np.hypot(*lines["unit circle"].get_data()), 1.0)
    np.testing.assert_allclose(np.hypot(*lines["target"].get_data()), 0.7)
    for spectrum, name in ((before, "small"), (after, "large")):
        drawn = lines[f"{name}, mean radius {spectrum.radius:.2f}"]
        points = drawn.get_xdata() + 1j * drawn.get_ydata()
        np.testing.assert_array_equal(points, spectrum.values.ravel())
        assert np.abs(points).max() < ax.get_xlim()[1]
    with pytest.raises(ValueError, match="target is the radius of a circle"):
        plot.eigenvalues(before, target=-1.0)
    with pytest.raises(ValueError, match="samples must be a positive integer, got 0"):
        keras_lsc.eigenvalues(recurrent_model("tanh"), data, samples=0)


def test_raster_points_are_the_spikes(rng):
    spikes = (rng.random((40, 12)) < 0.2).astype("float32")
    own = pyplot.subplots()[1]
    ax = plot.spike_raster(keras.ops.convert_to_tensor(spikes), ax=own)
    assert ax is own
    (line,) = ax.get_lines()
    drawn = np.zeros_like(spikes)
    drawn[line.get_xdata(), line.get_ydata()] = 1.0
    np.testing.assert_array_equal(drawn, spikes)
    assert ax.get_title(loc="left") == f"firing rate {spikes.mean():.3f}"


def test_raster_refuses_what_are_no_spikes():
    with pytest.raises(ValueError, match=r"one sequence, .*\(2, 5, 3\)"):
        plot.spike_raster(np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r"0 or 1; got values from 0[.]5 to 0[.]5"):
        plot.spike_raster(np.full((5, 3), 0.5))


def test_learning_curves_are_means_in_the_band_of_their_seeds(rng):
    seeds = rng.random((3, 6))
    history = keras.callbacks.History()
    history.history = {"val_loss": [3.0, 2.0, 1.0, 0.5, 0.25, 0.125]}
    histories = {"many": [{"val_loss": list(seed)} for seed in seeds], "one": [history]}
    ax = plot.learning_curves(histories, "val_loss", first_epoch=0)
    lines = labelled(ax)
    many, one = lines["many (3 seeds)"], lines["one"]
    np.testing.assert_array_equal(many.get_xdata(), np.arange(6))
    np.testing.assert_allclose(many.get_ydata(), seeds.mean(axis=0))
    np.testing.assert_allclose(one.get_ydata(), history.history["val_loss"])
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for epoch in range(6):
        at = corners[corners[:, 0] == epoch, 1]
        assert at.min() == pytest.approx(seeds[:, epoch].min())
        assert at.max() == pytest.approx(seeds[:, epoch].max())
    assert many.get_color() != one.get_color()
    assert many.get_marker() != one.get_marker()
    assert ax.get_ylabel() == "validation loss"
    assert [text.get_text() for text in ax.texts] == [f"{seeds[:, -1].mean():.2f}", "0.12"]
    assert plot.learning_curves(histories, "val_loss", ax) is ax


def test_learning_curves_refuse_what_cannot_be_compared():
    with pytest.raises(ValueError, match="no 'val_accuracy'; it has accuracy, loss"):
        plot.learning_curves({"start": [{"loss": [1.0], "accuracy": [0.5]}]})
    unequal = [{"loss": [1.0, 0.5]}, {"loss": [1.0]}]
    with pytest.raises(ValueError, match=r"'start' must be .* equal length; got \[2, 1\] epochs"):
        plot.learning_curves({"start": unequal}, "loss")
    with pytest.raises(ValueError, match=r"at least one, .* got \[\] epochs"):
        plot.learning_curves({"start": []}, "loss")
    with pytest.raises(ValueError, match="no history to draw"):
        plot.learning_curves({}, "loss")


def test_colours_differ_in_lightness_or_hue_for_the_colour_blind():
    """Seen without red-green difference, no two of the first four styles look alike."""
    colours = np.array([mpl.colors.to_rgb(color) for color, _ in plot.STYLES[:4]])
    # Viénot, Brettel and Mollon 1999: deuteranopes, linear RGB.
    seen = (colours**2.2) @ np.array([[0.29, 0.71, 0.0], [0.29, 0.71, 0.0], [-0.02, 0.02, 1.0]]).T
    for a in range(4):
        for b in range(a):
            assert np.linalg.norm(seen[a] - seen[b]) > 0.1
    assert len({marker for _, marker in plot.STYLES}) == len(plot.STYLES)


def test_without_matplotlib_only_pictures_are_missing():
    program = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "import keras_lsc\n"
        "try:\n"
        "    keras_lsc.plot.learning_curves({'a': [{'loss': [1.0]}]}, 'loss')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    printed = run_python(program, backend=keras.backend.backend())
    assert 'pip install "keras-lsc[plot]"' in printed


@pytest.mark.parametrize("labels", [("one",), "ab", ("a", "b", "c"), (1, 2), None])
def test_labels_that_are_no_pair(labels):
    with pytest.raises(ValueError, match="pair of strings"):
        plot.radii(_with_nan(), labels=labels)


def _with_nan():
    rows = (
        TransitionStatistics("a.time", "time", 0, "state 4", (4, 4), 0.7, 0.1, 0.6),
        TransitionStatistics("b.time", "time", 1, "state 4", (4, 4), np.nan, np.nan, np.nan),
    )
    return StabilityReport("net", rows, 2, 5, 8, 0)


def test_a_radius_that_is_not_a_number_leaves_the_others_on_the_axis():
    left, right = plot.radii(_with_nan()).get_xlim()
    assert left == 0.0
    assert right == pytest.approx(1.08 * 0.8)


@pytest.mark.parametrize(
    "options",
    [{"first_epoch": 1.5}, {"first_epoch": -1}, {"connected": "yes"}, {"metric": None}],
)
def test_wrong_options_of_learning_curves(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        plot.learning_curves({"start": [{"val_accuracy": [0.1]}]}, **options)


@pytest.mark.parametrize("given", [None, 1, "x", [], {}, print])
def test_pictures_of_what_is_not_theirs(given):
    with pytest.raises(ValueError, match="before must be a StabilityReport"):
        plot.radii(given)
    with pytest.raises(ValueError, match="before must be a Spectrum"):
        plot.eigenvalues(given)
    with pytest.raises(ValueError, match="comparison must be a BackendComparison"):
        plot.backends(given)
    with pytest.raises(ValueError, match="grid"):
        plot.gradient_grids(given)
    with pytest.raises(ValueError, match="report"):
        plot.energies(given)
    with pytest.raises(ValueError, match="'start' must be a StabilityReport or GradientEnergies"):
        plot.energies({"start": given})
    with pytest.raises(ValueError, match=r"spike|raster"):
        plot.spike_raster(given)
    with pytest.raises(ValueError, match="histor"):
        plot.learning_curves(given)
    with pytest.raises(ValueError, match="histories of 'start'"):
        plot.learning_curves({"start": given})
    with pytest.raises(ValueError, match="history of 'start'"):
        plot.learning_curves({"start": [{"val_accuracy": given} if given != [] else given]})


@pytest.mark.parametrize("after", [1, "x", []])
def test_a_second_report_that_is_none(after):
    with pytest.raises(ValueError, match="after must be a StabilityReport"):
        plot.radii(_with_nan(), after)


@pytest.mark.parametrize("kinds", [None, "time", (1,)])
def test_kinds_that_are_no_list_of_names(kinds):
    with pytest.raises(ValueError, match="kinds must be a list"):
        plot.radii(_with_nan(), kinds=kinds)
