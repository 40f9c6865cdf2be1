// What the piano roll shows and where: rows of pitches and drums, the window of time, drawing, finding notes.

const GUTTER_PIXELS = 92;
const RULER_PIXELS = 22;
const LEAST_SECONDS = 0.25;
const LEAST_ROWS = 6;
const SIDES = ["reference", "estimate"];
const RULER_STEPS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

class RollView {
  constructor() {
    this.layout = "together";
    this.colourBy = "errors";
    this.shown = new Set(CATEGORIES.keys());
    this.width = this.height = 1;
    this.readColours();
  }

  /** Reads the colours from the style sheet again, for example when the colour scheme changes. */
  readColours() {
    this.colours = CATEGORIES.map(themeColour);
    this.theme = Object.fromEntries(
      ["roll", "roll-dark-row", "roll-line", "ink", "faint", "playhead"].map((name) => [name, themeColour(name)]),
    );
    const light = matchMedia("(prefers-color-scheme: dark)").matches ? 66 : 42;
    this.families = Array.from({ length: 16 }, (_, family) => `hsl(${(family * 137 + 210) % 360} 60% ${light}%)`);
  }

  show(notes) {
    this.notes = notes;
    this.end = notes.end + 0.5;
    this.rows = rowsOf(notes);
    this.rowOf = { pitch: new Int16Array(128), drum: new Int16Array(128) };
    this.rows.forEach((row, number) => {
      if (row) this.rowOf[row.kind][row.pitch] = number;
    });
    this.fit();
  }

  fit() {
    Object.assign(this, { start: 0, seconds: this.end, top: 0, rowsShown: this.rows.length });
  }

  /** Changes the window of time by a factor; the moment at `share` of its width stays where it is. */
  zoomTime(factor, share = 0.5) {
    const seconds = clamp(this.seconds * factor, LEAST_SECONDS, this.end);
    this.start += (this.seconds - seconds) * share;
    this.seconds = seconds;
    this.keepInside();
  }

  zoomRows(factor, share = 0.5) {
    const rows = clamp(this.rowsShown * factor, Math.min(LEAST_ROWS, this.rows.length), this.rows.length);
    this.top += (this.rowsShown - rows) * share;
    this.rowsShown = rows;
    this.keepInside();
  }

  move(seconds, rows) {
    this.start += seconds;
    this.top += rows;
    this.keepInside();
  }

  keepInside() {
    this.start = clamp(this.start, 0, this.end - this.seconds);
    this.top = clamp(this.top, 0, this.rows.length - this.rowsShown);
  }

  /** Centres a note unless it is visible. */
  reveal(sideName, index) {
    const side = this.notes[sideName];
    const row = this.rowOfNote(side, index);
    const onset = side.onset[index];
    if (onset < this.start || onset > this.start + 0.95 * this.seconds) this.start = onset - this.seconds / 2;
    if (row < this.top || row + 1 > this.top + this.rowsShown) this.top = row - this.rowsShown / 2;
    this.keepInside();
  }

  x(seconds) {
    return GUTTER_PIXELS + ((seconds - this.start) / this.seconds) * (this.width - GUTTER_PIXELS);
  }

  secondsAt(x) {
    return this.start + ((x - GUTTER_PIXELS) / (this.width - GUTTER_PIXELS)) * this.seconds;
  }

  rowOfNote(side, index) {
    return this.rowOf[side.drum[index] ? "drum" : "pitch"][side.pitch[index]];
  }

  /** Where each side is drawn: `{y, height, row, offset, share}`; a note takes `share` of its row from `offset` on. */
  panes() {
    const height = this.height - RULER_PIXELS;
    if (this.layout === "together") {
      return SIDES.map((_, number) => ({ y: RULER_PIXELS, height, row: height / this.rowsShown, offset: number / 2, share: 0.5 }));
    }
    const each = (height - 8) / 2;
    return SIDES.map((_, number) => ({
      y: RULER_PIXELS + number * (each + 8), height: each, row: each / this.rowsShown, offset: 0, share: 1,
    }));
  }

  draw(context) {
    context.fillStyle = this.theme.roll;
    context.fillRect(0, 0, this.width, this.height);
    const panes = this.panes();
    for (const pane of this.layout === "together" ? panes.slice(0, 1) : panes) this.drawRows(context, pane);
    this.drawRuler(context);
    SIDES.forEach((name, number) => this.drawSide(context, this.notes[name], panes[number]));
    if (this.layout === "stacked") {
      SIDES.forEach((name, number) => {
        const y = panes[number].y;
        context.fillStyle = this.theme.roll;
        context.fillRect(this.width - 78, y + 4, 74, 20);
        if (number) context.fillRect(0, y - 8, this.width, 8);
        context.fillStyle = this.theme.ink;
        context.textAlign = "center";
        context.fillText(name, this.width - 41, y + 14);
      });
    }
  }

  drawRows(context, pane) {
    context.save();
    context.beginPath();
    context.rect(0, pane.y, this.width, pane.height);
    context.clip();
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    let free = -Infinity;
    for (let number = Math.floor(this.top); number < Math.min(this.rows.length, this.top + this.rowsShown); number++) {
      const row = this.rows[number];
      const y = pane.y + (number - this.top) * pane.row;
      if (!row) continue;
      if (row.dark) {
        context.fillStyle = this.theme["roll-dark-row"];
        context.fillRect(GUTTER_PIXELS, y, this.width, pane.row);
      }
      if (row.isC || pane.row > 12) {
        context.fillStyle = this.theme["roll-line"];
        context.fillRect(row.isC ? 0 : GUTTER_PIXELS, Math.round(y + pane.row) - 1, this.width, 1);
      }
      const middle = y + pane.row / 2;
      if ((row.isC || pane.row > 11 || row.kind === "drum") && middle - free > 11) {
        context.fillStyle = this.theme.faint;
        context.fillText(shortened(row.label), GUTTER_PIXELS - 6, middle);
        free = middle;
      }
    }
    context.restore();
  }

  drawRuler(context) {
    const room = (70 * this.seconds) / (this.width - GUTTER_PIXELS);
    const step = RULER_STEPS.find((each) => each >= room) ?? 1200;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (let number = Math.ceil(this.start / step); number * step <= this.start + this.seconds; number++) {
      const x = Math.round(this.x(number * step));
      context.fillStyle = this.theme["roll-line"];
      context.fillRect(x, 0, 1, this.height);
      context.fillStyle = this.theme.faint;
      context.fillText(step < 1 ? `${(number * step).toFixed(2)} s` : timeText(number * step).replace(/\.0$/, ""), x + 4, 11);
    }
  }

  drawSide(context, side, pane) {
    const byColour = new Map();
    const until = this.start + this.seconds;
    for (let index = firstNotBelow(side.onset, this.start - side.longest); index < side.count; index++) {
      if (side.onset[index] > until) break;
      if (side.offset[index] < this.start || !this.shown.has(side.category[index])) continue;
      const colour = this.colourOf(side, index);
      const key = side.category[index] === MISSED ? `missed ${colour}` : colour;
      if (!byColour.has(key)) byColour.set(key, { colour, isHollow: key !== colour, found: [] });
      byColour.get(key).found.push(index);
    }
    context.save();
    context.beginPath();
    context.rect(GUTTER_PIXELS, pane.y, this.width, pane.height);
    context.clip();
    for (const { colour, isHollow, found } of byColour.values()) {
      context.fillStyle = context.strokeStyle = colour;
      context.lineWidth = 1.5;
      for (const index of found) this.drawNote(context, isHollow, ...this.box(side, index, pane));
    }
    context.restore();
  }

  drawNote(context, isHollow, x, y, width, height) {
    if (isHollow && height >= 5 && width >= 5) context.strokeRect(x + 0.75, y + 0.75, width - 1.5, height - 1.5);
    else context.fillRect(x, y, width, height);
  }

  /** The place of a note: x, y, width and height in pixels. */
  box(side, index, pane) {
    const x = this.x(side.onset[index]);
    const row = this.rowOfNote(side, index);
    const room = pane.row * pane.share;
    const gap = room > 5 ? 1 : 0;
    const y = pane.y + (row - this.top + pane.offset) * pane.row + gap / 2;
    const full = this.x(side.offset[index]) - x;
    const width = side.drum[index] ? clamp(pane.row, 3, 8) : Math.max(2, full > 5 ? full - 1 : full);
    return [x, y, width, Math.max(1.5, room - gap)];
  }

  colourOf(side, index) {
    if (this.colourBy === "errors") return this.colours[side.category[index]];
    return side.drum[index] ? this.theme.ink : this.families[side.program[index] >> 3];
  }

  /** The note at a point as `{side, index}`, or null. */
  noteAt(x, y) {
    const panes = this.panes();
    for (let number = SIDES.length - 1; number >= 0; number--) {
      const side = this.notes[SIDES[number]];
      const pane = panes[number];
      if (y < pane.y || y > pane.y + pane.height || x < GUTTER_PIXELS) continue;
      const slack = (8 * this.seconds) / this.width;
      const time = this.secondsAt(x);
      for (let index = firstNotBelow(side.onset, time - side.longest - slack); index < side.count; index++) {
        if (side.onset[index] > time + slack) break;
        if (!this.shown.has(side.category[index])) continue;
        const [left, top, width, height] = this.box(side, index, pane);
        if (x >= left - 2 && x <= left + width + 2 && y >= top && y <= top + height) return { side: SIDES[number], index };
      }
    }
    return null;
  }
}

/** One entry per row from the top: pitches from high to low, an empty row, the drums that are played. */
function rowsOf(notes) {
  const pitches = new Set();
  const drums = new Set();
  for (const name of SIDES) {
    const side = notes[name];
    for (let index = 0; index < side.count; index++) (side.drum[index] ? drums : pitches).add(side.pitch[index]);
  }
  const rows = [];
  if (pitches.size) {
    for (let pitch = Math.min(127, Math.max(...pitches) + 1); pitch >= Math.max(0, Math.min(...pitches) - 1); pitch--) {
      const dark = [1, 3, 6, 8, 10].includes(pitch % 12);
      rows.push({ kind: "pitch", pitch, label: pitchName(pitch), dark, isC: pitch % 12 === 0 });
    }
  }
  if (pitches.size && drums.size) rows.push(null);
  for (const pitch of [...drums].sort((one, other) => other - one)) {
    rows.push({ kind: "drum", pitch, label: report.names.drums[pitch], dark: false, isC: false });
  }
  return rows.length ? rows : [{ kind: "pitch", pitch: 60, label: "C4", dark: false, isC: true }];
}

const shortened = (label) => (label.length > 15 ? `${label.slice(0, 14)}…` : label);
