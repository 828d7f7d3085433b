"""Nothing on any page is cut off or clipped: measured in a real browser at both widths, light and dark."""

from typing import Final

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.browser

WIDTHS: Final = (1280, 1440)
TALL: Final = 3000
PAGES: Final = ("", "what_if", "capacity", "mechanisms", "step", "calibration", "validation")
WIDE: Final = (
    "?cs=chat&cs=context/v3.2-128k&cs=overload",
    "what_if?r=1000&o=12345&i=100000&pw=100&dw=1000&base=r:0.01;o:1",
    "what_if?g=gb200_nvl72&k=joint&t=own%20price&s=1.05&v=0.25&u=12.75",
    "what_if?o=abc&g=nowhere&base=q:1",
    "step?sb=512&sc=131072&ss=context/v3.2-128k",
)
"""Long names, large numbers and messages; looked at in the light only, since colours change no size."""
CUT: Final = """
() => {
  const cut = [];
  const seen = e => {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    return box.width > 1 && box.height > 1 && style.visibility !== "hidden" && style.opacity !== "0";
  };
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg, canvas") || !seen(e)) continue;
    const words = (e.tagName === "INPUT" ? e.value : e.innerText || "").trim();
    if (!words) continue;
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    const hides = ["INPUT", "TD", "TH"].includes(e.tagName) || /(long|whole)-table/.test(e.className)
      || style.textOverflow === "ellipsis" || ["hidden", "clip"].includes(style.overflowX);
    const wide = hides && style.display !== "inline" && e.scrollWidth > e.clientWidth + 1;
    const beyond = box.right > innerWidth + 1 || box.left < -1;
    if (wide || beyond) cut.push(`${e.tagName} ${e.dataset.testid || ""}: ${words.slice(0, 60)}`);
  }
  for (const e of document.querySelectorAll("svg.main-svg text")) {
    const box = e.getBoundingClientRect(), frame = e.closest("svg").getBoundingClientRect();
    if (box.width && (box.left < frame.left - 1 || box.right > frame.right + 1)) cut.push(`chart: ${e.textContent}`);
  }
  return cut;
}
"""
"""What a reader cannot see whole: words wider than a box that hides the rest, beyond the window, or beyond a chart."""


def test_the_measure_finds_what_is_cut(chromium) -> None:
    page = chromium.new_page()
    page.set_content(
        "<div style='width:50px;overflow:hidden;white-space:nowrap'>a long line of words</div>"
        "<table style='table-layout:fixed;width:60px'><tr><td>0.0281234567</td></tr></table>"
        "<div style='width:40px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap'>an ellipsis</div>"
        "<input style='width:30px' value='128000128000'>"
        "<div style='width:300px;overflow:hidden'>short</div><div style='width:50px'>wraps as it should</div>"
    )
    found = page.evaluate(CUT)
    page.close()
    assert len(found) == 4 and not any("short" in one or "wraps" in one for one in found)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_off_on_any_page(open_page, address: str, dark: bool) -> None:
    page = open_page("/", dark)
    cut: list[str] = []
    for path in PAGES if dark else PAGES + WIDE:
        page.goto(f"{address}/{path}")
        settled(page)
        page.evaluate(
            "document.querySelectorAll('details:not([open]) > summary').forEach(header => header.click())"
        )
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": TALL})
            settled(page)
            cut += [f"/{path} at {width}: {one}" for one in page.evaluate(CUT)]
    assert cut == []


def settled(page) -> None:
    """Until the script has ended, and no box has moved for two frames in a row."""
    expect(page.get_by_test_id("stApp")).to_have_attribute(
        "data-test-script-state", "notRunning", timeout=120_000
    )
    expect(page.get_by_test_id("stException")).to_have_count(0)
    page.evaluate(
        """async () => {
          const sizes = () => [...document.querySelectorAll(".main-svg, details, table")]
            .map(e => { const b = e.getBoundingClientRect(); return `${b.x},${b.y},${b.width},${b.height}`; }).join();
          let last = "", same = 0;
          for (let i = 0; i < 100 && same < 3; i++) {
            await new Promise(done => setTimeout(done, 100));
            const now = sizes();
            same = now === last ? same + 1 : 0;
            last = now;
          }
        }"""
    )
