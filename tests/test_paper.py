"""The paper: what it cites and shows is there, and its figures are those of the tables."""

import re

import pytest
from harness import ROOT

PAPER = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
HEAD, BODY = PAPER.split("---\n", 2)[1:]
EVIDENCE = BODY.split("# Evidence\n")[1].split("\n# ")[0]
RESULTS = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.once


def test_every_citation_is_in_the_bibliography():
    name = re.search(r"^bibliography: (.+)$", HEAD, re.MULTILINE)
    known = (ROOT / "paper" / name[1]).read_text(encoding="utf-8")
    cited = set(re.findall(r"@(\w+)", BODY))
    assert len(cited) > 10
    assert cited <= set(re.findall(r"^@\w+\{(\w+),", known, re.MULTILINE))


def test_every_picture_is_there_and_spoken_of():
    pictures = re.findall(r"!\[[^]]*\\label\{(.+?)\}\]\((.+?)\)", BODY)
    assert pictures
    for label, path in pictures:
        assert (ROOT / "paper" / path).is_file()
        assert f"\\autoref{{{label}}}" in BODY


def test_it_is_as_long_as_such_papers_are():
    assert 750 < len(BODY.split()) < 1750


def test_its_figures_are_those_of_the_report():
    short = RESULTS.split("## In short")[1].split("\n## ")[0]
    figures = re.findall(r"\d+\.\d+", EVIDENCE)
    assert len(figures) > 8
    for figure in figures:
        assert figure in short, figure
    clear = re.search(
        r"better than the default\none on (\d+) of (\d+) networks, clearly worse on (\d+), "
        r"and neither on (\d+)",
        EVIDENCE,
    )
    said = "on {} of {} networks, clearly worse on {}, and neither on {}".format(*clear.groups())
    assert said in short.replace("\n", " ")


def test_its_count_of_trials_is_that_of_the_table():
    table = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    tried, *_, wrong = re.search(
        r"^\| all \|  \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", table, re.M
    ).groups()
    assert wrong == "0"
    assert f"Of {int(tried):,} such trials none" in BODY
