// Playback of notes and of the recording, together or alone, from any position.

const AHEAD_SECONDS = 0.4; // how early notes are handed over; it only has to cover the wait of a background tab between two rounds
const ROUND_MILLISECONDS = 80;
const START_DELAY_SECONDS = 0.06;
// Of two recordings that play at once.
const ALIGNED_SECONDS = 0.02; // to change the speed all the time could be heard
const JUMP_SECONDS = 0.25;
const MOST_CHANGE = 0.1;

class Player {
  /**
   * `onChange(isPlaying)` is called at start and end, `onProblem(text)` if the recording cannot be played;
   * `isHeard(side, index)` says which notes sound.
   */
  constructor(onChange, onProblem, isHeard = () => true) {
    this.isHeard = isHeard;
    this.onChange = onChange;
    this.onProblem = onProblem;
    this.synth = null;
    this.audio = null;
    this.rendered = null;
    this.isPlaying = false;
    this.isOn = false; // playing, or about to
    this.from = 0;
    this.speed = 1;
    this.volume = 0.7;
    this.balance = null; // null: both as loud as they are; else the share of the notes, from 0 (only the recording) to 1
    this.run = 0; // counts the starts: anything that waited for an earlier one gives up
  }

  show(notes, audioSource) {
    this.pause();
    this.notes = notes;
    this.from = 0;
    this.audio = null;
    this.setRendered(null);
    if (audioSource) {
      this.audio = new Audio();
      this.audio.preload = "metadata";
      this.audio.src = audioSource;
      this.audio.addEventListener("error", () => this.onProblem("The recording could not be loaded. Keep it at the same path relative to this page as when the page was written."));
    }
  }

  /** The address of the notes as a recording, played instead of the synthesizer, or null. */
  setRendered(source, onReady = () => {}) {
    this.rendered?.pause();
    this.rendered = null;
    if (!source) return;
    this.rendered = new Audio(source);
    this.rendered.preload = "auto";
    this.rendered.addEventListener("canplay", onReady);
    this.rendered.addEventListener("error", () => this.onProblem("The sound of the transcription could not be loaded."));
    this.setVolume(this.volume);
  }

  /** Seconds from the start of the piece. */
  get position() {
    if (!this.isPlaying) return this.from;
    return this.from + Math.max(0, this.synth.context.currentTime - this.origin) * this.speed;
  }

  /** More notes of the same piece, while it plays or not. */
  update(notes) {
    this.notes = notes;
    if (!this.isPlaying) return;
    const until = this.position + AHEAD_SECONDS * this.speed;
    for (const voice of this.voices) {
      voice.side = notes[voice.name];
      voice.next = firstNotBelow(voice.side.onset, until);
    }
  }

  /** Plays what `heard` names: the recording as `audio`, and sides of the notes. */
  async play(heard) {
    this.pause();
    const run = ++this.run;
    this.isOn = true;
    this.synth ??= new Synth();
    this.setVolume(this.volume);
    await this.synth.context.resume();
    if (heard.audio && this.audio) await this.start(this.audio);
    if (heard.notes && this.rendered) await this.start(this.rendered);
    if (run !== this.run) return;
    this.origin = this.synth.context.currentTime + START_DELAY_SECONDS;
    const media = [heard.audio && this.audio, heard.notes && this.rendered].find((each) => each && !each.paused);
    if (media) this.origin = this.synth.context.currentTime - (media.currentTime - this.from) / this.speed;
    const sides = Object.keys(heard).filter((name) => name !== "audio" && heard[name] && !this.rendered);
    this.voices = sides.map((name, number) => ({
      name,
      side: this.notes[name],
      next: firstNotBelow(this.notes[name].onset, this.from),
      output: this.synth.output(sides.length > 1 ? 1.4 * number - 0.7 : 0),
    }));
    this.isPlaying = true;
    for (const voice of this.voices) this.sustain(voice);
    this.round();
    this.timer = setInterval(() => this.round(), ROUND_MILLISECONDS);
    this.onChange(true);
  }

  async start(media) {
    media.currentTime = this.from;
    media.playbackRate = this.speed;
    try {
      await media.play();
    } catch (problem) {
      if (problem.name !== "AbortError") this.onProblem(`The recording cannot be played: ${problem.message}`);
    }
  }

  pause() {
    this.run++;
    this.from = this.position;
    this.isOn = false;
    this.audio?.pause();
    this.rendered?.pause();
    if (!this.isPlaying) return;
    this.isPlaying = false;
    clearInterval(this.timer);
    this.synth.silence();
    this.onChange(false);
  }

  setVolume(volume) {
    this.volume = volume;
    // Equal power: at the middle both are 3 dB softer, and together as loud as either alone.
    const [recording, notes] = this.balance === null ? [1, 1] : [Math.cos, Math.sin].map((wave) => wave((this.balance * Math.PI) / 2));
    if (this.synth) this.synth.volume.gain.value = 2 * volume ** 2 * notes;
    if (this.audio) this.audio.volume = volume * recording;
    if (this.rendered) this.rendered.volume = volume * notes;
  }

  setBalance(balance) {
    this.balance = balance;
    this.setVolume(this.volume);
  }

  /** Brings the two recordings together: in one jump, or unheard by playing one a little faster or slower. */
  align() {
    if (!this.rendered || !this.audio || this.audio.paused || this.rendered.paused || this.rendered.seeking) return;
    const late = this.audio.currentTime - this.rendered.currentTime;
    if (Math.abs(late) > JUMP_SECONDS) this.rendered.currentTime = this.audio.currentTime;
    const change = Math.abs(late) > ALIGNED_SECONDS ? Math.max(-MOST_CHANGE, Math.min(MOST_CHANGE, late)) : 0;
    this.rendered.playbackRate = this.speed * (1 + change);
  }

  /** Hands over the notes of the next moments. */
  round() {
    this.align();
    const until = this.position + AHEAD_SECONDS * this.speed;
    for (const voice of this.voices) {
      const { side } = voice;
      for (; voice.next < side.count && side.onset[voice.next] < until; voice.next++) this.sound(voice, voice.next);
    }
    const audioEnd = this.audio && !this.audio.paused ? this.audio.duration || 0 : 0;
    if (this.position > Math.max(this.notes.end, audioEnd) + 0.5) {
      this.pause();
      this.from = 0;
    }
  }

  /** Notes that started before the position and still sound there. */
  sustain(voice) {
    const { side } = voice;
    for (let index = firstNotBelow(side.onset, this.from - side.longest); index < voice.next; index++) {
      if (side.offset[index] > this.from + 0.05 && !side.drum[index]) this.sound(voice, index);
    }
  }

  sound({ side, output }, index) {
    if (!this.isHeard(side, index)) return;
    const start = Math.max(side.onset[index], this.from);
    const at = Math.max(this.synth.context.currentTime, this.origin + (start - this.from) / this.speed);
    const seconds = (side.offset[index] - start) / this.speed;
    if (side.drum[index]) this.synth.drum(output, side.pitch[index], side.velocity[index], at);
    else this.synth.note(output, side.pitch[index], side.velocity[index], side.program[index], at, seconds);
  }
}
