"""What a browser makes of a report: run with a Python that has playwright (`make .venv-browser`):

    .venv-browser/bin/python tests/reporting/browser.py REPORT FOLDER

It opens the page as readers do, clicks what there is to click, reads what comes of it, and prints all that as JSON; its
screenshots are in FOLDER. What must be so is asserted by tests/reporting/test_browser.py.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOOKS = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "narrow": {"viewport": {"width": 420, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "print": {"viewport": {"width": 1280, "height": 900}},
}
PATIENCE_MS = 120_000
"""For what a browser is asked: other work on the machine may hold it up."""
OPENED = 3
"""So many times, of which the quickest counts: other work on the machine only adds."""
PROBLEMS = Path(__file__).with_name("problems.js").read_text(encoding="utf-8")
CHART = """element => ({ traces: element.data.map(trace => ({ meta: trace.meta ?? null, name: trace.name ?? null,
  x: [...(trace.x ?? [])], y: [...(trace.y ?? [])], members: [...(trace.customdata ?? [])] })) })"""
LONELIEST = """element => {
  const { xaxis, yaxis } = element._fullLayout, { left, top } = element.getBoundingClientRect();
  const places = element.data.filter(trace => trace.meta === "members").flatMap(trace => trace.x.map((x, i) =>
    [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(trace.y[i]), trace.customdata[i]]));
  const apart = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]);
  const far = one => Math.min(...places.filter(other => other !== one).map(other => apart(one, other)));
  return places.reduce((best, one) => far(one) > far(best) ? one : best);
}"""
"""The point that is furthest from others, and so can be clicked: where it is, and whose it is."""


class Reader:
    """A page that is open, and what went wrong on it."""

    def __init__(self, browser: Browser, report: Path, look: str) -> None:
        self.page: Page = browser.new_page(**LOOKS[look], accept_downloads=True)
        self.page.set_default_timeout(PATIENCE_MS)
        self.wrong: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)
        session = self.page.context.new_cdp_session(self.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        start = time.monotonic()
        self.page.goto(report.absolute().as_uri())
        self.page.wait_for_function("document.documentElement.dataset.ready")
        self.ready_ms = int(self.page.evaluate("document.documentElement.dataset.ready"))
        spent = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        self.busy_ms = round(1000 * spent["TaskDuration"])
        self.page.wait_for_selector(".js-plotly-plot .scatterlayer", state="attached")
        self.drawn_ms = round(1000 * (time.monotonic() - start))
        if look == "print":
            self.page.emulate_media(media="print")
            self.page.wait_for_timeout(500)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(f"asked for {request.url}")

    def scroll(self) -> None:
        """Past everything, so that all is drawn."""
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for place in range(0, height, 600):
            self.page.evaluate(f"window.scrollTo(0, {place})")
            self.page.wait_for_timeout(90)
        self.page.evaluate("window.scrollTo(0, 0)")

    def chart(self, selector: str) -> list[dict[str, Any]]:
        """The traces of the first such chart."""
        element = self.page.locator(selector).first
        element.scroll_into_view_if_needed()
        self.page.wait_for_timeout(250)
        return element.evaluate(CHART)["traces"]

    def members(self, selector: str = ".chart.frontier") -> dict[str, list[float]]:
        """Each member's place in a chart of marks."""
        traces = [trace for trace in self.chart(selector) if trace["meta"] == "members"]
        return {member: [x, y] for t in traces for member, x, y in zip(t["members"], t["x"], t["y"], strict=True)}

    def saved(self, selector: str, folder: Path) -> str:
        """The file that a button gives, in `folder`."""
        with self.page.expect_download() as download:
            self.page.locator(selector).first.click()
        name = download.value.suggested_filename
        download.value.save_as(folder / name)
        return name

    def state(self) -> dict[str, Any]:
        """How many members each place shows."""
        curves = self.chart(".chart[data-curve=l0]")
        return {
            "said": self.page.locator(".filters output").inner_text(),
            "rows": self.page.locator("section.table tbody tr:visible").count(),
            "points": sorted(self.members()),
            "curves": len(curves),
            "cells": self.page.locator("section.cell:visible").count(),
        }


def looks(browser: Browser, report: Path, folder: Path) -> dict[str, Any]:
    """How it fits each screen and paper."""
    found = {}
    for look in LOOKS:
        reader = Reader(browser, report, look)
        reader.scroll()
        reader.page.wait_for_timeout(300)
        found[look] = {"problems": reader.page.evaluate(PROBLEMS), "wrong": reader.wrong}
        reader.page.screenshot(path=folder / f"{look}.png", full_page=True)
        reader.page.close()
    return found


def filters(reader: Reader) -> dict[str, Any]:
    """One architecture left out, then one alone, then all again."""
    page, found = reader.page, {"all": reader.state()}
    seeds = page.locator(".seeds")
    if seeds.count():
        seeds.first.uncheck()
        found["all"] = reader.state()
    page.locator(".filters details[data-axis=architecture] summary").click()
    boxes = page.locator(".filters details[data-axis=architecture] input")
    found["first"] = json.loads(boxes.first.get_attribute("data-value") or "")
    boxes.first.uncheck()
    found["without"] = reader.state()
    page.evaluate("window.scrollTo(0, 0)")  # the menu is still open
    page.locator(".filters details[data-axis=architecture] .values > div > button").first.click()
    found["alone"] = reader.state()
    page.locator(".filters > button.every").click()
    found["again"] = reader.state()
    return found


def layers(reader: Reader) -> dict[str, Any]:
    """The overview where there are several layers, and one of them alone."""
    page = reader.page
    if not page.locator(".chart.overview").count():
        return {}
    level = page.locator(".layers .level").input_value()
    found: dict[str, Any] = {"level": int(level), "lines": reader.chart(".chart.overview")}
    page.evaluate("window.scrollTo(0, 0)")
    page.locator(".filters details[data-axis=layer] summary").click()
    page.locator(".filters details[data-axis=layer] .values > div > button").first.click()
    found["alone"] = reader.state()
    page.locator(".filters > button.every").click()
    return found


def matched(reader: Reader) -> list[list[str]]:
    """The rows of the first table at matched L0."""
    rows = reader.page.locator("table.matched").first.locator("tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def axis(reader: Reader) -> dict[str, Any]:
    """The y axis switched to KL, and the colour to each other axis."""
    page = reader.page
    page.locator(".measure").first.select_option("kl")
    page.wait_for_timeout(200)
    traces = reader.chart(".chart.frontier")
    found: dict[str, Any] = {"members": reader.members(), "title": page.locator("h3 .shown").first.inner_text()}
    found["rings"] = next([t["x"], t["y"]] for t in traces if t["meta"] == "rings")
    colour, found["colours"] = page.locator(".colour").first, {}
    for option in colour.locator("option").all():
        value = option.get_attribute("value") or ""
        colour.select_option(value)
        page.wait_for_timeout(120)
        names = [t["name"] for t in reader.chart(".chart.frontier") if t["meta"] == "members"]
        found["colours"][value] = names
    colour.select_option("architecture")
    page.locator(".measure").first.select_option(index=0)
    return found


def member(reader: Reader) -> dict[str, Any]:
    """A member's page, by its name in the table and by its point in the chart."""
    page = reader.page
    button = page.locator("section.table tbody th button").first
    found: dict[str, Any] = {"asked": button.inner_text()}
    button.click()
    dialog = page.locator("dialog.member")
    page.wait_for_timeout(300)
    found |= {"text": dialog.inner_text(), "latents": dialog.locator("details.latent").count(), "hash": page.url}
    if dialog.locator(".chart.density").count():
        found["density"] = sum(dialog.locator(".chart.density").evaluate(CHART)["traces"][0]["y"])
    found["problems"] = page.evaluate(PROBLEMS.replace("main *", "dialog *").replace(", dialog", ""))
    page.keyboard.press("Escape")
    found["closed"] = not dialog.is_visible()
    reader.members()
    place = page.locator(".chart.frontier").first.evaluate(LONELIEST)
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(place[0], place[1])
    page.wait_for_timeout(200)
    page.mouse.click(place[0], place[1])
    page.wait_for_timeout(300)
    found |= {"clicked": place[2], "opened": dialog.locator("h2").inner_text() if dialog.is_visible() else None}
    page.keyboard.press("Escape")
    return found


def exports(reader: Reader, folder: Path) -> dict[str, str]:
    """Every kind of file that a button gives, by its kind."""
    return {
        "csv": reader.saved("[data-save=csv]", folder),
        "latex": reader.saved("[data-save=latex]", folder),
        "svg": reader.saved("section.cell [data-save=svg]", folder),
        "png": reader.saved("section.cell [data-save=png]", folder),
    }


def columns(reader: Reader) -> list[str]:
    """The heads that are left once one column more is left out."""
    page = reader.page
    page.locator("details.columns summary").click()
    page.locator("details.columns input[data-column=kl]").uncheck()
    page.locator("details.columns summary").click()
    return [head.inner_text() for head in page.locator("section.table thead th:visible").all()]


def main(report: Path, folder: Path) -> dict[str, Any]:
    """All of it."""
    installed = next((place for name in BROWSERS if (place := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        readers = [Reader(browser, report, "wide") for _ in range(OPENED)]
        reader = readers[-1]
        times = {name: min(getattr(one, name) for one in readers) for name in ("busy_ms", "ready_ms", "drawn_ms")}
        found: dict[str, Any] = {**times, "browser": browser.version}
        found["filters"] = filters(reader)
        found |= {"layers": layers(reader), "matched": matched(reader)}
        found |= {"axis": axis(reader), "member": member(reader), "exports": exports(reader, folder)}
        figures = [reader.chart(f".chart.analysis[data-index='{index}']") for index in (0, 1)]
        found["figures"] = [[trace["name"] for trace in traces] for traces in figures]
        found["keys"] = reader.page.locator("section.analysis .key").all_inner_texts()
        labels = "element => element.layout.yaxis.ticktext"
        found["labels"] = reader.page.locator(".chart.analysis[data-index='0']").evaluate(labels)
        found |= {"columns": columns(reader), "wrong": reader.wrong}
        found["looks"] = looks(browser, report, folder)
        browser.close()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
