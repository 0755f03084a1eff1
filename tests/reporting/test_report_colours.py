"""Colours of the page and its figures, light, dark and printed: all that meet have the contrast WCAG AA asks for."""

from __future__ import annotations

import re

import pytest

from hpcrnn.reporting.figures import canvas
from hpcrnn.reporting.figures.save import DARK, DARK_PLATE
from hpcrnn.reporting.figures.timelines import KIND_COLORS
from hpcrnn.reporting.report.paper import INK, SOFT, TINT, TONES
from hpcrnn.reporting.report.sections import resource

TEXT, GRAPHICS = 4.5, 3.0
"""Least contrast of text, and of what must be told from its ground (WCAG 1.4.3 and 1.4.11)."""


def contrast(one, other):
    """Return the contrast ratio of two colours, WCAG's definition."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def palettes():
    """Return what each name of a colour is in the light, in the dark and on paper."""
    blocks = re.findall(r":root \{(.*?)\}", resource("report.css"), flags=re.DOTALL)
    found = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", block)) for block in blocks]
    assert len(found) == 3
    assert found[0].keys() == found[1].keys() == found[2].keys()
    return dict(zip(("light", "dark", "print"), found, strict=True))


def test_the_ratio_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_words_of_the_page_can_be_read(scheme):
    p = palettes()[scheme]
    pairs = [(word, "ground") for word in ("ink", "soft", "link", "good", "bad", "mixed")]
    pairs += [(word, "tint") for word in ("ink", "soft", "link", "good", "bad", "mixed")]
    pairs += [(word, f"{tone}-tint") for tone in ("good", "bad", "mixed") for word in ("ink", tone, "link")]
    low = {pair: contrast(p[pair[0]], p[pair[1]]) for pair in pairs if contrast(p[pair[0]], p[pair[1]]) < TEXT}
    assert low == {}
    assert contrast(p["edge"], p["ground"]) >= GRAPHICS


def test_words_of_figures_can_be_read_in_both():
    assert palettes()["dark"]["plate"] == DARK_PLATE
    for colour in (canvas.GREY, "#3c4043", "#202124", canvas.BLACK):
        assert contrast(colour, "#ffffff") >= TEXT
        assert contrast(DARK[colour], DARK_PLATE) >= TEXT


def test_names_inside_bars_can_be_read_in_both():
    for kind, colour in KIND_COLORS.items():
        light, dark = ("#ffffff", DARK_PLATE) if kind == "forward" else (canvas.ON_COLOUR, canvas.ON_COLOUR)
        assert contrast(light, colour) >= TEXT
        assert contrast(dark, DARK[colour]) >= TEXT


def test_lines_and_bars_stand_out_in_the_dark_and_differ_as_they_do_in_the_light():
    styles = [style[0] for style in canvas.SERIES_STYLES]
    assert all(contrast(DARK[colour], DARK_PLATE) >= GRAPHICS for colour in styles)
    phases = {colour for colour, _ in (*canvas.PHASE_STYLES.values(), *canvas.MORE_PHASE_STYLES)}
    assert phases <= DARK.keys()
    assert len({DARK[colour] for colour in (*styles, *phases)}) == len({*styles, *phases})


def test_words_on_paper_can_be_read():
    def named(colour):
        return "#{:02x}{:02x}{:02x}".format(*colour)

    for words in (INK, SOFT):
        assert contrast(named(words), "#ffffff") >= TEXT
        assert contrast(named(words), named(TINT)) >= TEXT
    for words, ground in TONES.values():
        assert contrast(named(words), named(ground)) >= TEXT
        assert contrast(named(INK), named(ground)) >= TEXT
