// A small synthesizer: one voice per note, just good enough to hear the notes.

// By General MIDI family: wave, attack in seconds, decay in seconds (0: sounds as long as it is held), loudness.
const VOICES = [
  ["triangle", 0.004, 0.9, 1.0], ["sine", 0.002, 0.5, 1.0], ["sine", 0.015, 0, 0.6], ["triangle", 0.003, 0.6, 1.0],
  ["triangle", 0.006, 0.8, 1.2], ["sawtooth", 0.05, 0, 0.4], ["sawtooth", 0.06, 0, 0.4], ["sawtooth", 0.025, 0, 0.4],
  ["square", 0.02, 0, 0.32], ["sine", 0.03, 0, 0.8], ["square", 0.01, 0, 0.3], ["triangle", 0.12, 0, 0.6],
  ["sine", 0.06, 0, 0.6], ["triangle", 0.004, 0.5, 0.9], ["sine", 0.002, 0.4, 0.9], ["triangle", 0.01, 0.4, 0.5],
];
const KICKS = [35, 36];
const SNARES = [37, 38, 39, 40];
const TOMS = [41, 43, 45, 47, 48, 50];
const LONG_CYMBALS = [46, 49, 51, 52, 53, 55, 57, 59];
const RELEASE_SECONDS = 0.06;
const LOUDNESS = 0.16;

class Synth {
  constructor() {
    this.context = new AudioContext();
    this.limiter = new DynamicsCompressorNode(this.context, { threshold: -14, ratio: 12, attack: 0.003, release: 0.15 });
    this.volume = new GainNode(this.context);
    this.limiter.connect(this.volume).connect(this.context.destination);
    const { sampleRate } = this.context;
    this.noise = new AudioBuffer({ length: sampleRate, sampleRate });
    const samples = this.noise.getChannelData(0);
    let state = 1;
    for (let index = 0; index < samples.length; index++) {
      state = (state * 16807) % 2147483647;
      samples[index] = (2 * state) / 2147483647 - 1;
    }
    this.outputs = [];
  }

  /** Where notes of one side go; `pan` from -1 (left) to 1. Silencing it drops what is sounding. */
  output(pan) {
    const made = new StereoPannerNode(this.context, { pan });
    made.connect(this.limiter);
    this.outputs.push(made);
    return made;
  }

  silence() {
    for (const output of this.outputs) output.disconnect();
    this.outputs = [];
  }

  note(output, pitch, velocity, program, at, seconds) {
    const [type, attack, decay, loudness] = VOICES[program >> 3];
    const peak = LOUDNESS * loudness * (0.15 + 0.85 * (velocity / 127) ** 1.5);
    const oscillator = new OscillatorNode(this.context, { type, frequency: 440 * 2 ** ((pitch - 69) / 12) });
    const gain = this.envelope(at, attack, peak);
    if (decay) gain.gain.setTargetAtTime(0.0001, at + attack, decay * 2 ** ((60 - pitch) / 36));
    const end = at + Math.max(seconds, attack + 0.03);
    gain.gain.setTargetAtTime(0, end, RELEASE_SECONDS / 3);
    oscillator.connect(gain).connect(output);
    oscillator.start(at);
    oscillator.stop(end + 3 * RELEASE_SECONDS);
  }

  drum(output, pitch, velocity, at) {
    const loudness = velocity / 127;
    if (KICKS.includes(pitch)) this.thump(output, 130, 48, 0.12, 0.9 * loudness, at);
    else if (TOMS.includes(pitch)) this.thump(output, 2 * (pitch + 25), pitch + 25, 0.15, 0.5 * loudness, at);
    else if (SNARES.includes(pitch)) {
      this.hiss(output, "bandpass", 1900, 0.06, 0.5 * loudness, at);
      this.thump(output, 230, 180, 0.05, 0.25 * loudness, at);
    } else this.hiss(output, "highpass", 7000, LONG_CYMBALS.includes(pitch) ? 0.22 : 0.025, 0.22 * loudness, at);
  }

  thump(output, fromHz, toHz, decay, peak, at) {
    const oscillator = new OscillatorNode(this.context, { type: "sine", frequency: fromHz });
    oscillator.frequency.setValueAtTime(fromHz, at);
    oscillator.frequency.exponentialRampToValueAtTime(toHz, at + 0.07);
    const gain = this.envelope(at, 0.002, peak);
    gain.gain.setTargetAtTime(0, at + 0.002, decay);
    oscillator.connect(gain).connect(output);
    oscillator.start(at);
    oscillator.stop(at + 6 * decay);
  }

  hiss(output, type, frequency, decay, peak, at) {
    const source = new AudioBufferSourceNode(this.context, { buffer: this.noise, loop: true });
    const gain = this.envelope(at, 0.001, peak);
    gain.gain.setTargetAtTime(0, at + 0.001, decay);
    source.connect(new BiquadFilterNode(this.context, { type, frequency })).connect(gain).connect(output);
    source.start(at);
    source.stop(at + 6 * decay);
  }

  envelope(at, attack, peak) {
    const gain = new GainNode(this.context, { gain: 0 });
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(peak, at + attack);
    return gain;
  }
}
