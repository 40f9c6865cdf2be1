// The data of the page, and values as text.

const report = JSON.parse(document.getElementById("report-data").textContent);
const CATEGORIES = report.categories;
const CORRECT = CATEGORIES.indexOf("correct");
const MISSED = CATEGORIES.indexOf("missed");
const TICKS_PER_SECOND = 10000;
const NO_PARTNER = 0xffffffff;
const DRUM_BIT = 0x80;

const MEANINGS = {
  correct: "Onset, pitch, instrument and offset agree.",
  velocity: "Everything agrees except the velocity.",
  offset: "The offset differs.",
  instrument: "Another instrument plays it; for drums, another drum.",
  octave: "One or more whole octaves off.",
  early: "The note starts more than 50 ms too early.",
  late: "The note starts more than 50 ms too late.",
  split: "One note of the reference became several.",
  merged: "Several notes of the reference became one.",
  missed: "Only in the reference.",
  ghost: "Only in the estimate.",
};

const element = (id) => document.getElementById(id);

/** A new element with properties (`class`, `text`, attributes) and children. */
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** The notes of one side: times in seconds, everything else as bytes, in the order of the onsets. */
function unpackNotes(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const count = packed.count;
  const words = new Uint32Array(bytes.buffer, 0, 3 * count);
  const octets = (number) => bytes.subarray(12 * count + number * count, 12 * count + (number + 1) * count);
  const onset = Float64Array.from(words.subarray(0, count), (ticks) => ticks / TICKS_PER_SECOND);
  const offset = onset.map((time, index) => time + words[count + index] / TICKS_PER_SECOND);
  const programs = octets(2);
  return {
    count,
    onset,
    offset,
    partner: words.subarray(2 * count, 3 * count),
    pitch: octets(0),
    velocity: octets(1),
    program: programs.map((program) => program & ~DRUM_BIT),
    drum: programs.map((program) => (program & DRUM_BIT ? 1 : 0)),
    category: octets(3),
    longest: onset.reduce((longest, time, index) => Math.max(longest, offset[index] - time), 0),
  };
}

const unpacked = new Map();

/** Both sides of a piece and its length; unpacked when first needed. */
function notesOf(piece) {
  if (!unpacked.has(piece)) {
    const reference = unpackNotes(piece.reference);
    const estimate = unpackNotes(piece.estimate);
    let end = 1;
    for (const side of [reference, estimate]) for (const time of side.offset) end = Math.max(end, time);
    unpacked.set(piece, { reference, estimate, end });
  }
  return unpacked.get(piece);
}

/** The first index whose value is not below `wanted`, in sorted values. */
function firstNotBelow(values, wanted) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

const PITCH_NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const pitchName = (pitch) => PITCH_NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);

/** The main metrics of a protocol, or all of them. */
function chosenMetrics(protocol, metrics, onlyMain) {
  const main = metrics.filter((metric) => report.headlines[protocol]?.includes(metric));
  return onlyMain && main.length ? main : metrics;
}

function numberText(value) {
  if (typeof value !== "number") return "–";
  if (Number.isInteger(value) && Math.abs(value) > 1) return value.toLocaleString("en");
  return value.toFixed(Math.abs(value) >= 100 ? 1 : 4).replace("-", "−");
}

const percentText = (value) => (typeof value === "number" ? `${(100 * value).toFixed(1)} %`.replace("-", "−") : "–");

function timeText(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

/** What a note is and what is wrong with it, in a few lines. */
function describeNote(notes, sideName, index) {
  const side = notes[sideName];
  const other = notes[sideName === "reference" ? "estimate" : "reference"];
  const what = (table, at) => {
    const name = table.drum[at] ? report.names.drums[table.pitch[at]] : pitchName(table.pitch[at]);
    const who = table.drum[at] ? "drums" : report.names.programs[table.program[at]];
    return `${name}, ${who}, ${table.onset[at].toFixed(3)} to ${table.offset[at].toFixed(3)} s, velocity ${table.velocity[at]}`;
  };
  const category = CATEGORIES[side.category[index]];
  const lines = [`${category}: ${MEANINGS[category]}`, `${sideName}: ${what(side, index)}`];
  const partner = side.partner[index];
  if (partner !== NO_PARTNER) {
    lines.push(`${sideName === "reference" ? "estimate" : "reference"}: ${what(other, partner)}`);
    const sign = sideName === "estimate" ? 1 : -1;
    const shift = 1000 * sign * (side.onset[index] - other.onset[partner]);
    lines.push(`onset ${shift < 0 ? "−" : "+"}${Math.abs(shift).toFixed(0)} ms`);
  }
  return lines.join("\n");
}

/** The value of a custom property of the style sheet, as the colour scheme in use has it. */
const themeColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
