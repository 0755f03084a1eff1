"""report.html in a real browser: quiet, alone, at every width, by keyboard, without script, in the dark, printed.

Needs the ``browser`` extra and a Chromium of the system; skipped, with the reason, where one is missing, but not where
``HPCRNN_BROWSER=required`` is set.
"""

from __future__ import annotations

import io
import os
import shutil

import pypdf
import pytest
from factory import make_case, make_record, many_cases, quick_cases, strategy_cases, time_parallel_cases

from hpcrnn.reporting.report.write import write_report

pytestmark = pytest.mark.timeout(300)  # a browser starts, and three reports are drawn

WIDTHS = (360, 768, 1280, 1920)
REPORTS = ("one", "forty", "all")
REQUIRED = os.environ.get("HPCRNN_BROWSER") == "required"


def _need(found, what):
    if found:
        return found
    if REQUIRED:
        pytest.fail(f"{what} is missing, and HPCRNN_BROWSER says it is required")
    return pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="module")
def browser():
    program = _need(shutil.which("chromium") or shutil.which("google-chrome"), "Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _need(None, "playwright (pip install 'hpcrnn[browser]')")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=60_000)
        yield started
        started.close()


@pytest.fixture(scope="module")
def reports(browser, tmp_path_factory):
    """Reports of one case, of forty, and with every section and verdict."""
    del browser  # drawn only where they are looked at
    out = tmp_path_factory.mktemp("browser")
    every = [
        *quick_cases(),
        make_case(1, 64, 0.52, backend="torch", hidden=512),
        make_case(4, 64, 0.12, hidden=512, valid=False),
        *time_parallel_cases(),
        *strategy_cases((2,)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcrnn.reporting.figures.canvas.PNG_DPI", 40)
        write_report([make_record([make_case(1, n=20)])], out / "one")
        write_report([make_record(many_cases())], out / "forty")
        write_report([make_record(every)], out / "all")
    return out


@pytest.fixture(params=REPORTS)
def report(request, reports):
    return (reports / request.param / "report.html").as_uri()


@pytest.fixture
def visit(browser):
    """Open a page in a context of its own; afterwards no message, no error and no request may have been seen."""
    contexts, seen = [], []

    def open_page(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda r: seen.append(r.url) if r.url != address and not r.url.startswith("data:") else None)
        page.goto(address)
        page.wait_for_load_state("load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways_and_every_picture_is_drawn(visit, report, scheme):
    page = visit(report, color_scheme=scheme)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # What is wider than the page stands in a box that scrolls.
        assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0


OVERFLOWING = """() => [...document.querySelectorAll('main *, header *, nav *')]
    .filter(e => !e.closest('.scroll, .sheet, .unseen') && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"""


def test_every_link_of_the_contents_reaches_its_section(visit, report):
    page = visit(report, reduced_motion="reduce", viewport={"width": 1400, "height": 800})
    links = page.locator("nav a")
    assert links.count() == page.locator("main h2").count()
    for index in range(links.count()):
        link = links.nth(index)
        link.click()
        heading = page.locator(link.get_attribute("href"))
        assert heading.text_content() == link.text_content()
        assert heading.evaluate(
            "e => e.getBoundingClientRect().top >= 0 && e.getBoundingClientRect().top < innerHeight"
        )
        # On a wide page the contents stay in sight.
        assert link.evaluate("e => e.getBoundingClientRect().top >= 0")


def test_the_keyboard_reaches_all_there_is_and_shows_where_it_is(visit, report):
    page = visit(report)
    wanted = page.evaluate(f"document.querySelectorAll('{FOCUSABLE}').length")
    stops = []
    for _ in range(wanted + 3):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None or stop in stops:
            break
        stops.append(stop)
    assert len(stops) == wanted
    assert stops[0][1] == "Skip to the results"
    assert all(style != "none" and width >= 2 for _, _, style, width in stops)
    assert page.evaluate("document.querySelectorAll('.scroll').length") == sum(
        kind == "DIV" for kind, *_ in _scrolls(page)
    )


FOCUSABLE = "a[href], button, summary, [tabindex=\\'0\\']"
FOCUS = """() => { const e = document.activeElement; if (!e || e === document.body) return null;
    const all = [...document.querySelectorAll('a[href], button, summary, [tabindex]')];
    const s = getComputedStyle(e);
    return [all.indexOf(e), e.textContent.trim().slice(0, 60), s.outlineStyle, parseFloat(s.outlineWidth)]; }"""


def _scrolls(page):
    return page.evaluate("[...document.querySelectorAll('.scroll[tabindex=\"0\"][role=group]')].map(e => [e.tagName])")


def test_skipping_goes_to_the_results(visit, reports):
    page = visit((reports / "all" / "report.html").as_uri())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_it_is_whole_without_script(visit, report):
    texts = []
    for allowed in (True, False):
        page = visit(report, java_script_enabled=allowed)
        texts.append(page.locator("main").inner_text().replace("Copy\n", ""))
        assert (page.locator("button").count() > 0) is allowed
    assert texts[0].split() == texts[1].split()


def test_a_table_is_sorted_by_a_column_and_says_so(visit, reports):
    page = visit((reports / "forty" / "report.html").as_uri())
    table = page.locator("table", has=page.locator("caption", has_text="Step times")).first
    heading = table.locator("th", has_text="Median step")
    index = heading.evaluate("e => e.cellIndex")

    def column():
        return table.evaluate(f"t => [...t.tBodies[0].rows].map(r => r.cells[{index}].textContent)")

    before = column()
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(before, key=_seconds)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [_seconds(text) for text in column()] == sorted(map(_seconds, before), reverse=True)


def _seconds(text):
    number, unit = text.split()
    return float(number) * {"µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def test_a_command_is_copied(visit, reports):
    page = visit((reports / "one" / "report.html").as_uri(), permissions=["clipboard-read", "clipboard-write"])
    page.locator(".command button").first.click()
    page.wait_for_function("document.querySelector('.command button').textContent !== 'Copy'")
    if page.locator(".command button").first.text_content() == "Copied":
        copied = page.evaluate("navigator.clipboard.readText()")
    else:
        copied = page.evaluate("getSelection().toString()")
    assert copied == "mpirun -n 1 hpcrnn run --hidden 512 --workload stdlib"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_rule_of_wcag_is_broken(visit, reports, scheme, width):
    try:
        import axe_playwright_python.base as axe
    except ImportError:
        _need(None, "axe-playwright-python (pip install 'hpcrnn[browser]')")
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    page = visit((reports / "all" / "report.html").as_uri(), **options)
    page.evaluate(axe.AXE_SCRIPT)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run(document, {runOnly: tags})", tags)
    assert len(found["passes"]) > 20
    problems = [(v["id"], v["help"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found["violations"]]
    assert problems == []


def test_figures_are_dark_in_the_dark_and_light_in_print(visit, reports):
    address = (reports / "one" / "report.html").as_uri()
    corner = {}
    for scheme in ("light", "dark"):
        page = visit(address, color_scheme=scheme)
        corner[scheme] = _pixel(page.locator("figure img").first.screenshot())
    assert corner == {"light": (255, 255, 255), "dark": (27, 30, 35)}
    page = visit(address, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="light")
    assert _pixel(page.locator("figure img").first.screenshot()) == (255, 255, 255)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def _pixel(data):
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB").getpixel((3, 3))


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_print_cuts_nothing(visit, reports, paper):
    page = visit((reports / "all" / "report.html").as_uri(), color_scheme="dark")
    page.emulate_media(media="print")
    wide = {"A4": 680, "Letter": 702}[paper]  # CSS pixels between margins of 15 mm
    page.set_viewport_size({"width": wide, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= wide
    cut = "[...document.querySelectorAll('.scroll, .sheet')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    high = page.evaluate("Math.max(...[...document.querySelectorAll('figure')].map(e => e.offsetHeight))")
    assert high < 940
    texts = page.evaluate("[...document.querySelectorAll('main h2')].map(e => e.textContent)")
    printed = pypdf.PdfReader(io.BytesIO(page.pdf(format=paper, print_background=True)))
    text = "".join("".join(sheet.extract_text().split()) for sheet in printed.pages)
    assert all("".join(title.split()) in text for title in texts)
    assert "Skip to the results" not in text
