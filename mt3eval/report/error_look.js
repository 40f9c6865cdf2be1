// What the roll of a report shows: two sides, each note with its error.

class ErrorLook {
  constructor() {
    this.sides = ["reference", "estimate"];
    this.colourBy = "errors";
    this.shown = new Set(CATEGORIES.keys());
    this.noStops = "The categories shown contain no errors.";
  }

  readColours() {
    this.colours = CATEGORIES.map(themeColour);
    this.ink = themeColour("ink");
    const light = matchMedia("(prefers-color-scheme: dark)").matches ? 66 : 42;
    this.families = Array.from({ length: 16 }, (_, family) => `hsl(${(family * 137 + 210) % 360} 60% ${light}%)`);
    this.stripColours = [this.colours[CORRECT], this.colours[MISSED]];
  }

  isShown(side, index) {
    return this.shown.has(side.category[index]);
  }

  colourOf(side, index) {
    if (this.colourBy === "errors") return this.colours[side.category[index]];
    return side.drum[index] ? this.ink : this.families[side.program[index] >> 3];
  }

  isHollow(side, index) {
    return side.category[index] === MISSED;
  }

  opacity() {
    return 1;
  }

  isMarked(side, index) {
    return side.category[index] !== CORRECT;
  }

  drumName(pitch) {
    return report.names.drums[pitch];
  }

  describe(notes, sideName, index) {
    return describeNote(notes, sideName, index);
  }

  stops(notes) {
    return errorsOf(notes, this.sides);
  }
}

/** All notes with an error in order of time; of a pair, the estimated note stands for both. */
function errorsOf(notes, sides) {
  const errors = [];
  for (const name of sides) {
    const side = notes[name];
    for (let index = 0; index < side.count; index++) {
      const category = side.category[index];
      if (category === CORRECT || (name === "reference" && side.partner[index] !== NO_PARTNER)) continue;
      errors.push({ side: name, index, onset: side.onset[index] });
    }
  }
  return errors.sort((one, other) => one.onset - other.onset);
}
