// The page: its three steps, and what it says.

import { decode, encodeWav, FileExtraction, join, Microphone, MOST_MINUTES, Problem } from "./audio.js";
import { findError, findFaults } from "./enrolment.js";
import { Player } from "./player.js";
import { drawSpectrograms, RollingSpectrogram } from "./spectrogram.js";

const LONGEST_ENROLMENT = 30; // seconds that are recorded
const QUIETEST = -60; // dB of a meter
const SILENCE = 2; // seconds of zeros after which the page asks whether the microphone is muted
const ROLLING = 8; // seconds of a live spectrogram
const MINUTE = 7500; // quanta of 128 samples at 16 kHz, over which times are shown while live
const $ = (id) => document.getElementById(id);

let engine; // { module, model, rate, hop, delay, latency, shortestEnrolment }: the compiled library, a model file, and its facts
let enroller; // the worker
let asked = Promise.resolve(); // its last answer
let voice; // { name, samples, from, to }: the recording of step 1 and the marked stretch in samples
let conditions; // of the enrolled speaker; undefined while there is none
let mixture; // { name, samples }: the recording of step 2
let recorder, live, extraction, player, sample; // what is running
let result; // { name, original, extracted }
let times = [];

// Starting

async function start() {
  const missing = findMissing();
  if (missing) throw new Problem(`This browser has no ${missing}, which this page needs. A newer version of any browser has it.`);
  const parameters = new URLSearchParams(location.search);
  const [library, model] = await Promise.all(["libss.wasm", parameters.get("model") ?? "model.ss"].map(load));
  const module = await WebAssembly.compile(library);
  enroller = new Worker("enroller.js", { type: "module" });
  const { facts } = await ask({ module, model });
  engine = { module, model, ...facts };
  $("axis-top").textContent = engine.rate / 2000;
  for (const id of ["voice-record", "voice-file", "example"]) $(id).disabled = false;
  if (navigator.serviceWorker && location.protocol.startsWith("http")) {
    await navigator.serviceWorker.register("service_worker.js");
    await navigator.serviceWorker.ready;
    $("offline").textContent = "It is stored for that now.";
  }
}

function findMissing() {
  if (!globalThis.WebAssembly) return "WebAssembly";
  // A function that returns a vector: only browsers with SIMD take it.
  const simd = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  if (!WebAssembly.validate(new Uint8Array(simd))) return "SIMD in WebAssembly";
  if (!globalThis.AudioWorkletNode) return isSecureContext ? "AudioWorklet" : "AudioWorklet on pages without https";
  return undefined;
}

async function load(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Problem(`${name} could not be loaded (${answer.status}). Load the page again.`);
  return answer.arrayBuffer();
}

/** What the enrolling worker answers; questions wait for one another. */
function ask(question) {
  const answer = asked.then(
    () =>
      new Promise((resolve, reject) => {
        enroller.onmessage = ({ data }) => (data.error ? reject(new Problem(data.error)) : resolve(data));
        enroller.onerror = () => reject(new Error("the worker could not start"));
        enroller.postMessage(question);
      }),
  );
  asked = answer.catch(() => undefined);
  return answer;
}

// Step 1: whose voice?

async function takeVoice(name, samples) {
  say("voice-status", "");
  voice = { name, samples, from: 0, to: samples.length };
  $("stretch").hidden = false;
  $("voice-name").textContent = name;
  drawSpectrograms([$("voice-canvas"), samples]);
  await enroll();
}

async function enroll() {
  const stretch = voice.samples.slice(voice.from, voice.to);
  voice.stretch = stretch;
  showStretch();
  let found;
  const error = findError(stretch, engine.rate, engine.shortestEnrolment);
  if (!error) found = (await ask({ recording: stretch })).conditions;
  if (voice.stretch !== stretch) return; // another one was marked meanwhile
  conditions = found;
  if (error) {
    say("voice-status", error, "bad");
  } else {
    say("voice-status", "", "good");
    const line = document.createElement("b");
    line.textContent = `The voice is ready: ${(stretch.length / engine.rate).toFixed(1)} seconds.`;
    $("voice-status").append(line, ...findFaults(stretch, engine.rate).map(warn));
  }
  $("audio-file").disabled = $("audio-same").disabled = error;
  $("audio-live").disabled = error || live;
  $("audio-hint").textContent = error
    ? "First choose the voice above."
    : "Extract the voice from a recording, or from the microphone while people speak.";
  if (!error && mixture && !live) await extract();
}

function warn(text) {
  const line = document.createElement("span");
  line.className = "warn";
  line.textContent = text;
  return line;
}

async function record() {
  if (recorder) return endRecording();
  stopSounds();
  await stopLive();
  $("voice-record").disabled = true;
  try {
    const recording = await Microphone.open(engine.rate);
    recording.parts = [];
    recording.track.onended = guard(endRecording, "voice-status");
    let n = 0;
    await recording.record(engine.rate, (input) => {
      recording.parts.push(input);
      n += input.length;
      $("recording-time").textContent = `${(n / engine.rate).toFixed(1)} s`;
      showLevel("recording-meter", input);
      if (n > LONGEST_ENROLMENT * engine.rate) guard(endRecording, "voice-status")();
    });
    recorder = recording;
  } finally {
    $("voice-record").disabled = false;
  }
  $("voice-record").textContent = "Stop";
  $("recording").hidden = false;
  return undefined;
}

async function endRecording() {
  const ending = recorder;
  recorder = undefined;
  if (!ending) return;
  $("voice-record").textContent = "Record again";
  $("recording").hidden = true;
  await ending.end();
  $("audio-same").hidden = true;
  await takeVoice("Your recording", join(ending.parts));
}

async function takeVoiceFile(file) {
  const samples = await decode(file, engine.rate);
  $("audio-same").hidden = false;
  await takeVoice(file.name, samples);
}

function showStretch() {
  const [from, to] = [voice.from, voice.to].map((n) => n / voice.samples.length);
  $("selection").style.left = `${100 * from}%`;
  $("selection").style.width = `${100 * (to - from)}%`;
  $("selection").hidden = from === 0 && to === 1;
  $("whole").disabled = $("selection").hidden;
  for (const id of ["from", "to"]) {
    $(id).max = (voice.samples.length / engine.rate).toFixed(2);
    $(id).value = (voice[id] / engine.rate).toFixed(2);
  }
}

/** Marks the samples between two places, in either order. */
function mark(a, b) {
  const clamp = (n) => Math.max(0, Math.min(voice.samples.length, Math.round(n || 0)));
  [voice.from, voice.to] = [clamp(Math.min(a, b)), clamp(Math.max(a, b))];
  showStretch();
}

function dragStretch(event) {
  if (event.button || !voice) return;
  const screen = $("voice-screen");
  const at = ({ clientX }) => {
    const { left, width } = screen.getBoundingClientRect();
    return ((clientX - left) / width) * voice.samples.length;
  };
  const first = at(event);
  const before = [voice.from, voice.to];
  screen.setPointerCapture(event.pointerId);
  screen.onpointermove = (move) => mark(first, at(move));
  const end = (last) => {
    screen.onpointermove = screen.onpointerup = screen.onpointercancel = null;
    // A tap, or a touch that became scrolling, marks nothing.
    if (last.type === "pointercancel" || Math.abs(last.clientX - event.clientX) < 4) mark(...before);
    else guard(enroll)();
  };
  screen.onpointerup = screen.onpointercancel = end;
}

function playStretch() {
  if (sample) return sample.stop(0);
  stopSounds();
  const samples = voice.samples.slice(voice.from, voice.to);
  const player = new Player({ original: samples }, engine.rate, () => {
    $("voice-play").textContent = player.playing ? "Stop" : "Play";
    if (player.playing || sample !== player) return;
    sample = undefined;
    player.context.close();
  });
  sample = player;
  player.listen("original");
  return player.play();
}

async function takeExample() {
  const [enrolment, mixed] = await Promise.all(["example-voice.flac", "example-mixture.flac"].map(load));
  const names = ["example-voice.flac", "example-mixture.flac"];
  const [first, second] = [enrolment, mixed].map((bytes, i) => new File([bytes], names[i]));
  mixture = undefined;
  await takeVoiceFile(first);
  await takeMixture(second);
}

// Step 2: which audio?

async function takeMixture(file) {
  say("audio-status", "");
  mixture = { name: file.name, samples: await decode(file, engine.rate) };
  await extract();
}

async function extract() {
  const job = mixture;
  await stopLive();
  mixture = job;
  extraction?.cancel();
  showResult(undefined);
  const [input, output] = [[], []];
  let n = 0;
  times = [];
  $("progress").hidden = false;
  $("progress").value = 0;
  say("audio-status", "");
  const began = performance.now();
  const running = new FileExtraction(engine, conditions, job.samples, (batch) => {
    input.push(batch.input);
    output.push(batch.output);
    n += batch.input.length;
    if (running !== extraction) return;
    times.push(...batch.times);
    $("progress").value = n / job.samples.length;
  });
  extraction = running;
  try {
    await running.done;
  } finally {
    if (running === extraction) $("progress").hidden = true;
  }
  if (running !== extraction) return; // another voice or another recording was chosen meanwhile
  extraction = undefined;
  const seconds = (performance.now() - began) / 1000;
  say("audio-status", `${job.name}: done.`);
  showResult({ name: job.name, original: join(input), extracted: join(output) });
  showTimes();
  $("latency").textContent = `${((1000 * engine.latency) / engine.rate).toFixed(1)} ms`;
  $("latency-parts").textContent = "of the model: so far it looks ahead";
  $("speed-title").textContent = "Speed";
  $("speed").textContent = `${(n / engine.rate / seconds).toFixed(0)} times`;
  $("speed-parts").textContent = "as fast as the recording sounds";
  $("result").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

async function startLive() {
  stopSounds();
  await endRecording();
  extraction?.cancel();
  extraction = mixture = undefined;
  showResult(undefined);
  say("audio-status", "");
  $("audio-live").disabled = true;
  try {
    const microphone = await Microphone.open(engine.rate);
    const parts = { input: [], output: [] };
    const state = { microphone, parts, n: 0, sound: 0, quanta: 0, empty: 0 }; // sound: where the last sample was that is not 0
    times = [];
    await microphone.extract(engine, conditions, "mute", (batch) => takeBatch(state, batch));
    live = state;
    microphone.track.onended = guard(stopLive);
    microphone.ended.catch(
      guard((error) => {
        throw error;
      }),
    );
  } catch (error) {
    $("audio-live").disabled = false;
    throw error;
  }
  showMode("live");
  live.rolling = ["original", "extracted"].map((name) => new RollingSpectrogram($(`${name}-canvas`), engine.rate, ROLLING));
  live.shown = setInterval(showLive, 500);
  live.lock = navigator.wakeLock?.request("screen").catch(() => undefined); // a phone that sleeps stops listening
  showLive();
  $("stop").focus();
}

function takeBatch(state, { input, output, times: added, empty }) {
  state.parts.input.push(input);
  state.parts.output.push(output);
  state.n += input.length;
  if (input.some((value) => value)) state.sound = state.n;
  state.quanta += added.length;
  state.empty += empty;
  times.push(...added);
  times = times.slice(-MINUTE);
  if (state !== live) return;
  [input, output].forEach((samples, i) => live.rolling?.[i].push(samples));
  showLevel("original-meter", input);
  showLevel("extracted-meter", output);
  if (state.n > 60 * MOST_MINUTES * engine.rate) guard(stopLive)();
}

function showLive() {
  showTimes();
  const { extraction: own, devices } = live.microphone.latency();
  $("latency").textContent = `${(own + devices).toFixed(0)} ms`;
  $("latency-parts").textContent = `extraction ${own.toFixed(1)} ms, browser and devices ${devices.toFixed(0)} ms`;
  const quantum = (1000 * 128) / live.microphone.context.sampleRate;
  const gaps = Object.entries(live.microphone.gaps()).filter(([, gap]) => gap !== undefined);
  $("speed-title").textContent = "Dropped quanta";
  $("speed").textContent = live.empty + gaps.reduce((n, [, gap]) => n + Math.round(gap / quantum), 0);
  const late = `of ${live.quanta}; ${times.filter((time) => time > quantum).length} too slow`;
  $("speed-parts").textContent = [late, ...gaps.map(([name, gap]) => `gaps of ${name}: ${gap.toFixed(0)} ms`)].join("; ");
  $("time").textContent = clockTime(live.n / engine.rate);
  const silent = live.n - live.sound > SILENCE * engine.rate;
  say("audio-status", silent ? "Live, but the microphone gives nothing. Is it muted?" : "Live: the microphone is on.", silent ? "bad" : "");
}

async function stopLive() {
  const ending = live;
  live = undefined;
  if (!ending) return;
  clearInterval(ending.shown);
  (await ending.lock)?.release();
  await ending.microphone.end();
  $("audio-live").disabled = !conditions;
  say("audio-status", "The microphone is off.");
  mixture = { name: "microphone.wav", samples: join(ending.parts.input) };
  showResult({ name: mixture.name, original: mixture.samples, extracted: join(ending.parts.output) });
  $("play").focus();
}

// Step 3: listen

/** mode: "live" or "file"; undefined hides the step. */
function showMode(mode) {
  $("result").hidden = !mode;
  $("result").classList.toggle("playable", mode === "file");
  for (const id of ["stop", "mute-choice", "live-hint"]) $(id).hidden = mode !== "live";
  for (const id of ["play", "downloads"]) $(id).hidden = mode !== "file";
  document.querySelector(".position").hidden = mode !== "file";
  const choice = mode === "live" ? "mute" : "extracted";
  document.querySelector(`input[value=${choice}]`).checked = true;
  $("axis-begin").textContent = mode === "live" ? `${ROLLING} s ago` : clockTime(0);
  $("axis-end").textContent = mode === "live" ? "now" : "";
  listen();
}

function showResult(found) {
  player?.close();
  player = undefined;
  for (const name of ["extracted", "original"]) {
    if (result) URL.revokeObjectURL($(`download-${name}`).href);
  }
  result = found;
  showMode(found && "file");
  if (!found) return;
  player = new Player({ original: found.original, extracted: found.extracted }, engine.rate, showPlaying);
  listen();
  drawResult();
  $("position").max = player.length;
  $("axis-end").textContent = clockTime(player.length);
  const name = found.name.replace(/\.[^.]*$/, "");
  for (const kind of ["extracted", "original"]) {
    $(`download-${kind}`).href = URL.createObjectURL(encodeWav(found[kind], engine.rate));
    $(`download-${kind}`).download = `${name}-${kind}.wav`;
  }
  showPlaying();
}

function drawResult() {
  drawSpectrograms([$("original-canvas"), result.original], [$("extracted-canvas"), result.extracted]);
}

function showPlaying() {
  if (!player) return;
  $("play").textContent = player.playing ? "Pause" : "Play";
  const { position, length } = player;
  $("position").value = position;
  $("position").setAttribute("aria-valuetext", `${position.toFixed(1)} of ${length.toFixed(1)} seconds`);
  $("time").textContent = `${clockTime(position)} / ${clockTime(length)}`;
  document.querySelectorAll(".track .head").forEach((head) => {
    head.style.left = `${(100 * position) / length}%`;
  });
  for (const name of ["original", "extracted"]) showLevel(`${name}-meter`, player.playing ? player.look(name) : []);
  if (player.playing) requestAnimationFrame(showPlaying);
}

/** Applies the switch. */
function listen() {
  const to = document.querySelector("input[name=listen]:checked").value;
  live?.microphone.listen(to);
  player?.listen(to);
  for (const name of ["original", "extracted"]) $(`${name}-track`).classList.toggle("silent", to !== "mute" && to !== name);
  if (live) $("live-hint").hidden = to !== "mute";
}

function stopSounds() {
  player?.pause();
  sample?.stop(0);
}

function showTimes() {
  const sorted = Float32Array.from(times).sort();
  if (!sorted.length) return;
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))].toFixed(1);
  const mean = sorted.reduce((a, b) => a + b, 0) / sorted.length;
  $("quantum").textContent = `${mean.toFixed(2)} ms`;
  $("quantum-parts").textContent = `mean; p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)} ms`;
}

// Words and levels

function say(id, text, kind = "") {
  $(id).textContent = text;
  $(id).className = `status ${kind}`;
}

function showLevel(id, samples) {
  const power = samples.length ? samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length : 0;
  const level = Math.max(QUIETEST, Math.min(0, 10 * Math.log10(power + 1e-10)));
  $(id).style.setProperty("--level", `${100 * (1 - level / QUIETEST)}%`);
  $(id).setAttribute("aria-valuenow", level.toFixed(0));
}

function clockTime(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** An action that shows its errors in the step whose status line has this id. */
function guard(action, id = "audio-status") {
  return async (...values) => {
    try {
      await action(...values);
    } catch (error) {
      if (!(error instanceof Problem)) console.error(error);
      say(id, error instanceof Problem ? error.message : `Something in this page failed: ${error.message}. Load it again.`, "bad");
    }
  };
}

/** Calls an action with the file that the user chose; the same file may be chosen again. */
function onFile(id, action, status) {
  $(id).onchange = guard(async () => {
    const [file] = $(id).files;
    if (file) await action(file);
    $(id).value = "";
  }, status);
}

$("voice-record").onclick = guard(record, "voice-status");
$("example").onclick = guard(takeExample, "voice-status");
$("voice-play").onclick = guard(playStretch, "voice-status");
$("voice-screen").onpointerdown = dragStretch;
$("whole").onclick = guard(async () => {
  mark(0, voice.samples.length);
  await enroll();
}, "voice-status");
for (const id of ["from", "to"]) {
  $(id).onchange = guard(async () => {
    mark($("from").value * engine.rate, $("to").value * engine.rate);
    await enroll();
  }, "voice-status");
}
onFile("voice-file", takeVoiceFile, "voice-status");
onFile("audio-file", takeMixture, "audio-status");
$("audio-same").onclick = guard(async () => {
  mixture = { name: voice.name, samples: voice.samples };
  await extract();
});
$("audio-live").onclick = guard(startLive);
$("stop").onclick = guard(stopLive);
$("play").onclick = guard(() => (player.playing ? player.pause() : player.play()));
$("listen").onchange = listen;
$("position").oninput = guard(() => player.seek(Number($("position").value)));
for (const screen of document.querySelectorAll(".track .screen")) {
  screen.onclick = guard(async ({ clientX }) => {
    const { left, width } = screen.getBoundingClientRect();
    await player?.seek(((clientX - left) / width) * player.length);
  });
}
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar went or came
  width = innerWidth;
  if (voice) drawSpectrograms([$("voice-canvas"), voice.samples]);
  if (result) drawResult();
});

start().catch((error) => {
  if (!(error instanceof Problem)) console.error(error);
  $("fatal").textContent = error instanceof Problem ? error.message : `The page could not start: ${error.message}`;
  $("fatal").hidden = false;
});
