// Plays an original and its estimate at the same position, one of them audible.

const FADE = 0.01; // seconds

export class Player {
  /** Samples at `rate` in Hz, of the same length. onChange: called when it starts and stops. */
  constructor(tracks, rate, onChange) {
    this.context = new AudioContext();
    this.onChange = onChange;
    this.length = tracks.original.length / rate; // seconds
    this.offset = 0; // seconds, where it stands or began
    this.tracks = Object.entries(tracks).map(([name, samples]) => {
      const buffer = new AudioBuffer({ length: samples.length, sampleRate: rate });
      buffer.copyToChannel(samples, 0);
      const gain = new GainNode(this.context, { gain: 0 });
      const analyser = new AnalyserNode(this.context, { fftSize: 2048 });
      gain.connect(this.context.destination);
      return { name, buffer, gain, analyser };
    });
  }

  get position() {
    return this.playing ? Math.min(this.length, this.offset + this.context.currentTime - this.began) : this.offset;
  }

  async play() {
    await this.context.resume();
    if (this.offset >= this.length) this.offset = 0;
    for (const track of this.tracks) {
      track.source = new AudioBufferSourceNode(this.context, { buffer: track.buffer });
      track.source.connect(track.gain);
      track.source.connect(track.analyser);
      track.source.start(0, this.offset);
    }
    this.tracks[0].source.onended = () => this.stop(0);
    this.began = this.context.currentTime;
    this.playing = true;
    this.onChange();
  }

  pause() {
    this.stop(this.position);
  }

  stop(offset) {
    if (!this.playing) return;
    this.offset = offset;
    this.playing = false;
    for (const { source } of this.tracks) {
      source.onended = null;
      source.stop();
    }
    this.onChange();
  }

  async seek(seconds) {
    const { playing } = this;
    this.stop(this.position);
    this.offset = Math.max(0, Math.min(this.length, seconds));
    if (playing) await this.play();
    else this.onChange();
  }

  /** Which track is audible: its name. */
  listen(to) {
    for (const { name, gain } of this.tracks) gain.gain.setTargetAtTime(name === to ? 1 : 0, this.context.currentTime, FADE / 3);
  }

  /** The samples that a track plays just now. */
  look(name) {
    const { analyser } = this.tracks.find((track) => track.name === name);
    const samples = new Float32Array(analyser.fftSize);
    analyser.getFloatTimeDomainData(samples);
    return samples;
  }

  close() {
    this.stop(0);
    this.context.close();
  }
}
