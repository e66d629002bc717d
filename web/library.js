// The C library (libss) as WebAssembly: a model, the speakers it enrols, and streams. It runs in the page's worker and inside the
// AudioWorklet, where there is neither TextDecoder nor fetch.

export class Model {
  /** module: the compiled library. bytes: a model file. Throws an Error that says what is wrong with the file. */
  constructor(module, bytes) {
    this.library = new WebAssembly.Instance(module, {}).exports;
    this.library._initialize?.();
    const file = this.place(new Uint8Array(bytes));
    this.address = this.library.ss_load_memory(file, bytes.byteLength);
    this.library.free(file);
    if (!this.address) throw new Error(this.text(this.library.ss_error()));
    this.rate = this.library.ss_sample_rate(this.address); // Hz
    // Samples: a stream works in steps of a hop, holds back `delay`, and its output depends on input up to latency - 1 later.
    this.hop = this.library.ss_hop(this.address);
    this.delay = this.library.ss_delay(this.address);
    this.latency = this.library.ss_latency(this.address);
    this.shortestEnrolment = this.library.ss_shortest_enrolment(this.address);
    this.nConditions = this.library.ss_n_conditions(this.address);
  }

  /** A recording of the speaker alone, Float32Array at the model's rate -> the conditions of their streams. Throws an Error. */
  enroll(recording) {
    const samples = this.place(recording);
    const conditions = this.allocate(4 * this.nConditions);
    const failed = this.library.ss_enroll(this.address, samples, recording.length, conditions);
    const result = new Float32Array(this.library.memory.buffer, conditions, this.nConditions).slice();
    this.library.free(samples);
    this.library.free(conditions);
    if (failed) throw new Error(this.text(this.library.ss_error()));
    return result;
  }

  /** A stream that takes up to `most` samples at once. */
  stream(conditions, most) {
    const values = this.place(conditions);
    const address = this.library.ss_stream_new(this.address, values);
    this.library.free(values);
    if (!address) throw new Error(this.text(this.library.ss_error()));
    return new Stream(this, address, most);
  }

  allocate(bytes) {
    const address = this.library.malloc(bytes);
    if (!address) throw new Error(`no memory for ${bytes} bytes`);
    return address;
  }

  /** The address of a copy of a typed array. */
  place(values) {
    const address = this.allocate(values.byteLength);
    new Uint8Array(this.library.memory.buffer, address).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return address;
  }

  /** The text at an address. */
  text(address) {
    const bytes = new Uint8Array(this.library.memory.buffer, address);
    return String.fromCharCode(...bytes.subarray(0, bytes.indexOf(0)));
  }
}

class Stream {
  constructor(model, address, most) {
    this.model = model;
    this.address = address;
    this.most = most;
    this.input = model.allocate(4 * most);
    this.output = model.allocate(4 * (most + model.hop + model.delay));
    this.look();
  }

  /** Up to `most` samples -> what is finished of the estimate: a view that holds until the next call. */
  process(samples) {
    if (!this.samples.length) this.look(); // memory has grown since, so that the views are void
    this.samples.set(samples);
    const n = this.model.library.ss_stream_process(this.address, this.input, samples.length, this.output);
    return this.estimate.subarray(0, n);
  }

  /** The rest of the estimate, so that as many samples came out as went in. */
  flush() {
    if (!this.samples.length) this.look();
    return this.estimate.subarray(0, this.model.library.ss_stream_flush(this.address, this.output));
  }

  /** Begins anew, with the same speaker. */
  reset() {
    this.model.library.ss_stream_reset(this.address);
  }

  look() {
    const { buffer } = this.model.library.memory;
    this.samples = new Float32Array(buffer, this.input, this.most);
    this.estimate = new Float32Array(buffer, this.output, this.most + this.model.hop + this.model.delay);
  }
}
