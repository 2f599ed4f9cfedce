"""``dllama-proto report``: the page in a real browser, on a desk, on a phone, in the dark."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.cli import main
from dllama_proto.dissect import dissect_pcap
from dllama_proto.show.report import gather, render
from tests.helpers.captures import capture_path, load
from tests.helpers.packets import golden_packets, pcap

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    _CHROMIUM is None or _DRIVER is None,
    reason="Chromium is not installed (Debian: chromium, chromium-driver)",
)


# The data ---------------------------------------------------------------------------------------------


def embedded(page: str) -> dict[str, Any]:
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_page_has_all_there_is_and_needs_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    assert main(["report", str(capture_path("gqa-q40-4n")), "-o", str(output)]) == 0
    page = output.read_text()
    data = embedded(page)
    [session] = data["sessions"]
    assert session["n_nodes"] == 4
    assert [config["node"] for config in session["configs"]] == [1, 2, 3]
    assert sum(link["total"] for link in session["links"]) == data["totals"]["explained_bytes"]
    assert len(session["timeline"]["spans"]) > 100
    assert data["remarks"] == []
    # Nothing is fetched: no address but the name of SVG's vocabulary.
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=", page)


def test_what_is_amiss_is_remarked() -> None:
    from io import BytesIO
    from typing import BinaryIO, cast

    data = pcap(golden_packets("tiny-q40-2n")[:300])
    found = gather(dissect_pcap(cast("BinaryIO", BytesIO(data[:-5]))))
    texts = [remark["text"] for remark in found["remarks"]]
    assert any("ends within a packet" in text for text in texts)
    assert any("the capture ends before this connection does" in text for text in texts)


def test_names_from_the_wire_cannot_end_the_script() -> None:
    data = gather(dissect_pcap(capture_path("tiny-q40-2n")))
    evil = "</script><script>document.title='bad'</script>"
    data["sessions"][0]["pipes"][0]["name"] = evil
    page = render(data)
    assert evil not in page
    assert embedded(page)["sessions"][0]["pipes"][0]["name"] == evil


# The browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(_CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(gather(dissect_pcap(capture_path("gqa-q40-4n")))))
    return path.as_uri()


def look(
    browser: Any, page: str, *, width: int = 1280, mobile: bool = False, scheme: str = "light"
) -> None:
    """Open the page on a screen."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    browser.get(page)


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


@needs_chromium
@pytest.mark.slow
def test_the_page_shows_the_session(browser: Any, page: str) -> None:
    look(browser, page)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    chips = dict(zip(texts(browser, ".chip span"), texts(browser, ".chip b"), strict=True))
    assert (chips["nodes"], chips["forwards"], chips["unexplained"]) == ("4", "6", "0 B")
    assert len(texts(browser, "#picture circle")) == 4
    session = load("gqa-q40-4n")
    between = len(session.data(1, 2)) + len(session.data(2, 1))
    assert f"{between / 1000:.1f} kB" in texts(browser, "#picture text")
    assert len(texts(browser, "#syncs tbody tr")) == 8
    assert len(texts(browser, "#links tbody tr")) == 12
    assert "MATMUL Q80_Q40_F32 block_matmul_q 0" in texts(browser, "#tree summary")
    # The timeline is a picture: something of each colour must be on it.
    count = """
        const canvas = document.getElementById("lane");
        const d = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const counts = [[47, 111, 222], [224, 138, 30]].map(([r, g, b]) => {
          let n = 0;
          for (let i = 0; i < d.length; i += 4) n += d[i] === r && d[i + 1] === g && d[i + 2] === b;
          return n;
        });
        return counts;
    """
    computing, syncing = browser.execute_script(count)
    assert computing > 500
    assert syncing > 500


@needs_chromium
@pytest.mark.slow
def test_search_leaves_what_fits_and_opens_the_tree(browser: Any, page: str) -> None:
    look(browser, page)
    box = browser.find_element("id", "search")
    box.send_keys("block_matmul_w2 1")
    found = texts(browser, "mark")
    assert found
    assert set(found) == {"block_matmul_w2 1"}
    visible = browser.execute_script(
        "return [...document.querySelectorAll('mark')].every(m => m.checkVisibility())"
    )
    assert visible
    assert texts(browser, "#hits")[0].endswith("hits")
    box.clear()
    box.send_keys("layer 1 attention")
    shown = "return [...document.querySelectorAll('#syncs tbody tr')].filter(r => !r.hidden).length"
    assert browser.execute_script(shown) == 1
    box.clear()
    box.send_keys("layer ZQ attention")
    assert browser.execute_script(shown) == 3
    box.clear()
    box.send_keys("x")
    box.send_keys("\b")
    assert browser.execute_script(shown) == 8
    assert texts(browser, "mark") == []


@needs_chromium
@pytest.mark.slow
def test_search_brings_its_first_hit_into_view(browser: Any, page: str) -> None:
    look(browser, page)
    in_view = """
        const hit = document.querySelector("mark").getBoundingClientRect();
        return [scrollY > 0, hit.top > document.querySelector(".tools").offsetHeight && hit.bottom < innerHeight];
    """
    box = browser.find_element("id", "search")
    box.send_keys("block_matmul_w2 1")
    assert browser.execute_script(in_view) == [True, True]
    # What is in view already does not move.
    before = browser.execute_script("return scrollY")
    box.send_keys("\b1")
    assert browser.execute_script("return scrollY") == before


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_labels_cover_no_link(browser: Any, page: str, width: int) -> None:
    look(browser, page, width=width, mobile=width < 600)
    covered = """
        const found = [];
        for (const text of document.querySelectorAll("#picture text")) {
          const { left, right, top, bottom } = text.getBoundingClientRect();
          if (text.textContent.match(/^(root|\\d+)$/)) continue;  // in a node, where links end
          for (const line of document.querySelectorAll("#picture line")) {
            const place = line.getScreenCTM(), [a, b] = [1, 2].map(n =>
              new DOMPoint(line["x" + n].baseVal.value, line["y" + n].baseVal.value).matrixTransform(place));
            for (let t = 0; t <= 1; t += 0.002) {
              const x = a.x + (b.x - a.x) * t, y = a.y + (b.y - a.y) * t;
              if (left < x && x < right && top < y && y < bottom) { found.push(text.textContent); break; }
            }
          }
        }
        return found;
    """
    assert len(texts(browser, "#picture line")) == 6
    assert browser.execute_script(covered) == []


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_time_axis_has_round_ticks_that_can_be_told_apart(browser: Any, page: str, width: int) -> None:
    look(browser, page, width=width, mobile=width < 600)
    for _ in range(12):
        ticks = browser.execute_script("return document.getElementById('lane').dataset.ticks").split("\n")[
            :-1
        ]
        numbers = [float(tick.split()[0]) for tick in ticks]
        assert len(ticks) >= 2
        assert len({tick.split()[1] for tick in ticks}) == 1
        steps = [after - before for before, after in pairwise(numbers)]
        assert steps == pytest.approx([steps[0]] * len(steps))
        assert steps[0] > 0
        browser.find_element("id", "in").click()


@needs_chromium
@pytest.mark.slow
def test_tables_are_sorted_by_their_heads(browser: Any, page: str) -> None:
    look(browser, page)
    head = browser.find_elements("css selector", "#links th")[5]
    first = "#links tbody tr:first-child td:last-child"
    head.click()
    smallest = texts(browser, first)
    head.click()
    assert smallest == ["16.3 kB"]
    assert texts(browser, first) == ["313.3 kB"]


@needs_chromium
@pytest.mark.slow
def test_the_timeline_comes_closer_and_goes_back(browser: Any, page: str) -> None:
    look(browser, page)
    long = "return view.to - view.from"
    before = browser.execute_script(long)
    browser.find_element("id", "in").click()
    assert browser.execute_script(long) == pytest.approx(before / 2)
    start = browser.execute_script("return view.from")
    browser.find_element("id", "right").click()
    assert browser.execute_script("return view.from") > start
    browser.find_element("id", "all").click()
    assert browser.execute_script("return [view.from === view.start, view.to === view.end]") == [True, True]


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_sticks_out_of_any_screen(browser: Any, page: str, width: int) -> None:
    look(browser, page, width=width, mobile=width < 600)
    inner, scroll = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert scroll <= inner == width
    size = browser.execute_script(
        "return Math.min(...[...document.querySelectorAll('#picture text')]"
        ".map(t => t.getBoundingClientRect().height))"
    )
    assert size >= (9 if width < 600 else 12)


@needs_chromium
@pytest.mark.slow
def test_the_dark_is_dark_and_can_be_read(browser: Any, page: str) -> None:
    def lightness(scheme: str) -> tuple[float, float]:
        look(browser, page, scheme=scheme)
        colors = browser.execute_script(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        )
        back, ink = (sum(map(int, re.findall(r"\d+", color)[:3])) / 3 for color in colors)
        return back, ink

    light, dark = lightness("light"), lightness("dark")
    assert light[0] > 200 > 100 > light[1]
    assert dark[0] < 60 < 180 < dark[1]


@needs_chromium
@pytest.mark.slow
def test_a_capture_without_a_session_says_so(browser: Any, tmp_path: Path) -> None:
    from io import BytesIO
    from typing import BinaryIO, cast

    path = tmp_path / "empty.html"
    path.write_text(render(gather(dissect_pcap(cast("BinaryIO", BytesIO(pcap([])))))))
    look(browser, path.as_uri())
    assert browser.get_log("browser") == []
    assert texts(browser, "#when") == ["no session of a cluster in this capture"]
