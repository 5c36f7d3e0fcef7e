"""The review page in a real browser, as a person uses it: Chromium on a desktop and as a phone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ssenet_jax import artifacts
from ssenet_jax.stages.reviewed import read_decisions

selenium = pytest.importorskip("selenium", reason="selenium is not installed: no browser test of the review page")
pytest.importorskip("starlette", reason="the extra `review` is not installed")
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no chromium and chromedriver: no browser test of the review page", allow_module_level=True)

import uvicorn  # noqa: E402
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from ssenet_jax.commands.review import open_album, server  # noqa: E402
from ssenet_jax.commands.review.ledger import Ledger  # noqa: E402

ODD_CLASS, ODD_PHOTO = "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"
PATIENCE = 40  # seconds, on a busy machine


def started(width, height, **emulation):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(argument)
    if emulation:
        options.add_experimental_option(
            "mobileEmulation", {"deviceMetrics": {"width": width, "height": height, **emulation}}
        )
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


@pytest.fixture(scope="module")
def desktop():
    browser = started(1280, 800)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def phone():
    browser = started(390, 800, pixelRatio=2, touch=True, mobile=True)
    yield browser
    browser.quit()


@pytest.fixture
def address(scored_run):
    """A server in a thread of this process."""
    config, workdir = scored_run
    app = server.application(open_album(config, workdir), Ledger(workdir), title=config.title, token="token")
    web = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=web.run)
    thread.start()
    until(lambda: web.started)
    yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/token/"
    web.should_exit = True
    thread.join()


def until(holds):
    """Waits for something to be true, and gives it."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def visible(browser, css):
    return until(lambda: next((e for e in browser.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()), None))


def opened(browser, address, photo):
    browser.get("about:blank")
    browser.get(f"{address}#photo={photo}")
    visible(browser, "#mask")
    return browser


def text_of(browser, css):
    return visible(browser, css).text


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def stroke(browser, *places):
    """Draws with the mouse through places in fractions of the photo."""
    sheet = browser.find_element(By.ID, "mask")
    box = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]", sheet
    )
    at = [(round(box[0] + x * box[2]), round(box[1] + y * box[3])) for x, y in places]
    chain = ActionChains(browser, duration=30)
    chain.w3c_actions.pointer_action.move_to_location(*at[0])
    chain.w3c_actions.pointer_action.pointer_down()
    for place in at[1:]:
        chain.w3c_actions.pointer_action.move_to_location(*place)
    chain.w3c_actions.pointer_action.pointer_up()
    chain.perform()


def saved(workdir, photo, decision):
    """Waits until a decision is on the disk, None for no decision; gives the mask."""
    until(lambda: (read_decisions(workdir).get(photo) or (0, None))[1] == decision)
    path = workdir / f"reviewed/{photo}.png"
    return artifacts.read_mask(path) if path.exists() else None


def test_a_photo_is_cut_painted_undone_and_accepted_and_still_so_after_a_reload(desktop, address, scored_run):
    _, workdir = scored_run
    desktop.get(address)
    assert text_of(desktop, "#title") == "Two trees" and "0 of 3 reviewed" in text_of(desktop, "#reviewed")
    visible(desktop, ".tile button[data-id=b]").click()
    visible(desktop, "#mask")
    press(desktop, "." * 10)
    until(lambda: text_of(desktop, "#alpha_value") == "0.30")
    assert not read_decisions(workdir)
    stroke(desktop, (0.75, 0.25), (0.75, 0.75))
    mask = saved(workdir, "b", "corrected")
    assert mask[24, 48] == 2 and mask[24, 10] == 2 and mask[24, 60] == 0
    press(desktop, "z")
    saved(workdir, "b", None)
    press(desktop, "a")
    assert saved(workdir, "b", "accepted")[24, 48] == 0 and read_decisions(workdir)["b"].alpha == 0.3
    desktop.get(address)
    desktop.refresh()
    until(lambda: "1 of 3 reviewed" in text_of(desktop, "#reviewed"))
    opened(desktop, address, "b")
    until(lambda: (text_of(desktop, "#state"), text_of(desktop, "#alpha_value")) == ("Accepted", "0.30"))


def test_brush_eraser_polygon_and_class_paint_what_they_say(desktop, address, scored_run):
    _, workdir = scored_run
    opened(desktop, address, "b")
    press(desktop, "e")
    stroke(desktop, (0.1, 0.5), (0.3, 0.5))
    assert saved(workdir, "b", "corrected")[24, 13] == 0
    visible(desktop, "#other option:nth-child(2)").click()  # the class that the photo has not
    press(desktop, "g")
    for place in ((0.6, 0.1), (0.9, 0.1), (0.9, 0.9), (0.6, 0.9)):
        stroke(desktop, place)
    press(desktop, Keys.BACKSPACE, Keys.ENTER)
    until(lambda: 1 in artifacts.read_mask(workdir / "reviewed/b.png"))
    mask = artifacts.read_mask(workdir / "reviewed/b.png")
    assert mask[10, 54] == 1 and mask[40, 42] == 0 and mask[24, 13] == 0
    press(desktop, "z", "z")
    saved(workdir, "b", None)
    ActionChains(desktop).key_down(Keys.SHIFT).send_keys("z").key_up(Keys.SHIFT).perform()
    assert saved(workdir, "b", "corrected")[24, 13] == 0


def test_decisions_by_keyboard_go_on_to_the_next_and_can_be_taken_back(desktop, address, scored_run):
    _, workdir = scored_run
    desktop.get("about:blank")
    desktop.get(address)
    first = visible(desktop, ".tile button")
    photo = first.get_attribute("data-id")
    first.send_keys(Keys.ENTER)
    visible(desktop, "#mask")
    press(desktop, "x")
    saved(workdir, photo, "rejected")
    until(lambda: text_of(desktop, "#name") != photo)
    press(desktop, "u")
    saved(workdir, photo, None)
    until(lambda: text_of(desktop, "#name") == photo and text_of(desktop, "#state") == "To review")
    press(desktop, Keys.ESCAPE)
    until(lambda: desktop.switch_to.active_element.get_attribute("data-id") == photo)


def test_names_are_shown_as_they_are_and_run_nothing(desktop, address, scored_run):
    desktop.get("about:blank")
    desktop.get(address)
    names = until(lambda: {e.text for e in desktop.find_elements(By.CSS_SELECTOR, ".tile .name")})
    assert ODD_PHOTO in names and ODD_CLASS in text_of(desktop, "#class")
    visible(desktop, f".tile button[data-id='{ODD_PHOTO}']").click()
    assert ODD_CLASS in text_of(desktop, "#classes") and text_of(desktop, "#name") == ODD_PHOTO
    with pytest.raises(selenium.common.exceptions.NoAlertPresentException):
        desktop.switch_to.alert  # noqa: B018
    press(desktop, "a")
    saved(scored_run[1], ODD_PHOTO, "accepted")


def rejected_on_a_phone(desktop, phone, address, workdir):
    """A photo that is open on both pages."""
    opened(desktop, address, "b")
    opened(phone, address, "b")
    visible(phone, "#reject").click()
    saved(workdir, "b", "rejected")


def test_of_two_pages_the_later_save_wins_and_the_other_is_told(desktop, phone, address, scored_run):
    _, workdir = scored_run
    rejected_on_a_phone(desktop, phone, address, workdir)
    stroke(desktop, (0.75, 0.4), (0.75, 0.6))
    assert "Another page changed b (now rejected)" in text_of(desktop, "#banner")
    assert read_decisions(workdir)["b"].decision == "rejected"
    visible(desktop, "#banner button:nth-child(2)").click()  # keep mine
    assert saved(workdir, "b", "corrected")[24, 48] == 2
    opened(phone, address, "b")
    stroke(desktop, (0.6, 0.4), (0.6, 0.6))
    assert "Another page changed b (now corrected)" in text_of(phone, "#banner")
    visible(phone, "#banner button").click()  # show that
    until(lambda: text_of(phone, "#state") == "Corrected")


def test_a_conflict_is_asked_until_it_is_answered(desktop, phone, address, scored_run):
    _, workdir = scored_run
    rejected_on_a_phone(desktop, phone, address, workdir)
    press(desktop, "a")  # goes on to the next photo
    until(lambda: "Another page changed b (now rejected)" in text_of(desktop, "#banner"))
    desktop.execute_script("location.hash = 'photo=a'")
    until(lambda: text_of(desktop, "#name") == "a" and visible(desktop, "#mask"))
    assert "Another page changed b" in text_of(desktop, "#banner")
    desktop.execute_script("location.hash = 'photo=b'")
    until(lambda: text_of(desktop, "#name") == "b" and text_of(desktop, "#state") == "Rejected")
    stroke(desktop, (0.75, 0.4), (0.75, 0.6))
    assert "Another page changed b" in text_of(desktop, "#banner") and text_of(desktop, "#saving") == "Not saved"
    assert read_decisions(workdir)["b"].decision == "rejected"
    visible(desktop, "#banner button:nth-child(2)").click()  # keep mine
    assert saved(workdir, "b", "corrected")[24, 48] == 2
    until(lambda: text_of(desktop, "#state") == "Corrected")
    until(lambda: not desktop.find_element(By.ID, "banner").is_displayed())


def test_an_accepted_mask_that_the_page_rounds_otherwise_at_one_pixel_is_still_accepted(desktop, address, scored_run):
    _, workdir = scored_run
    opened(desktop, address, "b")
    press(desktop, ".")
    press(desktop, "a")
    mask = saved(workdir, "b", "accepted").copy()
    mask[24, 31] = 2 - mask[24, 31]
    artifacts.write_mask(workdir / "reviewed" / "b.png", mask)
    opened(desktop, address, "b")
    press(desktop, ".")
    until(lambda: read_decisions(workdir)["b"].alpha != 0.21)
    assert read_decisions(workdir)["b"].decision == "accepted"


def touch(browser, kind, *points):
    browser.execute_cdp_cmd(
        "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
    )


def test_a_phone_paints_with_one_finger_and_zooms_with_two(phone, address, scored_run):
    _, workdir = scored_run
    opened(phone, address, "b")
    where = "const r = document.getElementById('mask').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    x, y, width, height = phone.execute_script(where)
    assert phone.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert (
        min(
            e.size["height"]
            for e in phone.find_elements(By.CSS_SELECTOR, "#tools button, .decide button")
            if e.size["height"]
        )
        >= 40
    )
    middle = (x + width / 2, y + height / 2)
    touch(phone, "touchStart", middle)
    touch(phone, "touchStart", middle, (middle[0] + 40, middle[1]))
    touch(phone, "touchMove", (middle[0] - 40, middle[1]), (middle[0] + 80, middle[1]))
    touch(phone, "touchEnd")
    until(lambda: phone.execute_script(where)[2] > 1.5 * width)
    assert not read_decisions(workdir) and visible(phone, "#undo").get_attribute("disabled")
    visible(phone, "#fits").click()
    touch(phone, "touchStart", (x + 0.75 * width, y + 0.3 * height))
    touch(phone, "touchMove", (x + 0.75 * width, y + 0.7 * height))
    touch(phone, "touchEnd")
    assert saved(workdir, "b", "corrected")[24, 48] == 2


def serving(workdir):
    """The command as a process of its own, and the address that it prints."""
    command = [sys.executable, "-m", "ssenet_jax", "review", f"--workdir={workdir}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(artifacts.__file__).parents[1]), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    return process, re.search(r"http://\S+", process.stdout.readline())[0]


def ended(process, number):
    process.send_signal(number)
    process.stdout.close()
    return process.wait(PATIENCE)


def test_a_server_killed_between_two_strokes_loses_the_second_at_most(desktop, scored_run):
    _, workdir = scored_run
    process, address = serving(workdir)
    opened(desktop, address, "b")
    stroke(desktop, (0.75, 0.4), (0.75, 0.6))
    first = saved(workdir, "b", "corrected")
    ended(process, signal.SIGKILL)
    stroke(desktop, (0.95, 0.4), (0.95, 0.6))
    assert "Not saved yet; it is kept here and tried again" in text_of(desktop, "#banner")
    process, address = serving(workdir)
    opened(desktop, address, "b")
    until(lambda: text_of(desktop, "#state") == "Corrected")
    assert first[24, 48] == 2 and np.array_equal(artifacts.read_mask(workdir / "reviewed/b.png"), first)
    stroke(desktop, (0.95, 0.4), (0.95, 0.6))
    until(lambda: artifacts.read_mask(workdir / "reviewed/b.png")[24, 61] == 2)
    assert ended(process, signal.SIGINT) == 0
