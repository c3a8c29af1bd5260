"""Checkpoints go to the hub with their cards, and come back: against a stand-in of the hub."""

import json

import hub
import keras
import pytest
from harness import run_python

from keras_lsc import zoo

TINY = "test_gru_parity_d2_rhovar"

# No backend changes what is sent. The library reads its settings when it is imported.
pytestmark = pytest.mark.once(on="jax")
_PUSH = """
import json, os, sys
os.environ["HF_ENDPOINT"] = sys.argv[1]
os.environ["HF_TOKEN"] = sys.argv[2]
os.environ["HF_HOME"] = sys.argv[3]
os.environ["HF_HUB_DISABLE_XET"] = "1"
import keras, numpy as np
import keras_lsc
from keras_lsc import zoo

try:
    pushed = zoo.push(sys.argv[4], "hf://me/net", weights=sys.argv[5])
except zoo.PushError as error:
    sys.exit(f"PushError: {error}")
model = zoo.load(pushed.address, sha256=pushed.sha256, cache_dir=sys.argv[3])
try:
    zoo.load(pushed.address, sha256="0" * 64, cache_dir=sys.argv[3])
except zoo.DamagedCheckpointError:
    weights = [float(np.abs(w).sum()) for w in model.get_weights()]
    print(json.dumps([pushed.address, pushed.sha256, weights]))
"""


def pushed(server, name, folder, token="secret", weights="stabilized"):
    arguments = (server.address, token, folder / "home", name, weights)
    printed = run_python(_PUSH, *map(str, arguments), backend=keras.backend.backend())
    return json.loads(printed.strip().splitlines()[-1])


def test_a_checkpoint_of_the_zoo_comes_back(tmp_path):
    with hub.serving() as server:
        address, digest, weights = pushed(server, TINY, tmp_path)
        assert address == f"hf://me/net@{hub.OID}/{TINY}.keras"
        assert set(server.files) == {f"{TINY}.keras", "README.md", "radii.png"}
        page = server.files["README.md"].decode()
    expected = [float(abs(w).sum()) for w in zoo.load(TINY).get_weights()]
    assert weights == pytest.approx(expected, rel=1e-6)
    # The hub reads what stands between the first two lines of dashes.
    _, matter, text = page.split("---\n", 2)
    assert "library_name: keras\nlicense: apache-2.0\n" in matter
    assert "- gru\n" in matter
    assert f"hf://me/net@REVISION/{TINY}.keras" in text
    assert "](radii.png)" in text
    assert len(digest) == 64
    # The score of weights that are elsewhere is none of this model's.
    assert "model-index" not in matter


def test_trained_weights_come_back_with_their_score(tmp_path):
    with hub.serving() as server:
        _, _, weights = pushed(server, TINY, tmp_path, weights="trained")
        matter = server.files["README.md"].decode().split("---\n", 2)[1]
    expected = [float(abs(w).sum()) for w in zoo.load(TINY, weights="trained").get_weights()]
    assert weights == pytest.approx(expected, rel=1e-6)
    score = zoo.info(TINY).trained.test
    assert f"metrics:\n    - type: accuracy\n      value: {score:.6g}\n" in matter


@pytest.mark.parametrize("name", ["a_folder/", "test_sigmoid_parity_d2_rhovar"])
def test_what_has_no_trained_weights_is_not_pushed_as_such(name):
    with pytest.raises(zoo.UntrainedCheckpointError, match=name):
        zoo.push(name, "hf://me/net", weights="trained")


def test_a_model_of_ones_own_comes_back(tmp_path):
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.GRU(3)])
    zoo.save(model, tmp_path / "mine")
    with hub.serving() as server:
        address, _, weights = pushed(server, str(tmp_path / "mine"), tmp_path)
        assert address.endswith("/model.keras")
        assert set(server.files) == {"model.keras", "README.md"}
        assert "Nothing was measured of it." in server.files["README.md"].decode()
    assert weights == pytest.approx([float(abs(w).sum()) for w in model.get_weights()], rel=1e-6)


def test_a_hub_that_refuses_is_told_of(tmp_path):
    with hub.serving() as server, pytest.raises(AssertionError, match=r"PushError.*me/net"):
        pushed(server, TINY, tmp_path, token="other")
    assert server.files == {}


def test_a_hub_that_is_not_there_is_told_of(tmp_path):
    with hub.serving() as server:
        pass
    with pytest.raises(AssertionError, match=r"PushError.*me/net"):
        pushed(server, TINY, tmp_path)


@pytest.mark.parametrize("to", ["me", "https://huggingface.co/me/net", "hf://me/net@main", ""])
def test_a_place_that_is_no_repository_is_refused(to):
    with pytest.raises(ValueError, match="to "):
        zoo.push(TINY, to)
