"""What the site has besides the pages of `docs`: pages of the repository, and the table of the zoo.

Links in a page are those of the repository, so that they work on GitHub too. Here they are turned
into links of the site where it has the page, and to GitHub where it does not.
"""

import html
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/keras-lsc/keras-lsc"
# Pages and pictures from outside of `docs`, under the same names.
MIRRORED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/RESULTS.md",
    "experiments/*.md",
    "experiments/figures/*.png",
    "zoo/cards/*.md",
    "zoo/cards/*.png",
)
# Long tables of figures, which would bury everything else that is searched for.
_NOT_SEARCHED = ("zoo/cards/", "experiments/DETAILS.md")
_TABLE = "<!-- zoo:table -->"
_LINK = re.compile(r"(\]\()([^)\s]+)((?:\s+\"[^\"]*\")?\))")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and pictures from outside of `docs`."""
    for pattern in MIRRORED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turns links of the repository into links of the site, and fills in the table of the zoo."""
    here = page.file.src_uri
    if here.startswith(_NOT_SEARCHED):
        page.meta["search"] = {"exclude": True}
    folder = Path(page.file.abs_src_path).parent
    # What stands in a block of code is no link.
    parts = _FENCE.split(markdown)
    for index in range(0, len(parts), 2):
        parts[index] = _LINK.sub(
            lambda found: found[1] + link(found[2], here, folder, files) + found[3], parts[index]
        )
    return "".join(parts).replace(_TABLE, zoo_table() if _TABLE in markdown else "")


def link(target: str, here: str, folder: Path, files: Files) -> str:
    """The address in the site of what a page of the repository names.

    Args:
        target: Address as the page has it.
        here: Name of the page in the site.
        folder: Folder of the page in the repository.
        files: Files of the site.

    Returns:
        An address relative to the page, or one on GitHub, or `target` itself, which the build then
        checks.
    """
    path, hash_sign, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return target
    found = Path(os.path.normpath(folder / path))
    if not found.exists() or not found.is_relative_to(ROOT):
        return target
    name = found.relative_to(ROOT).as_posix()
    in_site = name.removeprefix("docs/")
    if files.get_file_from_path(in_site) is not None:
        return posixpath.relpath(in_site, posixpath.dirname(here)) + hash_sign + anchor
    return f"{REPOSITORY}/{'tree' if found.is_dir() else 'blob'}/main/{name}"


def zoo_table() -> str:
    """The checkpoints of `zoo/index.json` as a table, which `assets/zoo.js` sorts and filters."""
    index = json.loads((ROOT / "zoo" / "index.json").read_text(encoding="utf-8"))
    rows = [_zoo_row(name, entry) for name, entry in sorted(index.items(), key=_natural)]
    heads = (
        ("name", "text"),
        ("cell", "text"),
        ("data", "text"),
        ("layers", "number"),
        ("units", "number"),
        ("target", "text"),
        ("radii at first", "number"),
        ("radii", "number"),
        ("off", "number"),
        ("weights", "number"),
        ("kB", "number"),
        ("trained", "number"),
        ("twin", "number"),
    )
    head = "".join(f'<th scope="col" data-kind="{kind}">{title}</th>' for title, kind in heads)
    return (
        '<div id="zoo-controls" hidden></div>\n'
        '<div class="zoo-frame"><table id="zoo-table">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(filter(None, rows))}</tbody>\n"
        "</table></div>\n"
    )


def _natural(item: tuple[str, Any]) -> list[Any]:
    parts = re.split(r"(\d+)", item[0])
    return [int(part) if part.isdigit() else part for part in parts]


def _zoo_row(name: str, entry: dict[str, Any]) -> str:
    certificate = entry["certificate"]
    recipe = certificate["recipe"]
    if recipe["hidden"]:
        return ""
    cells = [
        f'<td><a href="cards/{name}/" data-picture="cards/{name}.png">{html.escape(name)}</a></td>'
    ]
    target = recipe["target"]
    if recipe.get("method") == "level":
        target = "level" if recipe["growth"] == 1.0 else f"level, growth {recipe['growth']}"
    for text in (recipe["cell"], recipe["dataset"]):
        cells.append(f"<td>{html.escape(text)}</td>")
    for number in (recipe["depth"], recipe["units"]):
        cells.append(f'<td data-value="{number}">{number}</td>')
    cells.append(f"<td>{html.escape(str(target))}</td>")
    for which in ("initial", "stabilized"):
        radii = [
            row["radius"] for row in certificate[which]["transitions"] if row["kind"] != "input"
        ]
        low, high = min(radii), max(radii)
        cells.append(f'<td data-value="{high}">{low:.2f} to {high:.2f}</td>')
    deviation, size = certificate["deviation"], entry["bytes"] / 1e3
    cells.append(f'<td data-value="{deviation}">{deviation:.3f}</td>')
    cells.append(f'<td data-value="{entry["parameters"]}">{entry["parameters"]:,}</td>')
    cells.append(f'<td data-value="{size}">{size:.1f}</td>')
    cells += _scores(entry.get("trained"))
    return f"<tr>{''.join(cells)}</tr>\n"


def _scores(made: dict[str, Any] | None) -> list[str]:
    """What the trained weights score, and their twin on the mean: an accuracy in percent."""
    if made is None:
        # To be sorted before all that have some.
        return 2 * ['<td data-value="-1"></td>']
    is_accuracy = made["metric"] == "accuracy"
    values = made["test"], sum(made["twin"]) / len(made["twin"])
    title = made["metric"].replace("_", " ")
    texts = (f"{100 * value:.1f} %" if is_accuracy else f"{value:.3g}" for value in values)
    return [
        f'<td data-value="{value}" title="{title}">{text}</td>'
        for value, text in zip(values, texts, strict=True)
    ]
