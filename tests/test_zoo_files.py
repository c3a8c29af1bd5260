"""Files of any origin: what is wrong with one is one error, found before it costs anything."""

import io
import json
import struct
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from harness import exported
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lsc import files, zoo
from keras_lsc.zoo import guard
from keras_lsc.zoo.keras_file import KerasFile, read_model

FOLDER = Path(__file__).parents[1] / "zoo"
TINY = exported("test_sigmoid_parity_d2_rhovar")
Damaged = zoo.DamagedCheckpointError


def parts_of(path=TINY):
    with zipfile.ZipFile(path) as old:
        return {name: old.read(name) for name in old.namelist()}


def written(path, changes=(), method=zipfile.ZIP_DEFLATED):
    """The tiny checkpoint with parts changed, added, or left out where they are None."""
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in (parts_of() | dict(changes)).items():
            if content is not None:
                new.writestr(name, content)
    return path


def with_config(path, change):
    config = json.loads(parts_of()["config.json"])
    change(config)
    return written(path, {"config.json": json.dumps(config)})


def layer(config, index=1):
    return config["config"]["layers"][index]["config"]


def weights(change):
    content = io.BytesIO(parts_of()["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        change(file)
    return content.getvalue()


# Bits


@pytest.mark.once
def test_a_flipped_bit_is_damage_or_changes_nothing(tmp_path):
    """200 bits of 33,000, and every one of the ends of the file, where its table is."""
    content, sound = TINY.read_bytes(), read_model(TINY)
    certificate = KerasFile.read(TINY).certificate()
    drawn = np.random.default_rng(0).choice(8 * len(content), 150, replace=False)
    ends = 8 * len(content) - 1 - np.arange(0, 8 * 100, 8)
    path = tmp_path / "x.keras"
    for bit in [*drawn, *ends]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        try:
            loaded, read = read_model(path), KerasFile.read(path).certificate()
        except Damaged:
            continue
        assert read == certificate
        assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in sound.layers]
        for one, other in zip(loaded.get_weights(), sound.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.once
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_changes_raise_nothing_else(tmp_path_factory, data):
    content = bytearray(TINY.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        size = data.draw(st.integers(0, 64))
        content[at : at + size] = data.draw(st.binary(max_size=64))
    path = tmp_path_factory.mktemp("changed") / "x.keras"
    path.write_bytes(content)
    for read in (KerasFile.model, KerasFile.certificate, KerasFile.configuration):
        try:
            read(KerasFile.read(path))
        except Damaged as error:
            assert "x.keras" in str(error)  # noqa: PT017


# Archives


def bomb(size):
    return {"assets/zeros": bytes(size)}


BAD_ARCHIVES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>"),
    "cut": lambda path: path.write_bytes(TINY.read_bytes()[:-100]),
    "unpacks to 200 times": lambda path: written(path, bomb(100_000_000)),
    "no configuration": lambda path: written(path, {"config.json": None}),
    "no metadata": lambda path: written(path, {"metadata.json": None}),
    "no weights": lambda path: written(path, {"model.weights.h5": None}),
    "empty weights": lambda path: written(path, {"model.weights.h5": b""}),
    "cut weights": lambda path: written(
        path, {"model.weights.h5": parts_of()["model.weights.h5"][:2000]}
    ),
    "absolute": lambda path: written(path, {"/etc/x": b"1"}),
    "outside": lambda path: written(path, {"assets/../../x": b"1"}),
    "backslashes": lambda path: written(path, {"assets\\..\\x": b"1"}),
    "drive": lambda path: written(path, {"C:/x": b"1"}),
    "unexpected": lambda path: written(path, {"code.py": b"1"}),
    "many": lambda path: written(path, {f"assets/{k}": b"" for k in range(2000)}),
    "bzip2": lambda path: written(path, method=zipfile.ZIP_BZIP2),
    "lzma": lambda path: written(path, method=zipfile.ZIP_LZMA),
    "a list": lambda path: written(path, {"config.json": "[1, 2]"}),
    "nested": lambda path: written(path, {"config.json": '{"a":' * 5000 + "1" + "}" * 5000}),
    "nested lists": lambda path: written(path, {"config.json": "[" * 100_000}),
    "nested within what can be read": lambda path: written(
        path, {"config.json": '{"a":' * 400 + "1" + "}" * 400}
    ),
    "no UTF-8": lambda path: written(path, {"config.json": b'{"a": "\xff"}'}),
    "digits": lambda path: written(path, {"config.json": '{"a": ' + "9" * 9999 + "}"}),
    "metadata of no object": lambda path: written(path, {"metadata.json": "[]"}),
}


@pytest.mark.once
@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_what_is_no_checkpoint_is_refused(kind, tmp_path):
    path = tmp_path / "bad.keras"
    BAD_ARCHIVES[kind](path)
    with pytest.raises(Damaged, match=r"bad\.keras") as raised:
        zoo.load(str(path))
    assert len(str(raised.value)) < 1000
    assert "\n" not in str(raised.value)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_parts_of_one_name_are_refused(tmp_path):
    path = written(tmp_path / "bad.keras")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(Damaged, match=r"two parts 'config\.json'"):
        zoo.load(str(path))


@pytest.mark.once
def test_encrypted_parts_are_refused(tmp_path):
    content = bytearray(written(tmp_path / "bad.keras").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    (tmp_path / "bad.keras").write_bytes(content)
    with pytest.raises(Damaged, match="encrypted"):
        zoo.load(str(tmp_path / "bad.keras"))


@pytest.mark.once
def test_a_size_is_declared_and_refused_without_being_unpacked(tmp_path, monkeypatch):
    """Two gigabytes in a file of two megabytes; none of it is read, so none need be there."""
    path = written(tmp_path / "bomb.keras", {"assets/zeros": bytes(2_000_000)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    at = content.rfind(b"assets/zeros") - 46
    content[at + 24 : at + 28] = struct.pack("<I", 2_000_000_000)
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"unpack to 2,000,.*KERAS_LSC_MAX_BYTES"):
        zoo.load(str(path))


@pytest.mark.once
def test_a_file_larger_than_it_may_be_is_refused_without_being_read(tmp_path):
    """A hundred gigabytes that no disk holds: the file is a hole."""
    path = tmp_path / "hole.keras"
    with path.open("wb") as file:
        file.truncate(10**11)
    with pytest.raises(Damaged, match=r"hole\.keras .* 100,000,000,000 bytes"):
        read_model(path)


@pytest.mark.once
def test_what_is_checked_is_what_is_loaded(tmp_path):
    path = tmp_path / "x.keras"
    path.write_bytes(TINY.read_bytes())
    file = KerasFile.read(path)
    path.write_bytes(b"another")
    assert file.checked(files.sha256(TINY)).model().count_params() == 234
    assert file.certificate() is not None
    with pytest.raises(Damaged, match="sha256"):
        KerasFile.read(path).checked(file.sha256)


@pytest.mark.once
def test_the_former_name_of_the_module_works_and_warns():
    with pytest.warns(DeprecationWarning, match=r"zoo\.keras_file"):
        from keras_lsc.zoo.archive import read_model as former
    assert former is read_model


@pytest.mark.once
def test_limits_can_be_raised_and_lowered(tmp_path, monkeypatch):
    x = keras.Sequential([keras.Input((4, 1000)), keras.layers.GRU(8)])
    zoo.save(x, tmp_path / "own")
    path = tmp_path / "own" / "model.keras"
    assert read_model(path).count_params() == x.count_params()
    with pytest.raises(Damaged, match="more than the 1,000"):
        read_model(path, max_bytes=1000)
    monkeypatch.setenv(guard.LIMIT_VARIABLE, "1000")
    with pytest.raises(Damaged, match="more than the 1,000"):
        zoo.load(str(path))
    monkeypatch.setenv(guard.LIMIT_VARIABLE, "2 GB")
    with pytest.raises(ValueError, match="KERAS_LSC_MAX_BYTES must be a positive number"):
        zoo.load(str(path))


@pytest.mark.once
def test_constant_weights_of_ones_own_are_saved_so_that_they_load(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "_HARMLESS", 100_000)
    dense = keras.layers.Dense(300, kernel_initializer="zeros")
    path = zoo.save(keras.Sequential([keras.Input((300,)), dense]), tmp_path / "zeros")
    assert zoo.load(str(path)).count_params() == 300 * 301


# Configurations


BUILT_IN_CODE = [
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"},
    {"module": "builtins", "class_name": "eval", "config": {}, "registered_name": "eval"},
    {"module": "keras.utils", "class_name": "function", "config": "get_file"},
    {"module": "keras.utils", "class_name": "get_file", "config": {}},
    {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
    {"module": "keras.saving", "class_name": "function", "config": "load_model"},
    {"module": "keras.models", "class_name": "load_model", "config": {}},
    {"module": "keras", "class_name": "version", "config": {}},
    {"module": "keras.src.utils.file_utils", "class_name": "function", "config": "get_file"},
    {"module": "numpy", "class_name": "function", "config": "tanh", "registered_name": "tanh"},
    {"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}},
    {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    {"module": 5, "class_name": "function", "config": "tanh"},
    {"module": "keras.layers", "class_name": ["Dense"], "config": {}},
]


@pytest.mark.once
@pytest.mark.parametrize("given", BUILT_IN_CODE, ids=lambda given: str(given.get("config")))
def test_an_activation_that_is_none_is_refused(given, tmp_path):
    path = with_config(tmp_path / "bad.keras", lambda c: layer(c).update(activation=given))
    with pytest.raises(Damaged, match=r"bad\.keras"):
        zoo.load(str(path))
    with pytest.raises(Damaged, match=r"bad\.keras"):
        KerasFile.read(path).configuration()


@pytest.mark.once
@pytest.mark.parametrize("name", ["Lambda", "TFSMLayer", "TorchModuleWrapper"])
def test_layers_with_code_of_their_own_are_refused(name, tmp_path):
    path = with_config(
        tmp_path / "bad.keras", lambda c: c["config"]["layers"][1].update(class_name=name)
    )
    with pytest.raises(Damaged, match=name):
        zoo.load(str(path))


SIZES = {
    "units": lambda c: layer(c).update(units=10**9),
    "beyond any integer": lambda c: layer(c).update(units=10**30),
    "all layers": lambda c: [layer(c, k).update(units=10**6) for k in (1, 2)],
    "other units": lambda c: layer(c).update(units=9),
    "negative": lambda c: layer(c).update(units=-8),
    "a text": lambda c: layer(c).update(units="8"),
    "no layers": lambda c: c["config"].update(layers=[]),
    "layers of no list": lambda c: c["config"].update(layers=5),
    "unknown class": lambda c: c["config"]["layers"][1].update(class_name="Nothing"),
    "an unknown argument": lambda c: layer(c).update(colour="blue"),
    "no model": lambda c: (c.clear(), c.update(class_name="__numpy__", config={"value": [1]})),
    "a layer": lambda c: c.update(c["config"]["layers"][-1]),
    "an activation of no name": lambda c: layer(c).update(activation="system"),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_configuration_that_does_not_fit_is_refused(kind, tmp_path):
    path = with_config(tmp_path / "bad.keras", SIZES[kind])
    with pytest.raises(Damaged, match=r"bad\.keras"):
        zoo.load(str(path))


def huge(file):
    del file["layers/dense/vars/0"]
    file.create_dataset("layers/dense/vars/0", (10**6, 10**6), "float32", chunks=(1000, 1000))


def external(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink("/tmp/other.h5", "/x")


def outside(file):
    del file["layers/dense/vars/0"]
    file.create_dataset("layers/dense/vars/0", (8, 2), "float32", external=[("/etc/passwd", 0, 64)])


def absent(file):
    del file["layers/dense/vars/0"]


def other_shape(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = np.ones((3, 2), "float32")


@pytest.mark.once
@pytest.mark.parametrize("change", [huge, external, outside, absent, other_shape])
def test_weights_that_do_not_fit_are_refused(change, tmp_path):
    path = written(tmp_path / "bad.keras", {"model.weights.h5": weights(change)})
    with pytest.raises(Damaged, match=r"bad\.keras"):
        zoo.load(str(path))


# Models of one's own


class Doubling(keras.layers.Layer):
    """Not registered, and with a value that its constructor makes."""

    def __init__(self, factor=2.0, **options):
        super().__init__(**options)
        self.factor = keras.Variable(np.float32(factor), trainable=False, name="factor")

    def call(self, x):
        return x * self.factor


def test_a_class_that_is_not_registered_is_named_and_can_be_given(tmp_path):
    x = np.ones((2, 3), "float32")
    model = keras.Sequential([keras.Input((3,)), Doubling(), keras.layers.Dense(2)])
    path = str(zoo.save(model, tmp_path / "own"))
    with pytest.raises(Damaged, match=r"'Doubling' of .*register_keras_serializable"):
        zoo.load(path)
    with keras.saving.custom_object_scope({"Doubling": Doubling}):
        loaded = zoo.load(path)
    one, other = (keras.ops.convert_to_numpy(part(x)) for part in (loaded, model))
    np.testing.assert_array_equal(one, other)


def test_functional_and_nested_models_of_ones_own_load(tmp_path):
    rng = np.random.default_rng(0)
    inputs = keras.Input((5, 3))
    inner = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, return_sequences=True)])
    inner.compile("adam", "mse")
    hidden = keras.layers.Bidirectional(keras.layers.GRU(4, activation=keras.ops.sin))(
        inner(inputs)
    )
    hidden = keras.layers.Dropout(0.1)(hidden) + keras.layers.BatchNormalization()(hidden)
    outputs = keras.layers.Dense(2, activation=keras.layers.LeakyReLU())(hidden)
    model = keras.Model(inputs, keras.layers.PReLU()(keras.ops.tanh(outputs)))
    loaded = zoo.load(str(zoo.save(model, tmp_path / "own")))
    x = rng.standard_normal((2, 5, 3)).astype("float32")
    one, other = (keras.ops.convert_to_numpy(part(x)) for part in (model, loaded))
    np.testing.assert_allclose(one, other, atol=1e-6)


# Saving


@pytest.mark.once
def test_a_folder_whose_save_was_cut_off_has_one_state(tmp_path):
    """Every state in which a killed process can leave the folder, made by hand."""

    def network(units):
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units)])

    folder = zoo.save(network(2), tmp_path / "own")
    other = zoo.save(network(5), tmp_path / "other")
    (folder / ".saving-left").mkdir()
    (folder / ".saving-left" / "saved.keras").write_bytes(b"half")
    assert zoo.load(str(folder)).output_shape == (None, 2)
    (folder / "certificate.json").unlink()
    assert zoo.load(str(folder)).output_shape == (None, 2)
    (folder / "model.keras").write_bytes((other / "model.keras").read_bytes())
    assert zoo.load(str(folder)).output_shape == (None, 5)
    zoo.save(network(3), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["certificate.json", "model.keras"]
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate.pop("sha256") == files.sha256(folder / "model.keras")
    assert certificate == KerasFile.read(folder / "model.keras").certificate()


@pytest.mark.once
def test_a_model_that_is_not_that_of_its_certificate_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    folder = zoo.save(model, tmp_path / "own")
    model.save(folder / "model.keras")
    with pytest.raises(Damaged, match="sha256"):
        zoo.load(str(folder))
    (folder / "certificate.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no certificate\.json"):
        zoo.load(str(folder))


@pytest.mark.once
def test_a_certificate_of_the_former_form_is_read(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    folder = zoo.save(model, tmp_path / "own")
    path = folder / "certificate.json"
    path.write_text(json.dumps({"sha256": files.sha256(folder / "model.keras"), "report": None}))
    assert zoo.load(str(folder)).output_shape == (None, 2)


@pytest.mark.once
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 5}', "[" * 9000, "\x00", '"x"'])
def test_a_certificate_that_is_none_is_named(text, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    folder = zoo.save(model, tmp_path / "own")
    (folder / "certificate.json").write_text(text)
    with pytest.raises(Damaged, match=r"certificate\.json"):
        zoo.load(str(folder))


@pytest.mark.once
def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    folder = zoo.save(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "own"
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(TypeError, match="report must be"):
        zoo.save(model, folder, {"radius": 1})
    with pytest.raises(TypeError, match=r"model must be a keras\.Model"):
        zoo.save("model", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# Arguments


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": True},
        {"num_classes": 2.5},
        {"num_classes": 1},
        {"num_classes": "3"},
        {"input_shape": 5},
        {"input_shape": "x"},
        {"input_shape": (-12, 1)},
        {"input_shape": (12.0, 1)},
        {"dtype": "nope"},
        {"dtype": 32},
        {"dtype": "int32"},
        {"dtype": ""},
        {"weights": "best"},
        {"weights": None},
        {"sha256": "abc"},
        {"sha256": 5},
        {"cache_dir": 5},
        {"cache_dir": ""},
    ],
    ids=str,
)
def test_load_refuses_what_is_of_no_use(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        zoo.load("test_sigmoid_parity_d2_rhovar", **options)


@pytest.mark.once
def test_names_patterns_and_filters_are_checked():
    for name in (None, 5, "", b"x", ["x"]):
        with pytest.raises(ValueError, match="name must be a string"):
            zoo.load(name)
        with pytest.raises(ValueError, match="name must be a string"):
            zoo.info(name)
    for pattern in (None, 5, ""):
        with pytest.raises(ValueError, match="pattern must be a string"):
            zoo.list(pattern)
    for folder in ("", "\0", 1, [], b"x"):
        with pytest.raises(ValueError, match="data_dir must be the path of a folder"):
            zoo.verify("test_gru_parity_d2_rhovar", data_dir=folder)
        with pytest.raises(ValueError, match="cache_dir must be a folder"):
            zoo.load("test_gru_parity_d2_rhovar", cache_dir=folder)
        with pytest.raises(ValueError, match=r"folder must be a string|null"):
            zoo.save(keras.Sequential([keras.Input((2,))]), folder)
    for hidden in (None, 1, "yes"):
        with pytest.raises(ValueError, match="hidden must be True or False"):
            zoo.list(hidden=hidden)
    with pytest.raises(TypeError, match="no 'to_dict' to select by"):
        zoo.list(to_dict=1)
    expected = zoo.list(units=64, dataset="smnist")
    assert expected
    assert zoo.list(units=np.int64(64), dataset=np.str_("smnist")) == expected
    assert zoo.list(depth=True) == zoo.list(seed=False) == []
    assert zoo.list(units=[64]) == []
    assert zoo.load(TINY).count_params() == 234
