// Resampling in a stream, for browsers that give a microphone only at its own rate (Firefox).

const ZEROS = 16; // zero crossings of the sinc on each side

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

export class Resampler {
  /** Rates in Hz. An output sample is given once `reach` input samples after its time have come. */
  constructor(from, to) {
    const common = divisor(from, to);
    this.step = from / common; // between outputs, in units of 1/phases of an input sample
    this.phases = to / common;
    const cutoff = Math.min(1, to / from);
    this.reach = from === to ? 0 : Math.ceil(ZEROS / cutoff);
    this.kernels = Array.from({ length: from === to ? 0 : this.phases }, (_, phase) => this.kernel(phase / this.phases, cutoff));
    this.waiting = new Float32Array(Math.max(0, this.reach - 1));
    this.at = 0; // time of the next output after the first `reach` - 1 waiting samples, in the same units
  }

  /** The weights of the input samples around a time that lies `fraction` after one of them: a sinc under a Hann window. */
  kernel(fraction, cutoff) {
    return Float32Array.from({ length: 2 * this.reach }, (_, k) => {
      const t = k - this.reach + 1 - fraction;
      if (Math.abs(t) >= this.reach) return 0;
      const x = Math.PI * t * cutoff;
      return cutoff * (x ? Math.sin(x) / x : 1) * (0.5 + 0.5 * Math.cos((Math.PI * t) / this.reach));
    });
  }

  /** Samples of any number -> those that are finished at the other rate. */
  process(samples) {
    if (!this.reach) return samples;
    const input = new Float32Array(this.waiting.length + samples.length);
    input.set(this.waiting);
    input.set(samples, this.waiting.length);
    const output = [];
    let first = Math.floor(this.at / this.phases);
    for (; first + 2 * this.reach <= input.length; first = Math.floor(this.at / this.phases)) {
      const kernel = this.kernels[this.at % this.phases];
      let sum = 0;
      for (let k = 0; k < kernel.length; k++) sum += kernel[k] * input[first + k];
      output.push(sum);
      this.at += this.step;
    }
    const done = Math.min(first, input.length);
    this.waiting = input.slice(done);
    this.at -= done * this.phases;
    return Float32Array.from(output);
  }
}
