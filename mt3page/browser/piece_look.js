// What the roll of one piece shows: notes in the colours of their instruments, faint where the model was not sure.

const DRUMS = 128; // as a part, after the programs
const NO_CONFIDENCE = 255;
const CONFIDENCE_STEPS = 200;
const UNCERTAIN = 0.5;
const STRETCH_SECONDS = 5;
const MOST_STRETCHES = 5;
const LEAST_OPACITY = 0.2;
const SHADES = 8;

const partOf = (side, index) => (side.drum[index] ? DRUMS : side.program[index]);
const confidenceOf = (side, index) => (side.confidence[index] === NO_CONFIDENCE ? null : side.confidence[index] / CONFIDENCE_STEPS);

class PieceLook {
  /** `names` has the names of programs and drums. */
  constructor(names) {
    this.names = names;
    this.sides = ["notes"];
    this.isShaded = true;
    this.noStops = "This file does not say how sure the model was of its notes.";
    this.parts = new Map(); // the most frequent first, unless they came later
  }

  readColours() {
    this.colours = Array.from({ length: 10 }, (_, number) => themeColour(`part-${number}`));
    this.ink = themeColour("part-drums");
    this.stripColours = [themeColour("faint"), themeColour("warning")];
  }

  /** Counts the notes of each part; one that is known stays as it was. */
  findParts(side, isOther) {
    if (isOther) this.parts.clear();
    const counts = new Map();
    for (let index = 0; index < side.count; index++) counts.set(partOf(side, index), (counts.get(partOf(side, index)) ?? 0) + 1);
    for (const part of this.parts.values()) part.count = counts.get(part.key) ?? 0;
    for (const [key, count] of [...counts].sort((one, other) => other[1] - one[1])) {
      if (this.parts.has(key)) continue;
      const number = [...this.parts.keys()].filter((each) => each !== DRUMS).length;
      this.parts.set(key, { key, number, name: this.partName(key), count, isMuted: false, isSolo: false });
    }
  }

  /** How many instruments have notes. */
  get numPlaying() {
    return [...this.parts.values()].filter((part) => part.count).length;
  }

  partName(key) {
    return key === DRUMS ? "Drums" : this.names.programs[key];
  }

  isHeard(key) {
    const part = this.parts.get(key);
    const hasSolo = [...this.parts.values()].some((each) => each.isSolo);
    return Boolean(part) && (hasSolo ? part.isSolo : !part.isMuted);
  }

  /** Whether everything is heard as it is. */
  get isWhole() {
    return [...this.parts.keys()].every((key) => this.isHeard(key));
  }

  isShown() {
    return true;
  }

  partColour(key) {
    return key === DRUMS ? this.ink : this.colours[this.parts.get(key).number % this.colours.length];
  }

  colourOf(side, index) {
    return this.partColour(partOf(side, index));
  }

  isHollow() {
    return false;
  }

  opacity(side, index) {
    const sureness = this.isShaded ? (confidenceOf(side, index) ?? 1) : 1;
    const opacity = LEAST_OPACITY + ((1 - LEAST_OPACITY) * Math.round(SHADES * sureness)) / SHADES;
    return this.isHeard(partOf(side, index)) ? opacity : 0.15 * opacity;
  }

  isMarked(side, index) {
    return (confidenceOf(side, index) ?? 1) < UNCERTAIN;
  }

  drumName(pitch) {
    return this.names.drums[pitch];
  }

  noteName(side, index) {
    return side.drum[index] ? this.drumName(side.pitch[index]) : pitchName(side.pitch[index]);
  }

  describe(notes, _, index) {
    const side = notes.notes;
    const sureness = confidenceOf(side, index);
    return [
      `${this.noteName(side, index)}, ${this.partName(partOf(side, index))}`,
      ...(notes.bars ? [notes.bars.placeText(side.onset[index])] : []),
      `${side.onset[index].toFixed(3)} to ${side.offset[index].toFixed(3)} s, velocity ${side.velocity[index]}`,
      ...(sureness === null ? [] : [`confidence ${sureness.toFixed(2)}`]),
    ].join("\n");
  }

  stops(notes) {
    const side = notes.notes;
    const stretches = leastCertain(side, notes.bars).sort((one, other) => one.start - other.start);
    return stretches.map(({ first }) => ({ side: "notes", index: first, onset: side.onset[first] }));
  }
}

/**
 * The places with the least mean confidence, least first: bars if there are any, else stretches of a few seconds.
 * Each is `{start, end, name, first, count, mean}`, where `first` is the index of its first note.
 */
function leastCertain(side, bars = null) {
  const places = new Map();
  for (let index = 0; index < side.count; index++) {
    const sureness = confidenceOf(side, index);
    if (sureness === null) continue;
    const onset = side.onset[index];
    const number = bars ? bars.barAt(onset, EARLY_BEATS) : Math.floor(onset / STRETCH_SECONDS);
    const place = places.get(number) ?? { number, first: index, count: 0, sum: 0 };
    place.count++;
    place.sum += sureness;
    places.set(number, place);
  }
  return [...places.values()]
    .map(({ number, first, count, sum }) => {
      const [start, end] = bars ? [bars.startOf(number), bars.startOf(number + 1)] : [number * STRETCH_SECONDS, (number + 1) * STRETCH_SECONDS];
      const name = bars ? barText(number) : spanText(start, end);
      return { start: Math.max(start, 0), end, name, first, count, mean: sum / count };
    })
    .sort((one, other) => one.mean - other.mean || one.start - other.start)
    .slice(0, MOST_STRETCHES);
}

/** Whole seconds as a span of time: "1:05 to 1:10". */
const spanText = (from, to) => [from, to].map((seconds) => timeText(seconds).replace(/\.0$/, "")).join(" to ");
