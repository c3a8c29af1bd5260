"""A process that tries inputs and tells of each; `run` starts it anew where one kills it."""

import json
import os
import sys
import tempfile
from pathlib import Path

from fuzz.attempt import attempt, limit_memory, silence

_SECONDS_TO_WARM_UP = 150


def main() -> None:
    """Tries the inputs of the jobs in the first argument, a line of JSON for each."""
    task = json.loads(sys.argv[1])
    # Imported here: it takes seconds, which are not the first input's.
    from fuzz.targets import KINDS

    output = silence()
    if sys.platform == "linux":
        limit_memory()
    with tempfile.TemporaryDirectory() as root:
        for name, start, stop in task["jobs"]:
            # What is imported and compiled only once is not the first input's either.
            attempt(KINDS[name], task["seed"], start, Path(root), _SECONDS_TO_WARM_UP)
            for index in range(start, stop):
                result = attempt(KINDS[name], task["seed"], index, Path(root))
                os.write(output, json.dumps(result.to_dict()).encode() + b"\n")


if __name__ == "__main__":
    main()
