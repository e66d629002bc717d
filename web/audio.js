// Audio from files and the microphone, extraction on the audio thread, and WAV files.

/** What the user has to know; other errors are faults of the page. */
export class Problem extends Error {}

const LONGEST_RESUME = 5000; // ms; without a device to play on, a context never starts in Firefox

export const MOST_MINUTES = 30; // of a recording: two minutes take 15 MB at the model's rate, original and estimate

const BATCH_OF_FILES = 125; // quanta, a second
const BATCH_OF_MICROPHONES = 8; // quanta, 64 ms
const LONGEST_START = 1000; // ms after which a suspended context is resumed: some browsers start nothing in one

/** The samples of a file [n] at `rate` in Hz: the mean of its channels. Throws a Problem. */
export async function decode(file, rate) {
  let decoded;
  try {
    decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Problem(`${file.name}: this browser cannot decode this file as audio. WAV, MP3, FLAC and M4A usually work.`);
  }
  if (decoded.duration > 60 * MOST_MINUTES) {
    throw new Problem(`${file.name} lasts ${Math.ceil(decoded.duration / 60)} minutes. The page takes at most ${MOST_MINUTES}.`);
  }
  const samples = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const values = decoded.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) samples[i] += values[i] / decoded.numberOfChannels;
  }
  return samples;
}

/** Samples -> a WAV file of 16 bits, as a Blob. */
export function encodeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => {
    view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(32768 * sample))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

/** Batches that came one after the other -> one array. */
export function join(parts) {
  const all = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Extracts from samples at the model's rate, faster than they sound. onBatch gets { input, output, times, ... }; see worklet.js. */
export class FileExtraction {
  constructor(engine, conditions, samples, onBatch) {
    this.done = this.run(engine, conditions, samples, onBatch);
  }

  async run({ rate, module, model }, conditions, samples, onBatch) {
    const context = new OfflineAudioContext(1, samples.length + 128, rate);
    await context.audioWorklet.addModule("worklet.js");
    const options = { module, model, conditions, quanta: BATCH_OF_FILES, length: samples.length };
    this.node = new AudioWorkletNode(context, "extractor", nodeOptions(options));
    const buffer = new AudioBuffer({ length: samples.length, sampleRate: rate });
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(this.node).connect(context.destination);
    source.start();
    const ended = endOf(this.node, onBatch);
    await context.startRendering();
    await ended;
  }

  cancel() {
    this.node?.port.postMessage("end");
  }
}

/** The microphone. Opening it throws a Problem. `live` are context and source; `close()` gives the microphone back. */
export class Microphone {
  static async open(rate) {
    const microphone = new Microphone();
    if (!navigator.mediaDevices) throw new Problem("The microphone works only on https pages and on localhost.");
    try {
      // Processing for calls would remove the very voices that are to be told apart, and delay them.
      const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      microphone.stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      if (error.name === "NotAllowedError") {
        throw new Problem("This page may not use the microphone. Allow it in the browser's settings of this site, then try again.");
      }
      // WebKit says OverconstrainedError, although nothing here is compulsory.
      if (["NotFoundError", "OverconstrainedError"].includes(error.name)) {
        throw new Problem("No microphone was found. Connect one, then try again.");
      }
      throw new Problem(`The microphone could not be opened: ${error.message}`);
    }
    try {
      microphone.context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
      microphone.source = microphone.context.createMediaStreamSource(microphone.stream);
    } catch {
      // Firefox resamples no microphone: the worklet does it.
      microphone.context?.close();
      microphone.context = new AudioContext({ latencyHint: "interactive" });
      microphone.source = microphone.context.createMediaStreamSource(microphone.stream);
    }
    await microphone.context.suspend(); // until the audio thread has something to do
    await microphone.context.audioWorklet.addModule("worklet.js");
    return microphone;
  }

  get track() {
    return this.stream.getAudioTracks()[0];
  }

  /** Records at `rate` until `end()`: onBatch gets arrays of samples. */
  async record(rate, onBatch) {
    this.node = new AudioWorkletNode(this.context, "recorder", nodeOptions({ rate }));
    this.ended = endOf(this.node, ({ input }) => onBatch(input));
    await this.begin();
  }

  /** Extracts until `end()`; returns once the audio thread is ready. listen: what is played, see worklet.js. */
  async extract({ module, model }, conditions, listen, onBatch) {
    this.node = new AudioWorkletNode(
      this.context,
      "extractor",
      nodeOptions({ module, model, conditions, quanta: BATCH_OF_MICROPHONES, listen }),
    );
    const ready = new Promise((resolve) => {
      this.ended = endOf(this.node, onBatch, resolve);
    });
    const starting = Promise.race([ready, this.ended]);
    await Promise.race([starting, new Promise((resolve) => setTimeout(resolve, LONGEST_START))]);
    this.before = this.playbackGaps();
    await this.begin();
    this.lag = await starting;
  }

  /** Lets the node hear the microphone. Throws a Problem. */
  async begin() {
    this.source.connect(this.node).connect(this.context.destination);
    const late = new Promise((resolve) => setTimeout(resolve, LONGEST_RESUME));
    await Promise.race([this.context.resume(), late]);
    if (this.context.state === "running") return;
    this.close();
    throw new Problem("The browser cannot start audio. Is there a device to play on? Connect one, then try again.");
  }

  /** What is played from now on. */
  listen(to) {
    this.node.port.postMessage(to);
  }

  /** Milliseconds from microphone to ear: of the extraction, a quantum included, and of the browser and the devices. */
  latency() {
    const extraction = 1000 * (this.lag + 128 / this.context.sampleRate);
    const devices = 1000 * ((this.context.outputLatency || this.context.baseLatency || 0) + (this.track.getSettings().latency ?? 0));
    return { extraction, devices };
  }

  /** Milliseconds since the beginning that playback had nothing to play and that the microphone lost; undefined where the browser does
   * not tell. */
  gaps() {
    const playback = this.playbackGaps() - this.before;
    const { totalFramesDuration: total, deliveredFramesDuration: delivered } = this.track.stats ?? {};
    return { playback: Number.isNaN(playback) ? undefined : playback, microphone: total === undefined ? undefined : total - delivered };
  }

  playbackGaps() {
    return 1000 * (this.context.playbackStats?.underrunDuration ?? NaN);
  }

  /** Ends recording or extraction, after the last batch, and closes the microphone. */
  async end() {
    this.node.port.postMessage("end");
    await this.ended;
    this.close();
  }

  close() {
    this.stream.getTracks().forEach((track) => track.stop());
    this.context.close();
  }
}

function nodeOptions(processorOptions) {
  return { numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1], channelCount: 1, channelCountMode: "explicit", processorOptions };
}

/** Hands the batches of a node on; resolves after the last. onReady gets the lag of an extractor once. */
function endOf(node, onBatch, onReady = () => undefined) {
  return new Promise((resolve, reject) => {
    node.onprocessorerror = () => reject(new Error("the audio thread failed"));
    node.port.onmessage = ({ data }) => {
      if (data.lag !== undefined) onReady(data.lag);
      if (data.input) onBatch(data);
      if (data.ended) resolve();
    };
  });
}
