"""Opens every page of the built site in Chromium and tries what a reader does.

    python docs/check_site.py [--pictures FOLDER]

Checked are: every internal link and its anchor, the console, whether anything is asked of another
server, the width of every page on a telephone and on a desk, the search, and the table of the zoo.
"""

import argparse
import contextlib
import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

SITE = Path(__file__).parents[1] / "build" / "site"
WIDTHS = {"telephone": (390, 844), "desk": (1440, 900)}
# Of these pages pictures are taken.
SHOWN = (
    "",
    "quickstart/",
    "method/",
    "method/pretraining/",
    "guides/troubleshooting/",
    "zoo/",
    "zoo/cards/lstm_smnist_d2_rhovar/",
    "experiments/RESULTS/",
    "reference/",
    "datasets/",
)
# Cards are made alike, and of so many one is opened.
_CARDS = 20
QUERIES = {
    "certificate": "guides/zoo/",
    "merge_mode": "guides/troubleshooting/",
    "far_corner_radius": "reference/theory/",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder on a free port of this computer; yields its address."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def main() -> None:
    """Checks the site; exits with what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="folder for pictures of some pages")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not installed; install it, or name it in CHROMIUM.")
    if not (SITE / "index.html").is_file():
        sys.exit(f"There is no site in {SITE}; build it: make docs")
    with served(SITE) as root, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        problems = Site(browser, root).check()
        if options.pictures:
            take_pictures(browser, root, options.pictures)
        browser.close()
    if problems:
        sys.exit("\n".join(problems))


class Site:
    """A served site in a browser.

    Args:
        browser: Browser of playwright.
        root: Address of the first page.
    """

    def __init__(self, browser: Browser, root: str):
        self._browser = browser
        self._root = root
        self._problems: list[str] = []
        self._links: dict[str, set[str]] = {}
        self._anchors: dict[str, set[str]] = {}

    def check(self) -> list[str]:
        """Returns what is wrong, a line each."""
        pages = sorted(path.parent.relative_to(SITE) for path in SITE.rglob("index.html"))
        cards = [page for page in pages if page.is_relative_to("zoo/cards")]
        pages = sorted({*pages} - {*cards} | {*cards[::_CARDS]})
        addresses = [self._root + ("" if str(p) == "." else f"{p.as_posix()}/") for p in pages]
        for name, (width, height) in WIDTHS.items():
            page = self._new_page(width, height)
            for address in addresses:
                self._visit(page, address, name)
            page.close()
        self._check_links()
        page = self._new_page(*WIDTHS["desk"])
        self._check_search(page)
        self._check_zoo(page)
        page.close()
        links = sum(map(len, self._links.values()))
        print(f"{len(addresses)} pages, {links} links, {len(self._problems)} problems")
        return self._problems

    def _new_page(self, width: int, height: int) -> Page:
        page = self._browser.new_page(viewport={"width": width, "height": height})
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._problems.append(f"{page.url}: {error}"))
        page.on("request", lambda request: self._note_request(page, request.url))
        page.on(
            "requestfailed",
            lambda request: (
                self._problems.append(f"{page.url}: {request.url} failed, {request.failure}")
                # What a reader leaves behind by going on.
                if "ERR_ABORTED" not in (request.failure or "")
                else None
            ),
        )
        return page

    def _hear(self, message: object) -> None:
        if message.type in ("error", "warning"):  # type: ignore[attr-defined]
            self._problems.append(f"console: {message.text}")  # type: ignore[attr-defined]

    def _note_request(self, page: Page, address: str) -> None:
        if not address.startswith((self._root, "data:", "blob:")):
            self._problems.append(f"{page.url} asks another server: {address}")

    def _visit(self, page: Page, address: str, name: str) -> None:
        response = page.goto(address, wait_until="load")
        if response is None or not response.ok:
            self._problems.append(f"{address} cannot be opened")
            return
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            self._problems.append(f"{address} is {wide} pixels too wide on a {name}")
        broken = page.evaluate(
            "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        )
        self._problems.extend(f"{address} has no picture {source}" for source in broken)
        if address in self._links:
            return
        hrefs = page.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))")
        self._links[address] = {urljoin(address, href) for href in hrefs}
        ids = page.eval_on_selector_all("[id]", "all => all.map(a => a.id)")
        self._anchors[address] = set(ids)

    def _check_links(self) -> None:
        for address, links in self._links.items():
            for link in sorted(links):
                target, anchor = urldefrag(link)
                if not target.startswith(self._root):
                    if urlsplit(target).scheme not in ("http", "https", "mailto"):
                        self._problems.append(f"{address} has the odd link {link}")
                    continue
                file = SITE / urlsplit(target).path.lstrip("/")
                if not (file / "index.html").is_file() and not file.is_file():
                    self._problems.append(f"{address} leads to {link}, which does not exist")
                elif anchor and anchor not in self._anchors.get(target, {anchor}):
                    self._problems.append(f"{address} leads to {link}, which has no such place")

    def _check_search(self, page: Page) -> None:
        for query, wanted in QUERIES.items():
            page.goto(self._root)
            box = page.locator("input.md-search__input")
            box.click()
            box.press_sequentially(query)
            results = page.locator("a.md-search-result__link")
            results.first.wait_for(state="attached", timeout=60_000)
            found = results.evaluate_all("all => all.map(a => a.getAttribute('href'))")
            if not any(wanted in href for href in found):
                self._problems.append(f"the search for {query!r} does not find {wanted}: {found}")

    def _check_zoo(self, page: Page) -> None:
        page.goto(f"{self._root}zoo/")
        rows = page.locator("#zoo-table tbody tr:visible")
        count = rows.count()
        page.locator("#zoo-table th button:text-is('weights')").click()
        column = page.eval_on_selector_all(
            "#zoo-table tbody tr", "all => all.map(row => Number(row.cells[9].dataset.value))"
        )
        if column != sorted(column) or len(set(column)) < 2:
            self._problems.append("the zoo is not sorted by the number of weights")
        page.locator("#zoo-table th button:text-is('weights')").click()
        column = page.eval_on_selector_all(
            "#zoo-table tbody tr", "all => all.map(row => Number(row.cells[9].dataset.value))"
        )
        if column != sorted(column, reverse=True):
            self._problems.append("the zoo is not sorted downwards by the number of weights")
        page.get_by_label("cell", exact=True).select_option("lstm")
        page.get_by_label("Part of a name").fill("smnist_d2")
        names = rows.locator("a").all_inner_texts()
        if not 0 < len(names) < count or any("lstm_smnist_d2" not in name for name in names):
            self._problems.append(f"the zoo is not filtered: {names}")
        rows.first.locator("button").click()
        picture = page.locator("tr.zoo-picture img")
        picture.wait_for()
        page.wait_for_function("document.querySelector('tr.zoo-picture img').naturalWidth > 0")


def take_pictures(browser: Browser, root: str, folder: Path) -> None:
    """Writes a picture of each of `SHOWN` at both widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height) in WIDTHS.items():
        page = browser.new_page(viewport={"width": width, "height": height})
        for address in SHOWN:
            page.goto(root + address)
            title = address.strip("/").replace("/", "_") or "index"
            page.screenshot(path=folder / f"{title}_{name}.png")
        page.close()


if __name__ == "__main__":
    main()
