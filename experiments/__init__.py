"""The paper's experiments re-run, and this project's own: settings, runner, results, report."""
