// The data of the page, and values as text.

const report = JSON.parse(document.getElementById("report-data").textContent);
const CATEGORIES = report.categories;
const CORRECT = CATEGORIES.indexOf("correct");
const MISSED = CATEGORIES.indexOf("missed");
const NO_PARTNER = 0xffffffff;

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

