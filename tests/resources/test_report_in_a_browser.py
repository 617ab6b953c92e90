"""The report in a browser: nothing overflows, overlaps, is too faint or complains; on wide, narrow pages and paper."""

from __future__ import annotations

import itertools
import shutil

import pytest
from run_folders import HOSTILE, write_run

from tinynet.resources import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
MEDIA = [(1280, "light", "screen"), (1280, "dark", "screen"), (390, "light", "screen"), (390, "dark", "screen"),
         (820, "light", "screen"), (688, "light", "print")]  # fmt: skip

# What is wrong with the page, in words. Pixels of tolerance: edges are rounded.
FAULTS = """() => {
  const faults = [], root = document.documentElement;
  const say = (what, e) => faults.push(`${what}: ${e.tagName} ${(e.textContent || '').trim().slice(0, 60)}`);
  const seen = e => e.getClientRects().length > 0 && e.getBoundingClientRect().width > 0;
  const overlap = (a, b) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  if (root.scrollWidth > root.clientWidth) faults.push(`page ${root.scrollWidth} wide in ${root.clientWidth}`);
  for (const e of document.querySelectorAll('body *:not(svg):not(svg *)'))
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) say('overflows', e);
  for (const e of document.querySelectorAll('th, td, dd, p, figcaption, a, h1, h2'))
    if (seen(e) && (e.getBoundingClientRect().right > root.clientWidth || e.getBoundingClientRect().left < 0))
      say('beyond the page', e);
  const pictures = [...document.querySelectorAll('svg')];
  for (const e of document.querySelectorAll('.map')) pictures.push(...e.shadowRoot.querySelectorAll('svg'));
  let drawn = 0;
  for (const svg of pictures) {
    const box = svg.getBoundingClientRect();
    if (!svg.getClientRects().length) continue;
    drawn++;
    if (box.width < 100 || box.height < 100) say('too small', svg);
    const texts = [...svg.querySelectorAll('text')].filter(e => e.textContent);
    for (const e of texts) {
      const t = e.getBoundingClientRect();
      if (t.left < box.left - 1 || t.right > box.right + 1 || t.top < box.top - 1 || t.bottom > box.bottom + 1)
        say('outside of its picture', e);
    }
    const straight = texts.filter(e => !e.hasAttribute('transform'));
    for (let i = 0; i < straight.length; i++) for (let j = 0; j < i; j++)
      if (overlap(straight[i].getBoundingClientRect(), straight[j].getBoundingClientRect()))
        say(`over ${straight[j].textContent}`, straight[i]);
  }
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = parts(color).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const words = 'p, th, td, dt, dd, small, figcaption, span.unit, a, h1, h2, caption, footer, svg text, b';
  for (const e of document.querySelectorAll(words)) {
    const style = getComputedStyle(e), ink = light(e.closest('svg') ? style.fill : style.color);
    if ((Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) < 4.5) say('too faint', e);
  }
  return {faults, drawn, figures: document.querySelectorAll('figure').length,
          scripts: document.querySelectorAll('script, img, iframe, link').length};
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of a browser with a profile of its own, and what it has complained of."""
    with playwright.sync_playwright() as browsers:
        context = browsers.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, headless=True, args=FLAGS
        )
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.complaints.append(request.url) if request.url[:5] != "file:" else None)
        yield page
        context.close()


def folders(kind, where):
    if kind == "one run":
        return [write_run(where / "run")]
    if kind == "two runs":
        return [write_run(where / "a"), write_run(where / "b", epochs=20, batch=64, speed=0.45, provenance="measured")]
    if kind == "hostile":
        return [write_run(where / "run", text=HOSTILE)]
    if kind == "a single epoch":
        return [write_run(where / "run", epochs=1)]
    return [write_run(where / "run", without=("plan.json", "instructions.json", "monitor.jsonl", "decisions.jsonl"))]


@pytest.mark.parametrize("kind", ["one run", "two runs", "hostile", "a single epoch", "little"])
def test_the_page_has_no_fault(page, tmp_path, kind):
    written = write_report(*folders(kind, tmp_path), path=tmp_path / "report.html")
    before = len(page.complaints)
    page.goto(f"file://{written}")
    for width, scheme, media in MEDIA:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme, media=media)
        found = page.evaluate(FAULTS)
        assert found["faults"] == [], (width, scheme, media)
        assert found["drawn"] == found["figures"] >= 3, "each figure shows one picture"
        assert found["scripts"] == 0
    assert page.complaints[before:] == []


def test_light_and_dark_and_paper_differ(page, tmp_path):
    page.goto(f"file://{write_report(write_run(tmp_path / 'run'))}")
    papers = {}
    for scheme, media in itertools.product(("light", "dark"), ("screen", "print")):
        page.emulate_media(color_scheme=scheme, media=media)
        papers[scheme, media] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert papers["light", "screen"] == papers["light", "print"] == papers["dark", "print"] != papers["dark", "screen"]
