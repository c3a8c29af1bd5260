"""What a new user does first, with the installed package and without a network.

    python -I release/trials.py README.md

Prints one line of JSON: what it ran with, and what came of it.
"""

import json
import platform
import re
import socket
import sys
from pathlib import Path


def no_network(*arguments: object, **options: object) -> None:
    """Stands for a computer without one."""
    raise OSError(f"no network in this trial: {arguments[1:]} {options}")


socket.socket.connect = no_network  # type: ignore[assignment, method-assign]

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_lsc  # noqa: E402


def main() -> None:
    """Lists, loads, verifies, measures, levels, diagnoses, and runs the code of the README."""
    readme = Path(sys.argv[1]).read_text(encoding="utf-8")
    here = Path(keras_lsc.__file__)
    assert "site-packages" in here.parts, f"{here} is no installed package"
    names = keras_lsc.zoo.list()
    loaded = keras_lsc.zoo.load("lstm_smnist_d2_rho1", num_classes=10)
    verified = keras_lsc.zoo.list("test_*", hidden=True)[:2]
    for name in verified:
        result = keras_lsc.zoo.verify(name)
        assert result.passed, str(result)
    x, _ = keras_lsc.datasets.load("digits")
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            *(keras.layers.GRU(16, return_sequences=True) for _ in range(3)),
            keras.layers.GRU(16),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    radii = keras_lsc.measure(model, x, samples=8).time
    keras_lsc.stabilize(model, x, method="level", verbose=0)
    diagnosis = keras_lsc.diagnose(model, x)
    scope: dict[str, object] = {"__name__": "__main__"}
    for block in re.findall(r"^```python\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), scope)
    trained = scope["model"]
    found = {
        "backend": keras.backend.backend(),
        "keras": keras.version(),
        "python": platform.python_version(),
        "keras_lsc": keras_lsc.__version__,
        "listed": len(names),
        "loaded": loaded.count_params(),
        "verified": len(verified),
        "measured": round(float(np.mean(radii)), 3),
        "diagnosed": str(diagnosis).splitlines()[0],
        "README": round(float(trained.evaluate(scope["x"], scope["y"], verbose=0)[1]), 3),  # type: ignore[attr-defined]
    }
    assert found["README"] > 0.8, found
    print(json.dumps(found))


if __name__ == "__main__":
    main()
