// Spectrograms on canvases: of whole recordings, and of a signal that goes on.

const WINDOW = 512; // samples
const BINS = WINDOW / 2;
const RANGE = 70; // dB from the brightest to the darkest colour
const QUIET = -10; // dB, 50 below a tone of full scale
const MOST_FRAMES = 4; // whose mean is a column

const hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
const cosines = Float32Array.from({ length: BINS }, (_, i) => Math.cos((2 * Math.PI * i) / WINDOW));
const sines = Float32Array.from({ length: BINS }, (_, i) => Math.sin((2 * Math.PI * i) / WINDOW));
const reversed = Uint16Array.from({ length: WINDOW }, (_, i) => {
  let result = 0;
  for (let bit = 1; bit < WINDOW; bit *= 2) result = 2 * result + (i & bit ? 1 : 0);
  return result;
});
const [real, imaginary] = [new Float32Array(WINDOW), new Float32Array(WINDOW)];

// "Inferno" of matplotlib, at nine places.
const STOPS = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "fcffa4"].map((hex) => parseInt(hex, 16));
const COLOURS = Uint32Array.from({ length: 256 }, (_, i) => {
  const at = (i / 256) * (STOPS.length - 1);
  const [a, b, part] = [STOPS[Math.floor(at)], STOPS[Math.floor(at) + 1], at % 1];
  const [red, green, blue] = [16, 8, 0].map((shift) => ((a >> shift) & 255) * (1 - part) + ((b >> shift) & 255) * part);
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});

/** Adds the powers of the window of samples that is centred at `centre` to `powers` [BINS]. */
function addPowers(samples, centre, powers) {
  const begin = Math.round(centre) - WINDOW / 2;
  for (let i = 0; i < WINDOW; i++) {
    real[reversed[i]] = (samples[begin + i] ?? 0) * hann[i];
    imaginary[i] = 0;
  }
  for (let half = 1; half < WINDOW; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [c, s] = [cosines[(k * BINS) / half], -sines[(k * BINS) / half]];
      for (let i = k; i < WINDOW; i += 2 * half) {
        const j = i + half;
        const [a, b] = [real[j] * c - imaginary[j] * s, real[j] * s + imaginary[j] * c];
        real[j] = real[i] - a;
        imaginary[j] = imaginary[i] - b;
        real[i] += a;
        imaginary[i] += b;
      }
    }
  }
  for (let i = 0; i < BINS; i++) powers[i] += real[i] * real[i] + imaginary[i] * imaginary[i];
}

/** Powers in dB of `columns` columns over samples [n], one array [BINS] each. */
function analyse(samples, columns) {
  const span = samples.length / columns;
  const frames = Math.max(1, Math.min(MOST_FRAMES, Math.floor((2 * span) / WINDOW)));
  return Array.from({ length: columns }, (_, column) => {
    const powers = new Float32Array(BINS);
    for (let frame = 0; frame < frames; frame++) addPowers(samples, (column + (frame + 0.5) / frames) * span, powers);
    return powers.map((power) => 10 * Math.log10(power / frames + 1e-9));
  });
}

/** Paints columns, from x = `left` on; the lowest frequency is at the bottom. */
function paint(canvas, columns, left, loudest) {
  if (!columns.length) return;
  const image = new ImageData(columns.length, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < canvas.height; y++) {
    const bin = Math.floor(((canvas.height - 1 - y) / canvas.height) * BINS);
    for (let x = 0; x < columns.length; x++) {
      const part = (columns[x][bin] - loudest) / RANGE + 1;
      pixels[y * columns.length + x] = COLOURS[Math.max(0, Math.min(255, Math.floor(256 * part)))];
    }
  }
  canvas.getContext("2d").putImageData(image, left, 0);
}

function fit(canvas) {
  const scale = Math.min(2, devicePixelRatio);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
}

/** Draws whole recordings with the same colours: the loudest part of the first has the brightest, unless all is very quiet. */
export function drawSpectrograms(...pairs) {
  let loudest;
  for (const [canvas, samples] of pairs) {
    fit(canvas);
    const columns = analyse(samples, canvas.width);
    loudest ??= columns.reduce((most, column) => column.reduce((a, b) => Math.max(a, b), most), QUIET);
    paint(canvas, columns, 0, loudest);
  }
}

/** The last `seconds` of a signal, which moves to the left. */
export class RollingSpectrogram {
  constructor(canvas, rate, seconds) {
    this.canvas = canvas;
    fit(canvas);
    this.span = (rate * seconds) / canvas.width; // samples of a column
    this.waiting = new Float32Array(0);
    this.due = 0; // columns, a fraction of one
    canvas.getContext("2d").fillRect(0, 0, canvas.width, canvas.height);
  }

  push(samples) {
    const all = new Float32Array(this.waiting.length + samples.length);
    all.set(this.waiting);
    all.set(samples, this.waiting.length);
    this.due += samples.length / this.span;
    const n = Math.min(Math.floor(this.due), this.canvas.width);
    this.due -= Math.floor(this.due);
    const columns = Array.from({ length: n }, (_, i) => {
      const powers = new Float32Array(BINS);
      addPowers(all, all.length - WINDOW / 2 - (n - 1 - i + this.due) * this.span, powers);
      return powers.map((power) => 10 * Math.log10(power + 1e-9));
    });
    this.waiting = all.slice(-2 * WINDOW);
    if (n) this.canvas.getContext("2d").drawImage(this.canvas, -n, 0);
    paint(this.canvas, columns, this.canvas.width - n, 30);
  }
}
