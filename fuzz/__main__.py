"""The command line of the fuzzing: see the package."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from fuzz.attempt import attempt
from fuzz.run import Tally, run
from fuzz.targets import KINDS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def main() -> None:
    """Tries inputs, prints a table, and ends with 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, help="inputs altogether; default: of a whole run")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs")
    parser.add_argument(
        "--kinds",
        help=f"of {','.join(KINDS)}; default: all of the backend. Those of the stored run, of the "
        "same seed, are then replaced",
    )
    parser.add_argument("--replay", metavar="KIND:INDEX", help="one input, with its traceback")
    parser.add_argument("--output", type=Path, help="JSON; default: benchmarks/results")
    options = parser.parse_args()
    backend = os.environ.get("KERAS_BACKEND", "jax")
    if options.replay:
        name, _, index = options.replay.partition(":")
        with tempfile.TemporaryDirectory() as root:
            result = attempt(KINDS[name], options.seed, int(index), Path(root))
        sys.exit("\n".join([result.outcome, result.given, result.problem]) if result.problem else 0)
    names = options.kinds.split(",") if options.kinds else list(KINDS)
    if not options.kinds and backend != "jax":
        # The parsers are the same code on every backend.
        names = [name for name in names if KINDS[name].on_every_backend]
    whole = 10 * sum(KINDS[name].count for name in names)
    share = (options.count or whole) / whole
    jobs = [(name, 0, max(1, round(10 * KINDS[name].count * share))) for name in names]
    tally = Tally(options.seed)
    run(jobs, options.seed, tally.add)
    print(tally.table())
    found = tally.to_dict(backend)
    default = RESULTS / f"fuzz_{backend}.json"
    if options.kinds and not options.output and default.exists():
        stored = json.loads(default.read_text())
        if stored["seed"] == options.seed:
            found["kinds"] = stored["kinds"] | found["kinds"]
            found["seconds"] += stored["seconds"]
    output = options.output or (default if share == 1 else None)
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
