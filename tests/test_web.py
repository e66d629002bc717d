"""The page of `web/` in headless Chromium, with a file as its microphone: what it extracts equals what Python extracts."""

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, ROOT

from ss import audio
from ss.audio import Wave
from ss.checkpoint import load_extractor
from ss.export.native import model_bytes
from ss.runtime import Extractor
from ss.runtime.enrolment import find_faults
from ss.utils.predecessor import read_checkpoint

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[web]'")
expect = playwright.expect
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
LIBRARY = ROOT / "libss/build/libss.wasm"
COMPILER = importlib.util.find_spec("ziglang")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(not (LIBRARY.is_file() or COMPILER), reason="needs ziglang: pip install -e '.[web]'"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
UNIT = 1 / 32768  # of a file with 16 bits
ATTEMPTS = 3  # of live audio: a machine that is busy elsewhere may have no time for the browser's audio thread
LIVE = float(os.environ.get("WEB_LIVE_SECONDS", "60"))
SPEECH = ROOT / "demo/speech"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as `make web` builds it, and beside it the model with float32 weights."""
    if COMPILER:
        subprocess.run(["make", "-s", "-C", str(ROOT / "libss"), "wasm", f"ZIG={sys.executable} -m ziglang"], check=True)
    folder = tmp_path_factory.mktemp("web") / "dist"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(ROOT / "web/build.py"), str(folder)], check=True, env=environment)
    model = load_extractor(read_checkpoint(ROOT / "models/spexplus_online/best.pth")).eval()
    (folder / "float32.ss").write_bytes(model_bytes(model, RATE))
    (folder / "damaged.ss").write_bytes(model_bytes(model, RATE)[:1000])
    return folder


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor.from_pretrained(backend="onnxruntime")


@pytest.fixture(scope="module")
def speech() -> dict[str, Wave]:
    return {name: audio.read(SPEECH / f"{name}.flac", RATE) for name in ("reader", "man", "woman", "reader-enrolment")}


@pytest.fixture(scope="module")
def files(speech: dict[str, Wave], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings as a user has them."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    reader, woman, enrolment = (speech[name] for name in ("reader", "woman", "reader-enrolment"))
    n = min(len(reader), len(woman))
    mixture = 0.5 * (reader[:n] + woman[:n])
    waves = {
        "enrolment": enrolment,
        "mixture": mixture,
        "call": np.concatenate([mixture, enrolment]),
        "short": enrolment[4000:8000],
        "silent": np.zeros(5 * RATE),
        "clipped": np.clip(20 * enrolment, -0.9, 0.9),
        "noisy": enrolment + 0.05 * rng.standard_normal(len(enrolment)),
    }
    for name, wave in waves.items():
        soundfile.write(folder / f"{name}.wav", wave, RATE, subtype="PCM_16")
    (folder / "text.wav").write_text("no audio")
    microphone = [speech[name] * gain for gain in (1, 0.5, 0.8, 0.3) for name in ("man", "reader-enrolment", "woman", "reader")]
    others = [speech[name] for _ in range(4) for name in ("woman", "man", "reader", "man", "woman")]
    n = min(sum(map(len, microphone)), sum(map(len, others)), round((LIVE + 8) * RATE))
    wave = np.concatenate(microphone)[:n] + 0.7 * np.concatenate(others)[:n] + 0.002 * rng.standard_normal(n)
    soundfile.write(folder / "microphone.wav", 0.5 * wave, RATE, subtype="PCM_16")
    return {path.stem: path for path in folder.glob("*.wav")}


class Handler(SimpleHTTPRequestHandler):
    """A static host that prints nothing, and counts the bytes that it sends."""

    sent = 0

    def log_message(self, *_: object) -> None:
        """Prints nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        Handler.sent += len(content)
        outputfile.write(content)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The URL of a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def open_page(folder: Path, files: dict[str, Path]) -> Iterator[Open]:
    """Opens the page with a query, after a script that changes the browser; it must log no error and ask no other host."""
    faults: list[str] = []

    with serve(folder) as url, playwright.sync_playwright() as started:
        browsers = []

        def open_it(query: str = "", script: str = "", *, allow: bool = True, ready: bool = True, **options: Any) -> Any:
            capture = f"--use-file-for-fake-audio-capture={files['microphone']}%noloop"
            flags = [*FLAGS, capture, *(["--use-fake-ui-for-media-stream"] if allow else [])]
            browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
            browsers.append(browser)
            page = browser.new_context(**options).new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: request.url.startswith((url, "blob:" + url)) or faults.append(request.url))
            if script:
                page.add_init_script(script)
            page.goto(url + query)
            if ready:
                page.wait_for_selector("#voice-record:enabled")
            return page

        yield open_it
        for browser in browsers:
            browser.close()
    assert not faults


def enrol(page: Any, path: Path) -> str:
    """Enrols from a file; what the page says."""
    page.set_input_files("#voice-file", path)
    page.wait_for_selector("#voice-status:not(:empty)")
    return page.inner_text("#voice-status")


def extract(page: Any, path: Path) -> None:
    page.set_input_files("#audio-file", path)
    page.wait_for_selector("#result:visible", timeout=60000)


def download(page: Any, kind: str) -> Wave:
    """What the page gives as a file."""
    with page.expect_download() as waiting:
        page.click(f"#download-{kind}")
    return audio.read(waiting.value.path(), RATE)


def run_python(extractor: Extractor, enrolment: Any, mixture: Wave) -> Wave:
    stream = extractor.stream(enrolment)
    return np.concatenate([stream.process(mixture), stream.flush()])


def si_sdr(estimate: Wave, target: Wave) -> float:
    target = target * (estimate @ target) / (target @ target)
    return float(10 * np.log10((target @ target) / np.square(estimate - target).sum()))


def largest_difference(a: Wave, b: Wave) -> float:
    assert len(a) == len(b)
    return float(np.abs(a - b).max())


def test_a_file_equals_python(open_page: Open, extractor: Extractor, files: dict[str, Path]) -> None:
    page = open_page("?model=float32.ss")
    assert enrol(page, files["enrolment"]) == "The voice is ready: 6.0 seconds."
    extract(page, files["mixture"])
    original, extracted = download(page, "original"), download(page, "extracted")
    mixture = audio.read(files["mixture"], RATE)
    assert largest_difference(original, mixture) == 0
    assert largest_difference(extracted, run_python(extractor, files["enrolment"], mixture)) < 2 * UNIT


def test_int8_is_as_good(open_page: Open, extractor: Extractor, files: dict[str, Path], speech: dict[str, Wave]) -> None:
    page = open_page()
    enrol(page, files["enrolment"])
    extract(page, files["mixture"])
    extracted, mixture = download(page, "extracted"), audio.read(files["mixture"], RATE)
    target = speech["reader"][: len(mixture)]
    expected = run_python(extractor, files["enrolment"], mixture)
    before, python, page_ = (si_sdr(wave, target) for wave in (mixture, expected, extracted))
    print(f"SI-SDR in dB: mixture {before:.2f}, Python {python:.2f}, page {page_:.2f}")
    assert abs(page_ - python) < 0.2


def test_a_marked_stretch_equals_python(open_page: Open, extractor: Extractor, files: dict[str, Path]) -> None:
    page = open_page("?model=float32.ss")
    enrol(page, files["call"])
    page.fill("#from", "4.5")
    page.press("#from", "Enter")
    page.fill("#to", "8")
    page.press("#to", "Enter")
    expect(page.locator("#voice-status")).to_contain_text(": 3.5 seconds")
    page.click("#audio-same")
    page.wait_for_selector("#result:visible")
    expected = run_python(extractor, f"{files['call']}@4.5-8", audio.read(files["call"], RATE))
    assert largest_difference(download(page, "extracted"), expected) < 2 * UNIT
    screen = page.locator("#voice-screen")  # now with the mouse: the last half
    width = screen.bounding_box()["width"]
    screen.hover(position={"x": width / 2, "y": 20})
    page.mouse.down()
    screen.hover(position={"x": width - 1, "y": 30})
    page.mouse.up()
    middle = len(audio.read(files["call"], RATE)) / RATE / 2
    assert abs(float(page.input_value("#from")) - middle) < 0.05
    half = f": {middle:.1f} seconds"
    expect(page.locator("#voice-status")).to_contain_text(half)
    page.wait_for_selector("#result:visible")  # made anew
    expected = run_python(
        extractor, f"{files['call']}@{page.input_value('#from')}-{page.input_value('#to')}", audio.read(files["call"], RATE)
    )
    assert si_sdr(download(page, "extracted"), expected) > 30  # the fields have hundredths of seconds


def lags(recorded: Wave, played: Wave) -> list[int]:
    """Where pieces of half a second of a recording are in what was played, relative to their own place; one every two seconds."""
    found, size = [], RATE // 2
    n = 1 << (len(played) + size).bit_length()
    spectrum = np.fft.rfft(played, n)
    energy = np.convolve(np.square(played.astype(np.float64)), np.ones(size))[size - 1 :][: len(played) - size]
    for begin in range(RATE, len(recorded) - size, 2 * RATE):
        piece = recorded[begin : begin + size]
        products = np.fft.irfft(spectrum * np.fft.rfft(piece, n).conj(), n)[: len(energy)]
        found.append(int(np.argmax(products / np.sqrt(energy + 1e-9))) - begin)
    return found


@pytest.mark.skipif("REALTIME" not in os.environ, reason="needs a machine without other work: make web-test")
def test_a_minute_live_drops_nothing(open_page: Open, extractor: Extractor, files: dict[str, Path]) -> None:
    played = audio.read(files["microphone"], RATE)
    for _ in range(ATTEMPTS):
        page = open_page()
        enrol(page, files["enrolment"])
        page.click("#audio-live")
        page.wait_for_selector("#stop:visible")
        assert page.is_checked("input[value=mute]")
        assert page.is_visible("#live-hint")
        page.check("input[value=extracted]", force=True)
        assert page.is_hidden("#live-hint")
        time.sleep(LIVE + 1)
        titles, values = (page.locator(kind).all_inner_texts() for kind in ("dt", "dd"))
        shown = {title: value.replace("\n", "; ") for title, value in zip(titles, values, strict=True)}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
        page.click("#stop")
        page.wait_for_selector("#play:visible")
        original, extracted = download(page, "original"), download(page, "extracted")
        assert len(original) > LIVE * RATE
        found = lags(original, played)
        assert max(found) - min(found) <= 2  # every quantum of the microphone came, once
        assert si_sdr(extracted, run_python(extractor, files["enrolment"], original)) > 15  # int8 weights
        if shown["Dropped quanta"].startswith("0; "):
            return
    pytest.fail("playback had gaps each time")


def test_live_equals_python(open_page: Open, extractor: Extractor, files: dict[str, Path]) -> None:
    page = open_page("?model=float32.ss")
    check_live(page, extractor, files)


def test_a_microphone_of_another_rate_is_resampled(open_page: Open, extractor: Extractor, files: dict[str, Path]) -> None:
    script = """
    const create = AudioContext.prototype.createMediaStreamSource;
    AudioContext.prototype.createMediaStreamSource = function (stream) {
      if (this.sampleRate === 16000) throw new DOMException("as Firefox does", "NotSupportedError");
      return create.call(this, stream);
    };"""
    page = open_page("?model=float32.ss", script)
    check_live(page, extractor, files)


def check_live(page: Any, extractor: Extractor, files: dict[str, Path], seconds: float = 4) -> None:
    """Extracts live: what came is the microphone's signal, and what went is what Python makes of it."""
    enrol(page, files["enrolment"])
    page.click("#audio-live")
    page.wait_for_selector("#stop:visible")
    time.sleep(seconds)
    page.click("#stop")
    page.wait_for_selector("#play:visible")
    original, extracted = download(page, "original"), download(page, "extracted")
    assert len(original) > (seconds - 1) * RATE
    played = audio.read(files["microphone"], RATE)
    (lag, *others) = lags(original, played)
    assert all(abs(other - lag) <= 2 for other in others)
    begin = max(0, -lag) + RATE
    piece = original[begin : begin + RATE]
    assert si_sdr(piece, played[begin + lag :][:RATE]) > 15  # resampled on the way
    expected = run_python(extractor, files["enrolment"], original)
    assert largest_difference(extracted, expected) < 20 * UNIT  # Python has the original rounded to 16 bits


def test_recording_a_voice(open_page: Open) -> None:
    page = open_page()
    page.click("#voice-record")
    expect(page.locator("#recording-time")).to_have_text(re.compile(r"^[4-9]\.\d s$"), timeout=20000)
    page.click("#voice-record")
    page.wait_for_selector("#audio-live:enabled")
    assert "The voice is ready" in page.inner_text("#voice-status")
    assert page.is_hidden("#audio-same")
    page.click("#voice-play")
    expect(page.locator("#voice-play")).to_have_text("Stop")
    page.click("#voice-play")
    expect(page.locator("#voice-play")).to_have_text("Play")


def test_keyboard_and_position(open_page: Open, files: dict[str, Path]) -> None:
    page = open_page()
    enrol(page, files["enrolment"])
    extract(page, files["mixture"])
    page.focus("#play")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Pause")
    expect(page.locator("#time")).to_contain_text("0:01 /")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert page.is_checked("input[value=original]")
    assert page.inner_text("#play") == "Pause"  # it goes on at the same position
    assert float(page.input_value("#position")) > 0.3
    page.focus("#play")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Play")
    page.focus("#position")
    page.keyboard.press("Home")
    assert page.input_value("#position") == "0"
    box = page.locator("#extracted-track .screen").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    middle = len(audio.read(files["mixture"], RATE)) / RATE / 2
    assert abs(float(page.input_value("#position")) - middle) < 0.05


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "This is too short: 0.25 seconds. At least 0.42 seconds are needed"),
        ("silent", "This is silent."),
        ("text", "text.wav: this browser cannot decode this file as audio."),
        ("clipped", "It is clipped."),
        ("noisy", "It is noisy"),
    ],
)
def test_bad_enrolments(name: str, message: str, open_page: Open, files: dict[str, Path]) -> None:
    page = open_page()
    assert message in enrol(page, files[name])
    usable = name in ("clipped", "noisy")
    assert page.is_enabled("#audio-live") == usable
    assert ("The voice is ready" in page.inner_text("#voice-status")) == usable


def test_faults_equal_python(open_page: Open, files: dict[str, Path]) -> None:
    page = open_page()
    script = "async (wave) => (await import('./enrolment.js')).findFaults(Float32Array.from(wave), 16000)"
    words = {"only": "There are only", "clipped": "It is clipped", "noisy": "It is noisy"}
    for name in ("enrolment", "mixture", "short", "clipped", "noisy"):
        wave = audio.read(files[name], RATE)
        expected = [next(text for word, text in words.items() if word in fault) for fault in find_faults(wave, RATE)]
        found = page.evaluate(script, wave.tolist())
        assert [fault[: len(begin)] for fault, begin in zip(found, expected, strict=True)] == expected


def test_no_permission_for_the_microphone(open_page: Open) -> None:
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
    page = open_page("", refuse)
    page.click("#voice-record")
    page.wait_for_selector("#voice-status.bad")
    assert "may not use the microphone" in page.inner_text("#voice-status")
    assert page.is_enabled("#voice-record")


@pytest.mark.parametrize(
    ("query", "script", "message"),
    [
        ("", "delete globalThis.AudioWorkletNode;", "This browser has no AudioWorklet"),
        ("", "WebAssembly.validate = () => false;", "This browser has no SIMD in WebAssembly"),
        ("?model=damaged.ss", "", "expected"),
    ],
)
def test_what_stops_the_page(query: str, script: str, message: str, open_page: Open) -> None:
    page = open_page(query, script, ready=False)
    page.wait_for_selector("#fatal:visible")
    assert message in page.inner_text("#fatal")
    assert page.is_disabled("#voice-record")


def test_offline_and_small(open_page: Open) -> None:
    before = Handler.sent
    page = open_page()
    page.wait_for_selector("#offline:not(:empty)")
    assert 2_000_000 < Handler.sent - before <= 4_000_000  # what is kept for use without a network included
    page.context.set_offline(True)
    page.reload()
    page.wait_for_selector("#example:enabled")
    page.click("#example")
    page.wait_for_selector("#result:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_widths(width: int, scheme: str, open_page: Open, tmp_path: Path) -> None:
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme, is_mobile=width < 800, has_touch=width < 800)
    pictures = Path(os.environ.get("WEB_PICTURES", tmp_path))
    page.screenshot(path=pictures / f"{width}-{scheme}-start.png", full_page=True)
    page.click("#example")
    page.wait_for_selector("#result:visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=pictures / f"{width}-{scheme}.png", full_page=True)
    page.click("#audio-live")
    page.wait_for_selector("#stop:visible")
    expect(page.locator("#time")).to_contain_text("0:03", timeout=20000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=pictures / f"{width}-{scheme}-live.png", full_page=True)
