// What runs on the audio thread: the extractor, with the C library in it, and a recorder for enrolments. Both post to the page what
// came in and went out, at the model's rate, in batches.

import { Model } from "./library.js";
import { Resampler } from "./resample.js";

const QUANTUM = 128; // samples of a call of process()
const WARM_UP = 100; // quanta

// Milliseconds. AudioWorklets have no performance.now() in Chromium; Temporal counts 0.1 ms there, Date whole milliseconds.
const clock = globalThis.performance
  ? () => performance.now()
  : globalThis.Temporal
    ? () => Number(Temporal.Now.instant().epochNanoseconds / 1000n) / 1000
    : () => Date.now();

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

/** Samples that wait, first in, first out. */
class Queue {
  constructor(silence, most) {
    this.samples = new Float32Array(silence + most);
    this.n = silence;
  }

  push(samples) {
    this.samples.set(samples, this.n);
    this.n += samples.length;
  }

  /** Fills an array; what is missing stays 0. */
  pull(into) {
    const n = Math.min(this.n, into.length);
    into.set(this.samples.subarray(0, n));
    this.samples.copyWithin(0, n, this.n);
    this.n -= n;
  }
}

/** Samples that are collected until they are posted. */
class Batch {
  parts = [];

  add(samples) {
    if (samples.length) this.parts.push(samples.slice());
  }

  take() {
    const all = new Float32Array(this.parts.reduce((n, part) => n + part.length, 0));
    let at = 0;
    for (const part of this.parts) {
      all.set(part, at);
      at += part.length;
    }
    this.parts = [];
    return all;
  }
}

/**
 * Extracts one speaker from its input.
 *
 * Options: module, model: the compiled library and the bytes of the model file. conditions: of the speaker. quanta: of a batch.
 * length: samples after which it ends by itself (files); otherwise the message "end" ends it. It takes "original", "extracted" and
 * "mute" as messages: what it plays. Both are heard with the same delay, `lag` in seconds.
 * It posts { lag } when it is ready, then { input, output, times, empty } with the milliseconds of each quantum and the number of
 * quanta that brought no samples although earlier ones did; the last batch has `ended`.
 */
class ExtractorProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    const { module, model: bytes, conditions, quanta, length, listen } = processorOptions;
    this.quanta = quanta;
    this.left = length ?? Infinity;
    this.listen = listen;
    const model = new Model(module, bytes);
    this.down = new Resampler(sampleRate, model.rate);
    this.up = new Resampler(model.rate, sampleRate);
    const perModel = sampleRate / model.rate; // samples here for one of the model
    const most = Math.ceil(QUANTUM / perModel) + 1;
    this.stream = model.stream(conditions, most);
    this.silence = new Float32Array(QUANTUM);
    for (let i = 0; i < WARM_UP; i++) this.stream.process(this.silence.subarray(0, most)); // browsers compile what is called
    this.stream.reset();
    let lag = model.delay + model.hop - divisor(model.hop, QUANTUM); // the longest that a sample waits for its hop
    let late = 0; // by which resampling delays the estimate
    if (this.down.reach) {
      late = this.down.reach + Math.ceil(this.up.reach * perModel);
      lag = Math.ceil((model.delay + model.hop + 1) * perModel) + late;
    }
    const room = 2 * QUANTUM + Math.ceil((model.delay + 2 * model.hop) * perModel) + late;
    this.extracted = new Queue(lag, room);
    this.original = new Queue(lag, room);
    this.unheard = new Float32Array(QUANTUM);
    this.input = new Batch();
    this.output = new Batch();
    this.times = [];
    this.empty = 0;
    this.port.onmessage = ({ data }) => {
      if (data === "end") this.end();
      else this.listen = data;
    };
    this.port.postMessage({ lag: lag / sampleRate });
  }

  process([[channel]], [[out]]) {
    if (this.ended) return false;
    const began = clock();
    const samples = this.down.process(channel ?? this.silence);
    const taken = samples.length > this.left ? samples.subarray(0, this.left) : samples;
    const estimate = this.stream.process(taken);
    this.input.add(taken);
    this.output.add(estimate);
    this.original.push(channel ?? this.silence);
    this.extracted.push(this.up.process(estimate));
    this.original.pull(this.listen === "original" ? out : this.unheard);
    this.extracted.pull(this.listen === "extracted" ? out : this.unheard);
    if (channel) this.heard = true;
    else if (this.heard) this.empty += 1;
    this.left -= taken.length;
    this.times.push(clock() - began);
    if (this.left === 0) this.end();
    else if (this.times.length === this.quanta) this.post();
    return true;
  }

  end() {
    this.output.add(this.stream.flush());
    this.ended = true;
    this.post();
  }

  post() {
    const [input, output, times] = [this.input.take(), this.output.take(), Float32Array.from(this.times)];
    const { empty, ended } = this;
    this.port.postMessage({ input, output, times, empty, ended }, [input.buffer, output.buffer, times.buffer]);
    this.times = [];
    this.empty = 0;
  }
}

/** Posts its input at the rate `rate` (option), in batches { input } of 8 quanta, until it gets a message. */
class RecorderProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.down = new Resampler(sampleRate, processorOptions.rate);
    this.input = new Batch();
    this.count = 0;
    this.port.onmessage = () => {
      this.post(true);
    };
  }

  process([[channel]]) {
    if (this.ended) return false;
    if (channel) this.input.add(this.down.process(channel));
    this.count += 1;
    if (this.count % 8 === 0) this.post(false);
    return true;
  }

  post(ended) {
    const input = this.input.take();
    this.ended = ended;
    this.port.postMessage({ input, ended }, [input.buffer]);
  }
}

registerProcessor("extractor", ExtractorProcessor);
registerProcessor("recorder", RecorderProcessor);
