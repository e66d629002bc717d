// What may be wrong with a recording to enrol from; the same rules as ss/runtime/enrolment.py.

const FRAME = 0.03; // seconds
const SPEECH_DB = 30; // below the loud frames (their 95th percentile), where speech ends
const SHORTEST = 3; // seconds of speech
const CLIPPED = 0.0005; // part of the samples that are within 1 % of the peak, as the sample before is
const NOISY_DB = 15; // of the mean power over the quietest tenth of the frames

/** Between the two nearest, as numpy does. */
function percentile(sorted, percent) {
  const at = ((sorted.length - 1) * percent) / 100;
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** Why a recording cannot be used at all, in words; undefined for one that can. */
export function findError(recording, rate, shortest) {
  if (recording.length < shortest) {
    const [found, needed] = [recording.length / rate, shortest / rate].map((seconds) => seconds.toFixed(2));
    return `This is too short: ${found} seconds. At least ${needed} seconds are needed, 5 to 15 are best.`;
  }
  if (!recording.some((sample) => Math.abs(sample) > 1e-4)) return "This is silent. Check that the microphone is not muted.";
  return undefined;
}

/** What makes a recording a bad enrolment, in words, and what to do; nothing for a good one. */
export function findFaults(recording, rate) {
  const size = Math.max(1, Math.round(FRAME * rate));
  const powers = [];
  let peak = 0;
  for (let begin = 0; begin < recording.length; begin += size) {
    let sum = 0;
    for (const sample of recording.subarray(begin, begin + size)) {
      sum += sample * sample;
      peak = Math.max(peak, Math.abs(sample));
    }
    powers.push(sum / size);
  }
  const decibels = (power) => 10 * Math.log10(power + 1e-10);
  const levels = powers.map(decibels);
  const sorted = [...levels].sort((a, b) => a - b);
  const loud = percentile(sorted, 95);
  const seconds = FRAME * levels.filter((level) => level > loud - SPEECH_DB).length;
  const snr = decibels(powers.reduce((a, b) => a + b, 0) / powers.length) - percentile(sorted, 10);
  let clipped = 0;
  for (let i = 1; i < recording.length; i++) {
    if (Math.abs(recording[i]) > 0.99 * peak && Math.abs(recording[i - 1]) > 0.99 * peak) clipped += 1;
  }
  const faults = [];
  if (seconds < SHORTEST) faults.push(`There are only ${seconds.toFixed(1)} seconds of speech. Take at least 3, better 5 to 15.`);
  if (clipped / (recording.length - 1) > CLIPPED) faults.push("It is clipped. Record it at a lower level.");
  if (snr < NOISY_DB) faults.push(`It is noisy: speech about ${snr.toFixed(0)} dB above the background. Record it in a quiet place.`);
  return faults;
}
