"""The explorer in a real browser: JupyterLab on loopback, Debian's chromium, driven by playwright.

Where no chromium is found these tests are skipped, unless LTH_NEED_BROWSER=1. Screenshots are kept in
figures/smoke/screenshots (git-ignored).
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from lthcore import tickets
from lthcore.runs import store

CHROMIUM = os.environ.get("LTH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = Path(store.__file__).resolve().parents[2] / "figures/smoke/screenshots"
WIDTH = 1000
TASK1 = "02_task1_data_halves"
PATIENCE = 120_000  # ms, for whatever has to appear on a busy machine
FIRST = 600_000  # the first time: the kernel starts, MNIST is fetched, and the engine is compiled beside other tests

if os.environ.get("LTH_NEED_BROWSER") == "1":
    from playwright import sync_api
elif not CHROMIUM:
    pytest.skip("no chromium is found (apt-get install chromium)", allow_module_level=True)
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab with folders of its own, on a copy of the notebook: its address."""
    folder, root = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")
    shutil.copy(store.ROOT / "notebooks/05_explorer.ipynb", root)
    task1 = (store.ROOT / f"notebooks/{TASK1}.ipynb").read_text()
    (root / f"{TASK1}.ipynb").write_text(task1.replace('preset: str = \\"report\\"', 'preset: str = \\"smoke\\"'))
    variables = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    variables += ("JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "LTH_RUNS")
    environment = os.environ | {name: str(folder / name) for name in variables} | {"PYTHONPATH": str(store.ROOT)}
    for plugin, settings in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells off screen are there as well
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    }.items():
        path = folder / "JUPYTERLAB_SETTINGS_DIR/@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
    environment["JUPYTER_TOKEN"] = token
    with open(folder / "lab.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            base, end = f"http://127.0.0.1:{port}", time.monotonic() + FIRST / 1000
            while True:
                assert process.poll() is None and time.monotonic() < end, (folder / "lab.log").read_text()
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{base}/api/status?token={token}", timeout=2)
                    break
                time.sleep(0.2)
            yield f"{base}/lab/tree/05_explorer.ipynb?reset&token={token}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "LTH_NEED_BROWSER=1, and no chromium is found (apt-get install chromium)"
    SHOTS.mkdir(parents=True, exist_ok=True)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(lab, browser):
    """The notebook, open and run to its end."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 1250})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.set_default_timeout(PATIENCE)
    run_all(page, lab)
    yield page
    page.screenshot(path=SHOTS / "last.png")


def run_all(page, address):
    """Open a notebook and run it to its end."""
    page.goto(address)
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    idle(page).wait_for(timeout=FIRST)  # a named, idle kernel: before that, Run All asks for one
    page.keyboard.press("Control+B")  # the folder's list, which takes a third of the page
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    image(page, 0).wait_for(timeout=FIRST)
    idle(page).wait_for(timeout=FIRST)


def idle(page):
    return page.locator("#jp-main-statusbar").get_by_text(re.compile(r"^(?!No Kernel).+ \| Idle$"))


def image(page, number):
    """A picture of the explorer: 0 the mask, 1 where it stands, then those of the tabs."""
    return page.locator(".widget-image").nth(number)


PIXELS = """async e => { const b = await (await fetch(e.src)).arrayBuffer();
 return [...new Uint8Array(await crypto.subtle.digest('SHA-256', b))].join() }"""


def digest(page, number):
    return hashlib.sha256(image(page, number).evaluate(PIXELS).encode()).hexdigest()[:12]


def changed(page, number, before, limit=PATIENCE / 1000):
    """Seconds until a picture is another one, and which."""
    start = time.monotonic()
    while (now := digest(page, number)) == before:
        assert time.monotonic() - start < limit, "the picture did not change"
        page.wait_for_timeout(5)
    return time.monotonic() - start, now


def settled(page, number, quiet=0.6):
    """The picture once it has stayed the same for a while."""
    last, since = digest(page, number), time.monotonic()
    while time.monotonic() - since < quiet:
        page.wait_for_timeout(50)
        if (now := digest(page, number)) != last:
            last, since = now, time.monotonic()
    return last


def shot(page, name):
    page.locator(".widget-image").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"{name}.png")


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def test_run_all_ends_without_an_error(page):
    bad = page.locator(
        '[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type="application/vnd.jupyter.error"]'
    )
    assert bad.count() == 0, bad.first.inner_text()
    assert not page.errors
    widths = page.locator(".widget-image").evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert max(widths) <= WIDTH
    shot(page, "first")


def test_the_density_slider_moves_mask_and_marker_and_back(page, capsys):
    handle = page.locator(".widget-slider .noUi-handle").first
    readout = page.locator(".widget-slider .widget-readout").first
    start, before = readout.inner_text(), [settled(page, n) for n in (0, 1)]
    handle.focus()  # which may scroll
    height = image(page, 0).bounding_box()
    seconds = []
    for key in ["ArrowLeft"] * 3 + ["ArrowRight"] * 3:
        old = digest(page, 1)
        page.keyboard.press(key)
        seconds.append(changed(page, 1, old)[0])
        settled(page, 0)
        if key == "ArrowLeft":
            assert readout.inner_text() != start
            assert all(settled(page, n) != before[n] for n in (0, 1))
            shot(page, "moved")
    assert readout.inner_text() == start
    assert [settled(page, n) for n in (0, 1)] == before
    assert image(page, 0).bounding_box() == height  # nothing jumps
    with capsys.disabled():
        ms = sorted(1000 * s for s in seconds)
        print(f"\nfrom key to picture: n = {len(ms)}, median {statistics.median(ms):.0f} ms, most {ms[-1]:.0f} ms")


def says(page, text):
    """Wait until the explorer says these words."""
    page.locator(".widget-html-content", has_text=re.compile(text)).first.wait_for()


def choices(page, name):
    """What a list offers; it is written with spaces that do not break."""
    return page.get_by_label(name).inner_text().replace("\xa0", " ").splitlines()


def choose(page, name, choice):
    page.get_by_label(name).select_option(index=choices(page, name).index(choice))


def arrow(page, slider, key, times=1):
    """Press an arrow key on the slider of that name."""
    page.locator(".widget-slider", has_text=slider).locator(".noUi-handle").focus()
    for _ in range(times):
        page.keyboard.press(key)


def test_the_form_trains_a_small_ticket_that_joins_the_comparison(page):
    tab(page, "Find your own ticket")
    before = settled(page, 4)
    choose(page, "scale", "smoke")
    arrow(page, "rounds", "ArrowLeft", times=6)
    page.get_by_role("button", name="find it").click()
    says(page, "trained 3 levels")
    changed(page, 4, before)
    assert "own mlp, smoke, rounds 2" in choices(page, "experiment")
    page.screenshot(path=SHOTS / "form.png")


def test_stop_keeps_what_is_finished(page):
    before = settled(page, 4)
    choose(page, "scale", "quick")
    arrow(page, "rounds", "ArrowRight", times=6)
    page.get_by_role("button", name="find it").click()
    says(page, r"\[ +1/9\]")
    page.locator("button.widget-button", has_text="stop").click()
    says(page, "stopped; finished levels are kept")
    assert settled(page, 4) != before
    assert "own mlp, quick, rounds 8" in choices(page, "experiment")


def test_a_digit_can_be_picked(page):
    choose(page, "experiment", "own mlp, smoke, rounds 2")
    page.get_by_role("button", name="train weights").click()
    says(page, "weights kept; 2 of the 2 finished levels among them came out bit-identical")
    says(page, "final weights: 4 of 4 networks here")
    tab(page, "Weights")
    settled(page, 2)
    page.screenshot(path=SHOTS / "weights.png")
    tab(page, "Try it")
    answers, mask = settled(page, 3), settled(page, 0)
    arrow(page, "number", "ArrowRight")
    changed(page, 3, answers)
    assert settled(page, 0) != mask  # the digit beside the mask is the picked one
    page.screenshot(path=SHOTS / "digit.png")
    answers = settled(page, 3)
    choose(page, "digits", "hardest for the ticket first")
    changed(page, 3, answers)
    answers = settled(page, 3)
    square = page.get_by_label("draw a digit here")
    square.scroll_into_view_if_needed()
    left, top, side = (square.bounding_box()[name] for name in ("x", "y", "width"))
    page.mouse.move(left + side / 2, top + side / 5)
    page.mouse.down()
    page.mouse.move(left + side / 2, top + 4 * side / 5, steps=10)
    page.mouse.up()
    changed(page, 3, answers)
    page.screenshot(path=SHOTS / "drawn.png")
    page.get_by_role("button", name="clear", exact=True).click()
    while settled(page, 3) != answers:  # the test digit again
        pass
    tab(page, "Prune by hand")
    before = settled(page, 6)
    page.locator("button.widget-button", has_text=re.compile("^prune$")).click()
    changed(page, 6, before)
    says(page, "50% of all layers together, by magnitude")
    page.screenshot(path=SHOTS / "by_hand.png")


def hand_in(page, path):
    with page.expect_file_chooser() as chooser:
        page.locator("button.widget-upload").click()
    chooser.value.set_files(path)


def test_a_ticket_is_kept_and_loaded_and_a_damaged_one_refused(page, tmp_path):
    tab(page, "Keep it, load it")
    page.get_by_role("button", name="prepare the file").click()
    link = page.locator(".widget-html-content a[download]")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    ticket = tickets.read(path)
    assert ticket.facts["model"] == "mlp" and path.name.startswith(ticket.facts["unit"])
    before = settled(page, 5)
    hand_in(page, path)
    changed(page, 5, before)
    says(page, ticket.facts["unit"])
    page.screenshot(path=SHOTS / "file.png")
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    hand_in(page, path)
    says(page, "not a ticket: it does not have the sum")


def test_a_notebook_shows_a_bar_and_its_answer_and_folds_its_plumbing(page, lab):
    """Task 1 at the scale of `smoke`, which is trained here; the bar is one line, however many levels there are."""
    other = page.context.browser.new_page(viewport={"width": WIDTH, "height": 1250})
    other.set_default_timeout(PATIENCE)
    run_all(other, lab.replace("05_explorer", TASK1))
    said = "\n".join(other.locator(".jp-OutputArea-output pre").all_inner_texts())
    lines = [line for line in said.splitlines() if "test accuracy" in line]
    assert len(lines) == 1 and re.search(r"^(\d+)/\1 levels \|.*\| \d\d:\d\d, 0 s left, task1 ", lines[0]), said
    assert said.index("this will take about") < said.index(lines[0])
    answer = other.get_by_text("Not judged at this scale (preset smoke)")
    answer.scroll_into_view_if_needed()
    assert answer.is_visible() and other.get_by_text("not judged (smoke)").first.is_visible()
    folded = other.locator(".jp-InputPlaceholder, .jp-Placeholder")
    assert folded.count() == 2 and folded.first.inner_text().startswith("# @title Set-up")
    other.screenshot(path=SHOTS / "answer.png")
    other.close()


# ---------------------------------------------------------------------------------------- the page without a kernel


@pytest.fixture
def offline(browser, request):
    """The committed page on a phone or a wide screen, light or dark, with no network; what it asked for and said."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text))
    page.goto((store.ROOT / "figures/explorer.html").as_uri())
    yield page
    page.screenshot(path=SHOTS / f"offline-{width}-{scheme}.png", full_page=True)
    assert len(page.asked) == 1 and not page.errors
    context.close()


def committed(figure, **at):
    """A row of what a committed figure was drawn from."""
    table = pd.read_csv(store.ROOT / f"figures/{figure}.csv")
    return next(table.loc[(table[list(at)] == pd.Series(at)).all(axis=1)].itertuples())


def test_the_page_is_moved_by_keys_and_shows_the_numbers_of_the_figures(offline):
    slider = offline.get_by_role("slider", name="Density").first
    slider.focus()
    offline.keyboard.press("Home")
    for _ in range(5):
        offline.keyboard.press("ArrowRight")
    mask = offline.locator("#mask-ticket").evaluate("e => e.toDataURL()")
    for arm, name in (
        ("ticket", "ticket (theta0)"),
        ("random_reinit", "reinitialised"),
        ("random_mask", "random mask"),
    ):
        row = committed("fig1a_mlp_accuracy_vs_density", arm=arm, level=5)
        shown = offline.get_by_role("row", name=re.compile(rf"^{re.escape(name)}")).first.inner_text()
        assert f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]" in " ".join(shown.split())
        assert slider.get_attribute("aria-valuetext") == f"{100 * row.density:.3g}% of the weights, level 5"
        assert f"n = {row.n} replicates" in offline.locator("#numbers caption").inner_text()
    offline.keyboard.press("ArrowRight")
    assert "level 6" in offline.locator("#at").inner_text()
    assert "not trained at this level" in offline.locator("#numbers").inner_text()
    assert offline.locator("#mask-ticket").evaluate("e => e.toDataURL()") != mask
    offline.get_by_label("LeNet-5").check()
    row = committed("fig2a_lenet5_accuracy_vs_density", arm="ticket", level=6)
    assert f"{row.mean:.2f}" in offline.locator("#numbers").inner_text()
    address = offline.url
    assert "network=lenet5&level=6" in address
    offline.goto("about:blank")
    offline.goto(address)
    assert "level 6" in offline.locator("#at").inner_text() and offline.get_by_label("LeNet-5").is_checked()
    offline.asked = offline.asked[:1]


@pytest.mark.parametrize("offline", [(1280, "dark"), (360, "light"), (360, "dark")], indirect=True)
def test_the_page_fits_its_screen_and_finds_the_constant_classifier(offline):
    slider = offline.get_by_role("slider", name="Density").nth(1)
    slider.focus()
    offline.keyboard.press("End")
    said = offline.locator("#finding").inner_text()
    panel = "all layers pruned, at the last step of every level"
    row = committed("fig4a_task2_accuracy", arm="t1_on_s2", level=15, panel=panel)
    assert f"{row.n} of {row.n} are constant classifiers: they answer 7" in said and f"{row.mean:.4f}%" in said
    assert "which is the report's number" in said
    assert offline.evaluate("document.documentElement.scrollWidth") <= offline.viewport_size["width"]
