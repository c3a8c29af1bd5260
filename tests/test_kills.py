"""A small part of the kill suite: whenever a process is killed, what it leaves is whole."""

import json
import os
import subprocess
import sys

import pytest
from harness import ROOT

KILLS = 20


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this operating system")
def test_killed_processes_leave_nothing_half_done(tmp_path):
    output = tmp_path / "kills.json"
    run = subprocess.run(
        [sys.executable, "fuzz/kills.py", "--kills", str(KILLS), "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(output.read_text())
    assert sum(row["right"] for row in found.values()) == KILLS
    assert set(found) == {"save", "download", "collect", "build", "resume"}
