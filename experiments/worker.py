"""A worker of the runner: settings of one network in, as JSON; one line a run out."""

from __future__ import annotations

import json
import os
import sys

from experiments.settings import Setting


def main() -> None:
    """Makes the runs whose settings stand on the standard input."""
    settings = [Setting.from_dict(values) for values in json.load(sys.stdin)]
    # Whatever a library prints goes to the log, not between the rows.
    rows = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from experiments.runs import Workplace

    for row in Workplace(settings[0]).runs(settings):
        rows.write(json.dumps(row, allow_nan=False) + "\n")
        rows.flush()


if __name__ == "__main__":
    main()
