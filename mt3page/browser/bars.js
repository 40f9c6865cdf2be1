// Beats and bars: the bridge between seconds and musical time, as `TempoMap` of mt3core has it.

const EARLY_BEATS = 0.1; // a note belongs to the beat that it is at, even if it is heard a moment before

class Bars {
  /** `beats` in seconds, `perBar` of them in a bar; `first` is the first one that begins a bar. */
  constructor({ beats, perBar, first, words }) {
    Object.assign(this, { beats, perBar, first, words });
  }

  /** The position in beats; before the first beat and after the last, time runs on as beside them. */
  beatAt(seconds) {
    const place = clamp(firstNotBelow(this.beats, seconds + 1e-9) - 1, 0, this.beats.length - 2);
    return place + (seconds - this.beats[place]) / (this.beats[place + 1] - this.beats[place]);
  }

  secondsAt(beat) {
    const place = clamp(Math.floor(beat), 0, this.beats.length - 2);
    return this.beats[place] + (beat - place) * (this.beats[place + 1] - this.beats[place]);
  }

  /** The number of the bar: 1 for the first whole one, 0 for a pick-up. */
  barAt(seconds, early = 0) {
    return Math.floor((this.beatAt(seconds) - this.first + early) / this.perBar) + 1;
  }

  startOf(bar) {
    return this.secondsAt(this.first + (bar - 1) * this.perBar);
  }

  /** "bar 3, beat 2.5" */
  placeText(seconds) {
    const beat = this.beatAt(seconds) - this.first + 0.005;
    const bar = Math.floor(beat / this.perBar);
    return `${barText(bar + 1)}, beat ${Number((beat - bar * this.perBar + 0.995).toFixed(2))}`;
  }
}

const barText = (bar) => (bar > 0 ? `bar ${bar}` : "the pick-up");
