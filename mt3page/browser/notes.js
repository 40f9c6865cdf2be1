// Notes as arrays.

const TICKS_PER_SECOND = 10000;
const DRUM_BIT = 0x80;

/**
 * Notes in the order of their onsets: times in seconds, everything else as they were packed. `words` and `octets` name
 * the arrays that follow one another in `data`; the first two words are the onset and the length.
 */
function unpackNotes({ count, words, octets, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const notes = { count };
  words.forEach((name, number) => (notes[name] = new Uint32Array(bytes.buffer, 4 * count * number, count)));
  const start = 4 * count * words.length;
  octets.forEach((name, number) => (notes[name] = bytes.subarray(start + count * number, start + count * (number + 1))));
  notes.onset = Float64Array.from(notes.onset, (ticks) => ticks / TICKS_PER_SECOND);
  notes.offset = notes.onset.map((time, index) => time + notes.length[index] / TICKS_PER_SECOND);
  notes.drum = notes.program.map((program) => (program & DRUM_BIT ? 1 : 0));
  notes.program = notes.program.map((program) => program & ~DRUM_BIT);
  notes.longest = longestOf(notes);
  return notes;
}

/** The length of the longest note: so far back may one start that sounds at a moment. */
const longestOf = ({ onset, offset }) => onset.reduce((longest, time, index) => Math.max(longest, offset[index] - time), 0);

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
