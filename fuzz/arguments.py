"""Arguments of the public functions: one value of the right sort replaced by a strange one."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lsc
from fuzz.kind import RIGHT, Kind, WrongAnswerError, require
from keras_lsc import callbacks, datasets, layers, plot, zoo
from keras_lsc.stability import targets, theory
from keras_lsc.zoo.registry import UnknownCheckpointError

_NAN, _INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Sort:
    """Values of an argument.

    Attributes:
        right: that have to be taken.
        wrong: that have to be refused.
        unclear: of which only the manner of the refusal is judged.
    """

    right: tuple[Any, ...]
    wrong: tuple[Any, ...]
    unclear: tuple[Any, ...] = ()


def _but_none(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for value in values if value is not None)


_NO_NUMBERS: tuple[Any, ...] = (None, "2", "", b"1", [], [1], {}, 1j, object(), np.zeros(3), print)
COUNT = Sort(
    (1, 2, np.int64(3), np.uint8(2)),
    (0, -1, -3, 2.5, 1.0, True, _NAN, _INF, np.float32(2), *_NO_NUMBERS),
)
COUNT_OR_NONE = Sort((None, *COUNT.right), _but_none(COUNT.wrong))
NATURAL = Sort((0, 1, np.int64(5)), (-1, -(2**70), 2.5, True, _NAN, _INF, *_NO_NUMBERS))
NATURAL_OR_NONE = Sort((None, 0, 1), _but_none(NATURAL.wrong))
SEED = Sort(NATURAL.right, NATURAL.wrong, (2**32, 2**70))
POSITIVE = Sort(
    (0.5, 1, np.float32(0.25)),
    (0, 0.0, -1, _NAN, _INF, -_INF, True, 10**400, *_NO_NUMBERS),
    (1e-300, 1e300, 5e-324),
)
SHARE = Sort((0.25, np.float32(0.5)), (-0.1, 1.5, 1, _NAN, _INF, True, *_NO_NUMBERS))
FLAG = Sort((True, False), (None, 0, 1, 2.5, "yes", "", [], _NAN, object()), (np.True_,))
# Keras takes anything for its own, and what is true of it counts.
LAYER_FLAG = Sort(FLAG.right, (), FLAG.wrong)
TARGET = Sort(
    ("variance", "unbalanced", 0.5, (0.9, 0.4), np.float32(0.7), 1),
    (0, -1, _NAN, _INF, "x", "", True, None, [], (1,), (1, 2, 3), ("a", "b"), {}, 1j, (_NAN, 1)),
    ([0.9, 0.4], 1e300, 1e-300, np.array([0.9, 0.4])),
)


def choice(*options: Any, also: tuple[Any, ...] = ()) -> Sort:
    """One of some names."""
    wrong: tuple[Any, ...] = (
        "",
        "x",
        None,
        1,
        True,
        [],
        {},
        _NAN,
        b"scales",
        object(),
        (options[0],),
    )
    return Sort(options, tuple(one for one in wrong if one not in also), also)


TEXT = Sort((), ("", "x", "\0", None, 1, True, [], {}, _NAN, b"x", object(), ("a",)))
FOLDER = Sort((), ("", "\0", 1, True, [], {}, _NAN, b"x", object()), ("absent", "/dev/null"))


@cache
def _x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(16, 5, 3)).astype("float32")


@cache
def _inputs() -> Sort:
    x = _x()
    holes, endless = x.copy(), x.copy()
    # In every sequence: those that are not drawn are not looked at.
    holes[:, 2, 1], endless[:, 2, 1] = _NAN, _INF
    return Sort(
        (
            x,
            x.astype("float64"),
            x.tolist(),
            (x * 9).astype("int8"),
            x > 0,
            x[:1],
            np.asfortranarray(x),
        ),
        (
            *(
                None,
                "x",
                3,
                {},
                [],
                [[]],
                object(),
                holes,
                endless,
                x[0],
                x[..., :2],
                x[:0],
                x[:, :0],
            ),
            *(x.astype(object)[..., :1], x.astype("U8"), x.astype(complex), [x, x, x], {"y": x}),
            *(
                np.zeros((3, 5, 3), "datetime64[s]"),
                np.zeros((3, 5, 3), "timedelta64[s]"),
                [[[1, 2, 3]], [[1]]],
                np.float32(1),
                print,
            ),
        ),
    )


@cache
def _model() -> keras.Model:
    keras.utils.set_random_seed(5)
    hidden = keras.layers.SimpleRNN(4, return_sequences=True, name="lower")
    return keras.Sequential([keras.Input((5, 3)), hidden, keras.layers.SimpleRNN(4, name="upper")])


def _no_models() -> Sort:
    dense = keras.layers.Dense(3)
    unbuilt = keras.Sequential([keras.layers.SimpleRNN(3)])
    pooled = keras.Sequential([keras.Input((5, 3)), keras.layers.GlobalAveragePooling1D()])
    wrong: tuple[Any, ...] = (
        None,
        "x",
        3,
        [],
        dense,
        unbuilt,
        pooled,
        keras.Sequential,
        print,
        _x(),
    )
    return Sort((), wrong)


@cache
def _report() -> keras_lsc.StabilityReport:
    return keras_lsc.measure(_model(), _x(), samples=4)


@cache
def _spectrum() -> Any:
    return next(iter(keras_lsc.eigenvalues(_model(), _x(), samples=2).values()))


@dataclass(frozen=True)
class Function:
    """A public function.

    Attributes:
        name: that users call it by.
        call: calls it with keywords.
        given: keywords that it takes.
        sorts: of the keywords that are replaced.
        documented: what its docstring says that it raises, besides ValueError.
    """

    name: str
    call: Callable[..., Any]
    given: Callable[[], Mapping[str, Any]] = dict
    sorts: Mapping[str, Sort | Callable[[], Sort]] = field(default_factory=dict)
    documented: tuple[type[Exception], ...] = ()


def _copy_of_model() -> keras.Model:
    copy = keras.models.clone_model(_model())
    copy.set_weights(_model().get_weights())
    return copy


def _called(layer: keras.layers.Layer) -> Any:
    outputs = keras.ops.convert_to_numpy(layer(np.zeros((2, 5, 3), "float32")))
    require(bool(np.isfinite(outputs).all()), "outputs are not finite")
    return outputs


def _saved(**given: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return zoo.save(**{"folder": Path(folder) / "mine", **given})


_MEASURED: dict[str, Sort | Callable[[], Sort]] = {
    "samples": COUNT,
    "seed": SEED,
    "x": _inputs,
    "model": _no_models,
}
_RADII = choice("spectral", "rms", "norm")
_UNAVAILABLE = (datasets.DatasetUnavailableError,)
_CHECKPOINTS = (
    UnknownCheckpointError,
    zoo.CheckpointUnavailableError,
    zoo.DamagedCheckpointError,
    FileNotFoundError,
)
_SPLIT = choice("train", "validation", "test")
_CELL = "test_gru_parity_d2_rhovar"


def _task(name: str, **sorts: Sort) -> Function:
    info = datasets.info(name)
    # All of some takes more memory than an input may.
    is_large = 4 * math.prod(info.shape) * info.examples["train"] > 2**28
    limit = Sort(COUNT.right, COUNT_OR_NONE.wrong) if is_large else COUNT_OR_NONE
    return Function(
        f"datasets.load({name!r})",
        lambda **given: datasets.load(name, **given),
        lambda: {"limit": 3},
        {"limit": limit, "split": _SPLIT, "masks": FLAG, **sorts},
        (MemoryError,),
    )


def _stored(name: str, **sorts: Sort) -> Function:
    """A task whose data is absent: arguments are judged before that is noticed, or it is."""
    return Function(
        f"datasets.load({name!r}), absent",
        lambda **given: datasets.load(name, **{"data_dir": "absent", "download": False, **given}),
        dict,
        {
            name: Sort((), sort.wrong)
            for name, sort in {"limit": COUNT_OR_NONE, "split": _SPLIT, **sorts}.items()
        }
        | {"data_dir": FOLDER},
        _UNAVAILABLE,
    )


FUNCTIONS = (
    Function(
        "measure",
        keras_lsc.measure,
        lambda: {"model": _model(), "x": _x(), "samples": 2},
        {**_MEASURED, "radius": _RADII, "gradient": FLAG, "exponents": NATURAL},
        (TypeError,),
    ),
    Function(
        "diagnose",
        keras_lsc.diagnose,
        lambda: {"model": _model(), "x": _x(), "samples": 2, "radii": False},
        {"samples": COUNT, "seed": SEED, "radii": FLAG},
        (TypeError,),
    ),
    Function(
        "gradient_energies",
        keras_lsc.gradient_energies,
        lambda: {"model": _model(), "x": _x(), "samples": 2},
        {"samples": COUNT, "seed": SEED, "x": _inputs},
        (TypeError,),
    ),
    Function(
        "lyapunov",
        keras_lsc.lyapunov,
        lambda: {"model": _model(), "x": _x(), "samples": 2},
        {**_MEASURED, "k": COUNT, "transient": NATURAL_OR_NONE},
        (TypeError,),
    ),
    Function(
        "stabilize(method='level')",
        lambda **given: keras_lsc.stabilize(
            **{"model": _copy_of_model(), "method": "level", **given}
        ),
        lambda: {"x": _x(), "samples": 2, "tolerance": 2.0, "verbose": 0},
        {
            "samples": COUNT_OR_NONE,
            "seed": SEED,
            "growth": Sort((None, *POSITIVE.right), _but_none(POSITIVE.wrong), POSITIVE.unclear),
            "tolerance": Sort((None, 1.5), _but_none(POSITIVE.wrong), POSITIVE.unclear),
        },
        (TypeError, FloatingPointError, keras_lsc.NotLevelledError),
    ),
    Function(
        "stabilize(method='flossing')",
        lambda **given: keras_lsc.stabilize(
            **{"model": _copy_of_model(), "method": "flossing", **given}
        ),
        lambda: {"x": _x(), "tolerance": 20.0, "max_updates": 1, "batch_size": 2, "verbose": 0},
        {
            "samples": COUNT_OR_NONE,
            "seed": SEED,
            "exponents": COUNT_OR_NONE,
            "max_updates": COUNT,
            "batch_size": COUNT,
            "learning_rate": Sort((None, 0.01), _but_none(POSITIVE.wrong)),
        },
        (TypeError, FloatingPointError, keras_lsc.NotFlossedError),
    ),
    Function(
        "eigenvalues",
        keras_lsc.eigenvalues,
        lambda: {"model": _model(), "x": _x(), "samples": 2},
        _MEASURED,
        (TypeError,),
    ),
    Function(
        "gradient_grid",
        keras_lsc.gradient_grid,
        lambda: {"model": _model(), "x": _x(), "samples": 2},
        {**_MEASURED, "by": choice("gain", "radius")},
        (TypeError,),
    ),
    Function(
        "stabilize",
        lambda **given: keras_lsc.stabilize(**{"model": _copy_of_model(), **given}),
        lambda: {"x": _x(), "samples": 2, "max_updates": 1, "batch_size": 4},
        {
            **_MEASURED,
            "samples": COUNT_OR_NONE,
            "target": TARGET,
            "tolerance": Sort((None, *POSITIVE.right), _but_none(POSITIVE.wrong), POSITIVE.unclear),
            "mode": choice("scales", "weights"),
            "radius": _RADII,
            "include_input": FLAG,
            "max_updates": COUNT,
            "batch_size": COUNT,
            "learning_rate": Sort((None, 0.01), _but_none(POSITIVE.wrong)),
            "verbose": Sort((0,), (None, "x", -1, 2.5, _NAN, [])),
            "optimizer": Sort(("adam", "sgd"), ("x", "", None, 1, [], {}, True, print)),
            "callbacks": Sort(((),), (None, 1, "x", [1], [None], print)),
        },
        (TypeError, FloatingPointError, keras_lsc.NotStabilizedError),
    ),
    Function(
        "LSCPretrainer",
        keras_lsc.LSCPretrainer,
        lambda: {"model": _model()},
        {
            "model": _no_models,
            "target": TARGET,
            "mode": choice("scales", "weights"),
            "radius": _RADII,
            "include_input": FLAG,
            "seed": SEED,
        },
        (TypeError,),
    ),
    Function(
        "zoo.list",
        zoo.list,
        dict,
        {
            "pattern": Sort(("test_*", "*"), ("", None, 1, True, [], {}, b"x", _NAN, object())),
            "hidden": FLAG,
        },
        (TypeError,),
    ),
    Function(
        "zoo.list, filters",
        lambda value: zoo.list(depth=value, dataset=value),
        lambda: {"value": 2},
        {"value": Sort((2, "x"), (), (_NAN, None, [], {}, (1, 2), np.zeros(3), object()))},
        (TypeError,),
    ),
    Function("zoo.info", zoo.info, lambda: {"name": _CELL}, {"name": TEXT}, _CHECKPOINTS),
    Function(
        "zoo.load",
        zoo.load,
        lambda: {"name": _CELL},
        {
            "name": TEXT,
            "weights": Sort(
                ("stabilized", "initial", "trained"), ("", "x", None, 1, True, [], {}, _NAN)
            ),
            "num_classes": Sort((None, 2, np.int64(5)), (0, 1, -1, 2.5, True, "x", [], _NAN, {})),
            "input_shape": Sort((None, (20, 1), [9, 1]), ((), (5,), (5, 1, 1), "x", 3, (_NAN, 1))),
            "seed": SEED,
            "dtype": Sort((None, "float32", "mixed_bfloat16"), ("x", "", 3, [], {}, _NAN, True)),
            "sha256": Sort((None,), ("x", "0" * 64, 1, [], {}, True, b"x" * 64)),
            "cache_dir": Sort((None,), tuple(one for one in FOLDER.wrong if one != "")),
        },
        _CHECKPOINTS,
    ),
    Function(
        "zoo.verify",
        zoo.verify,
        lambda: {"name": _CELL},
        {
            "name": TEXT,
            "weights": Sort(("stabilized", "trained"), ("initial", "x", None, 1, True, [], _NAN)),
            "data_dir": FOLDER,
        },
        (*_CHECKPOINTS, *_UNAVAILABLE, zoo.CertificateMismatchError),
    ),
    Function(
        "zoo.save",
        _saved,
        lambda: {"model": _model()},
        {
            "model": Sort((), (None, "x", 3, [], keras.Sequential, print)),
            "folder": Sort((), ("", "\0", 1, None, True, [], b"x")),
            "report": Sort((None,), ("x", 1, [], {"a": 1}, True, _NAN)),
        },
        (TypeError, OSError),
    ),
    Function(
        "zoo.fine_tune",
        zoo.fine_tune,
        lambda: {
            "name_or_model": _CELL,
            "dataset": "parity",
            "options": {"length": 12},
            "epochs": 0,
            "limit": 4,
            "verbose": 0,
        },
        {
            "name_or_model": Sort((), (None, "x", 3, [], keras.Sequential, print, {}, _NAN)),
            "dataset": TEXT,
            "epochs": Sort((0,), NATURAL.wrong),
            "learning_rate": Sort((0.01,), POSITIVE.wrong),
            "batch_size": Sort((3,), COUNT.wrong),
            "patience": Sort((1,), COUNT.wrong),
            "limit": Sort((2,), _but_none(COUNT.wrong)),
            "seed": Sort((1,), NATURAL.wrong),
            "weights": choice("stabilized", "initial"),
            "options": Sort(
                ({"length": 9},), (1, "x", [1], {"length": 0}, {"n": _NAN}, {1: 2}, print)
            ),
            "checkpoint": Sort((None,), (1, True, [], {}, _NAN)),
            "callbacks": Sort(((),), (1, [1], "x", print)),
        },
        (TypeError, OSError, *_CHECKPOINTS, *_UNAVAILABLE),
    ),
    Function("datasets.info", datasets.info, lambda: {"name": "parity"}, {"name": TEXT}),
    Function(
        "datasets.prepared",
        datasets.prepared,
        lambda: {"name": "smnist"},
        {"name": TEXT, "data_dir": FOLDER},
        _UNAVAILABLE,
    ),
    Function(
        "datasets.load",
        lambda **given: datasets.load(**{"limit": 2, **given}),
        lambda: {"name": "parity"},
        {"name": TEXT, "split": _SPLIT, "masks": FLAG, "limit": COUNT_OR_NONE},
    ),
    Function(
        "datasets.batches",
        datasets.batches,
        lambda: {"name": "parity", "split": "test", "limit": 9},
        {
            "name": TEXT,
            "split": _SPLIT,
            "batch_size": COUNT,
            "shuffle": Sort((None, True, False), (0, 1, "yes", [], _NAN)),
            "seed": NATURAL,
            "masks": FLAG,
            "drop_rest": Sort((None, False), (0, 1, "yes", [], _NAN)),
        },
        (MemoryError,),
    ),
    Function(
        "datasets.stream", datasets.stream, lambda: {"name": "ptb"}, {"name": TEXT}, _UNAVAILABLE
    ),
    Function(
        "datasets.vocabulary",
        datasets.vocabulary,
        lambda: {"name": "ptb"},
        {"name": TEXT},
        _UNAVAILABLE,
    ),
    Function(
        "datasets.read_ts", datasets.read_ts, lambda: {"path": "x"}, {"path": FOLDER}, (OSError,)
    ),
    _task("parity", n=COUNT, length=Sort((30, None), COUNT_OR_NONE.wrong, (2**70,))),
    _task("adding", length=Sort((9,), COUNT.wrong, (2**40,))),
    _task("copy_memory"),
    _task("delayed_match", n=COUNT),
    _task("spike_patterns"),
    _stored("smnist"),
    _stored("smnist_latency", steps=COUNT, time_constant=POSITIVE, threshold=SHARE),
    _stored("shd", bin_width=POSITIVE, max_time=POSITIVE),
    _stored("spoken_digit", mels=COUNT, max_time=POSITIVE),
    _stored("spoken_digit_spikes", channels=COUNT, bin_width=POSITIVE, max_time=POSITIVE),
    _stored("ptb", steps=COUNT),
    _stored("uea", problem=TEXT, validation_share=Sort((), SHARE.wrong)),
    Function(
        "datasets.GrowingTask",
        lambda **given: datasets.GrowingTask(**given)[0],
        lambda: {"name": "parity", "n": 2, "largest": 3, "batch_size": 2},
        {
            "name": choice("parity", "delayed_match"),
            "n": Sort((2,), COUNT.wrong),
            "largest": Sort((3,), COUNT.wrong),
            "batch_size": COUNT,
            "batches": COUNT,
            "seed": NATURAL,
            "masks": FLAG,
            "heads": choice("single", "multi"),
        },
    ),
    Function(
        "datasets.Cochlea",
        lambda **given: datasets.Cochlea(**given).encode([np.ones(80)]),
        lambda: {"channels": 4},
        {
            "channels": COUNT,
            "rate": Sort((8000,), COUNT.wrong, (3, 2**70)),
            "lowest": Sort((60,), POSITIVE.wrong),
            "highest": Sort((3000.0,), POSITIVE.wrong),
            "sensitivity": Sort((0.1,), POSITIVE.wrong),
            "exponent": Sort((0.3, 1), POSITIVE.wrong),
            "time_constant": Sort((0.01,), POSITIVE.wrong),
            "envelope_rate": Sort((1000,), COUNT.wrong),
        },
    ),
    Function(
        "datasets.ContiguousBatches",
        datasets.ContiguousBatches,
        lambda: {"tokens": np.arange(200), "batch_size": 2, "steps": 4},
        {
            "tokens": Sort(
                (), (None, 3, "x", np.zeros(0), np.zeros((9, 9)), print, np.zeros(200) + 0.5)
            ),
            "batch_size": Sort((2,), COUNT.wrong),
            "steps": Sort((2,), COUNT.wrong),
            "drop_rest": FLAG,
        },
    ),
    Function(
        "layers.CarriedState",
        layers.CarriedState,
        lambda: {"layer": keras.layers.GRU(2)},
        {"layer": Sort((), (None, "x", 3, keras.layers.Dense(2), keras.layers.GRU, print))},
        (TypeError,),
    ),
    Function(
        "layers.LIF",
        lambda **given: _called(layers.LIF(**given)),
        lambda: {"units": 2},
        {
            "units": COUNT,
            "return_sequences": LAYER_FLAG,
            "go_backwards": LAYER_FLAG,
            "reset": choice("subtractive", "multiplicative-1", "multiplicative-2"),
            "reset_gradient": LAYER_FLAG,
            "surrogate": Sort(("fast_sigmoid",), ("x", "", None, 1, [], True), ({},)),
            "tau": Sort((5.0, 20), (0, -1, _NAN, _INF, True, None, [], 10**400), ("x", "ones", {})),
            "trainable_tau": LAYER_FLAG,
            "threshold": Sort((0.5,), (0, -1, _NAN, _INF, True, None, []), ("x", "ones", {})),
            "recurrent": LAYER_FLAG,
            "use_bias": LAYER_FLAG,
            "refractory": NATURAL,
            "output": choice("spikes", "voltage"),
            "kernel_initializer": Sort(("ones",), ("x", 1, [], True), (None, {}, "")),
        },
    ),
    Function(
        "layers.ALIF",
        lambda **given: _called(layers.ALIF(**given)),
        lambda: {"units": 2},
        {
            "units": COUNT,
            "beta": Sort((1.0,), (_NAN, _INF, True, None, [], 10**400), ("x", -1, 0)),
            "tau_adaptation": Sort((50.0,), (0, -1, _NAN, _INF, True, None, []), ("x",)),
            "trainable_beta": LAYER_FLAG,
        },
    ),
    Function(
        "layers.LRU",
        lambda **given: _called(layers.LRU(**given)),
        lambda: {"units": 2},
        {
            "units": COUNT,
            "state_units": Sort((None, 3), _but_none(COUNT.wrong)),
            "min_radius": Sort((0, 0.3), (-1, 1, _NAN, _INF, "x", None, [], True, 1j)),
            "max_radius": Sort((0.9,), (0, -1, 1, _NAN, _INF, "x", None, [], True, 1j)),
            "max_phase": Sort((1.0,), (0, -1, _NAN, _INF, "x", None, [], True, 1j)),
            "seed": Sort((None, 3), _but_none(NATURAL.wrong)),
        },
    ),
    Function(
        "layers.LRUBlock",
        lambda **given: _called(layers.LRUBlock(**given)),
        lambda: {"units": 3},
        {
            "units": Sort((3,), COUNT.wrong),
            "dropout": Sort((0.0, 0.5), (-0.1, 1.5, _NAN, "x", None, [], True)),
            "epsilon": Sort((1e-3,), (0, -1, _NAN, _INF, "x", None, [])),
            "state_units": Sort((None, 3), _but_none(COUNT.wrong)),
        },
    ),
    Function(
        "layers.LeakyRNN",
        lambda **given: _called(layers.LeakyRNN(**given)),
        lambda: {"units": 2},
        {
            "units": COUNT,
            "activation": Sort(("tanh",), ("x", [], 3.5)),
            "tau": Sort((5.0, None), (0, -1, 0.5, _NAN, _INF, True, []), ("x",)),
            "use_bias": LAYER_FLAG,
        },
    ),
    Function(
        "layers.LeakyReadout",
        lambda **given: _called(layers.LeakyReadout(**given)),
        lambda: {"units": 2},
        {
            "units": COUNT,
            "tau": Sort((5.0,), (0, -1, _NAN, _INF, True, None, []), ("x",)),
            "use_bias": LAYER_FLAG,
        },
    ),
    Function(
        "layers.Surrogate",
        layers.Surrogate,
        dict,
        {
            "shape": Sort(("fast_sigmoid",), ("x", "", None, 1, [], {}, True)),
            "dampening": POSITIVE,
            "sharpness": POSITIVE,
            "tail": Sort((2.0, 3), (0, -1, 0.5, _NAN, _INF, True, *_NO_NUMBERS)),
        },
    ),
    Function(
        "layers.FiringRateRegularizer",
        layers.FiringRateRegularizer,
        dict,
        {
            "target": Sort((0.0, 1, 0.2), (-0.1, 1.5, _NAN, _INF, True, *_NO_NUMBERS)),
            "strength": Sort((0, 2.5), (-1, _NAN, _INF, True, *_NO_NUMBERS)),
        },
    ),
    Function(
        "callbacks.FiringRateSchedule",
        callbacks.FiringRateSchedule,
        dict,
        {
            "begin": Sort((0, 0.5), (-0.1, 0.6, 1, _NAN, _INF, True, *_NO_NUMBERS)),
            "end": Sort((1, 0.5), (0, 0.2, 1.5, _NAN, _INF, True, *_NO_NUMBERS)),
        },
    ),
    Function(
        "callbacks.StabilityMonitor",
        callbacks.StabilityMonitor,
        lambda: {"x": _x()},
        {
            "every": COUNT,
            "samples": COUNT,
            "radii": FLAG,
            "seed": SEED,
            "on_alarm": Sort(("warn", "stop", print), ("", "x", None, 1, True, [], {}, _NAN)),
        },
    ),
    Function(
        "callbacks.RadiusRegularizer",
        callbacks.RadiusRegularizer,
        lambda: {"x": _x()},
        {
            "target": TARGET,
            "strength": Sort((None, *POSITIVE.right), _but_none(POSITIVE.wrong), POSITIVE.unclear),
            "every": COUNT,
            "batch_size": COUNT,
            "seed": SEED,
            "mode": choice("scales", "weights"),
            "radius": _RADII,
        },
    ),
    Function(
        "callbacks.StopWhenStable",
        callbacks.StopWhenStable,
        dict,
        {
            "tolerance": POSITIVE,
            "min_updates": Sort((1, 8), (-1, 2.5, True, _NAN, *_NO_NUMBERS), (0,)),
        },
    ),
    Function(
        "callbacks.NCurriculum",
        callbacks.NCurriculum,
        lambda: {"task": datasets.GrowingTask("parity")},
        {
            "task": Sort((), (None, 1, "x", [], print)),
            "monitor": Sort(("accuracy",), ("", None, 1, [], {}, _NAN)),
            "threshold": Sort((0.9,), (_NAN, _INF, True, *_NO_NUMBERS)),
            "stop_at_largest": FLAG,
        },
    ),
    Function(
        "targets.resolve",
        targets.resolve,
        lambda: {"target": "variance", "depth": 2, "steps": 3},
        {"target": TARGET, "depth": COUNT, "steps": NATURAL},
    ),
    Function(
        "theory.number_of_paths",
        theory.number_of_paths,
        lambda: {"steps": 2, "layers": 2},
        {"steps": NATURAL, "layers": NATURAL},
    ),
    Function(
        "theory.coherent_bound",
        theory.coherent_bound,
        lambda: {"rho_time": 0.5, "rho_depth": 0.5, "steps": 2, "layers": 2},
        {
            "rho_time": Sort((0, 0.5), (-1, _NAN, _INF, True, *_NO_NUMBERS), (1e300,)),
            "rho_depth": Sort((0, 0.5), (-1, _NAN, _INF, True, *_NO_NUMBERS), (1e300,)),
            "steps": NATURAL,
            "layers": NATURAL,
        },
    ),
    Function(
        "theory.propagate",
        theory.propagate,
        lambda: {"time_factors": [0.5, 0.5], "depth_factors": [0.0, 0.5], "steps": 3},
        {
            "time_factors": Sort(((1, 2),), (None, 3, "x", [], [_NAN, 1], ["a", "b"], [1], print)),
            "depth_factors": Sort(
                ((0, 1),), (None, 3, "x", [], [0, _NAN], ["a", "b"], [1], [1, 2, 3], print)
            ),
            "steps": COUNT,
        },
    ),
    Function(
        "theory.energy_summed_over_time",
        theory.energy_summed_over_time,
        lambda: {"rho_time": 0.5, "rho_depth": 0.5, "layers_below_top": 2},
        {
            "rho_time": Sort((0, 0.9), (-1, 1, _NAN, _INF, True, *_NO_NUMBERS)),
            "rho_depth": Sort((0, 2.0), (-1, _NAN, _INF, True, *_NO_NUMBERS), (1e300,)),
            "layers_below_top": NATURAL,
        },
    ),
    Function(
        "theory.far_corner_radius",
        theory.far_corner_radius,
        lambda: {"steps": 3, "layers": 2},
        {"steps": Sort((2, 9), COUNT.wrong), "layers": Sort((2, 9), COUNT.wrong)},
    ),
    Function(
        "plot.radii",
        plot.radii,
        lambda: {"before": _report()},
        {
            "before": Sort((), (None, 1, "x", [], {}, print)),
            "after": Sort((None,), (1, "x", [], print)),
            "target": Sort((None, 0.5, "variance"), _but_none(TARGET.wrong)),
            "labels": Sort((("a", "b"),), (None, 1, ("a",), (1, 2, 3))),
            "kinds": Sort((("time",),), (None, 1, "time", (1,), ("x",), ())),
        },
    ),
    Function(
        "plot.gradient_grids",
        plot.gradient_grids,
        lambda: {"grids": np.ones((5, 2))},
        {
            "grids": Sort(
                ({"a": np.ones((5, 2))}, [[1.0, 0.5]]),
                *((None, 1, "x", [], {}, {"a": None}, [1.0], [[1], [1, 2]], [["a"]], print),),
            )
        },
    ),
    Function(
        "plot.energies",
        plot.energies,
        lambda: {"reports": {"a": _report()}},
        {"reports": Sort((), (None, 1, "x", [], {}, {"a": None}, {"a": 1}, {"a": []}, print))},
    ),
    Function(
        "plot.eigenvalues",
        plot.eigenvalues,
        lambda: {"before": _spectrum()},
        {
            "before": Sort((), (None, 1, "x", [], {}, print)),
            "after": Sort((None,), (1, "x", [], print)),
            "target": Sort((None, 0.5), _but_none(POSITIVE.wrong)),
            "labels": Sort((("a", "b"),), (None, 1, ("a",), (1, 2, 3))),
        },
    ),
    Function(
        "plot.backends",
        plot.backends,
        dict,
        {"comparison": Sort((), (None, 1, "x", [], {}, print))},
    ),
    Function(
        "plot.spike_raster",
        plot.spike_raster,
        lambda: {"spikes": np.eye(4)},
        {
            "spikes": Sort(
                (),
                (
                    None,
                    "x",
                    3,
                    [],
                    print,
                    {},
                    np.eye(4) / 2,
                    np.zeros((2, 2, 2, 2)),
                    np.eye(3) + _NAN,
                ),
            )
        },
    ),
    Function(
        "plot.learning_curves",
        plot.learning_curves,
        lambda: {"histories": {"a": [{"val_accuracy": [0.1, 0.2]}]}},
        {
            "histories": Sort(
                (),
                (
                    *(None, 1, "x", [], {"a": []}, {"a": [1]}, {"a": [{}]}, {"a": None}),
                    *({"a": [{"val_accuracy": value}]} for value in (None, 1, "x", ["a"], [[1]])),
                ),
            ),
            "metric": TEXT,
            "first_epoch": Sort((0, 1), (None, "x", 2.5, [], True, _NAN)),
            "connected": FLAG,
        },
    ),
)


@dataclass(frozen=True, repr=False)
class Call:
    """A call with a strange argument.

    Attributes:
        function: that is called.
        argument: that is strange.
        value: of it.
        verdict: "right" where it has to be taken, "wrong" where refused, else "unclear".
    """

    function: Function
    argument: str
    value: Any
    verdict: str

    @property
    def label(self) -> str:
        """The function and its argument, by which failures are grouped."""
        return f"{self.function.name}({self.argument}=)"

    def __repr__(self) -> str:
        return f"{self.function.name}({self.argument}={self.value!r:.200}), {self.verdict}"


def _draw(random: np.random.Generator) -> Call:
    function = FUNCTIONS[int(random.integers(len(FUNCTIONS)))]
    argument = str(random.choice(list(function.sorts)))
    sort = function.sorts[argument]
    sort = sort() if callable(sort) else sort
    values = [
        *(("wrong", value) for value in sort.wrong),
        *(("unclear", value) for value in sort.unclear),
        *(("right", value) for value in sort.right),
    ]
    verdict, value = values[int(random.integers(len(values)))]
    return Call(function, argument, value, verdict)


def _attempt(given: Call, folder: Path) -> str:
    del folder
    keywords = {**given.function.given(), given.argument: given.value}
    try:
        given.function.call(**keywords)
    except (ValueError, TypeError) as error:
        if given.verdict == "right":
            raise WrongAnswerError(f"a value of use was refused: {error}") from error
        raise
    if given.verdict == "wrong":
        raise WrongAnswerError("a value of no use was taken")
    return RIGHT


def _documented(given: Call) -> tuple[type[Exception], ...]:
    return (ValueError, *given.function.documented)


# Where a value is taken, `stabilize` compiles, trains and measures twice.
ARGUMENTS = Kind("arguments", 150, _draw, _attempt, _documented, on_every_backend=True, seconds=60)
