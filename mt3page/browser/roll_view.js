// What the piano roll shows and where: rows of pitches and drums, the window of time, drawing, finding notes.
//
// What the notes mean is said by a look, of which each page has its own: `sides` (the names of the notes' sides),
// `readColours()`, `isShown(side, index)`, `colourOf(side, index)`, `isHollow(side, index)`, `opacity(side, index)` and
// `drumName(pitch)`; for `PianoRoll` also `describe(notes, sideName, index)`, `stops(notes)` with the sentence `noStops`,
// and `isMarked(side, index)` with the `stripColours` of notes that are not and of those that are.

const GUTTER_PIXELS = 92;
const RULER_PIXELS = 22;
const LEAST_SECONDS = 0.25;
const LEAST_ROWS = 6;
const RULER_STEPS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const BAR_STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256]; // bars from one number to the next
const [BAR_LABEL_PIXELS, LEAST_BAR_PIXELS, LEAST_BEAT_PIXELS] = [34, 6, 14];
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

class RollView {
  constructor(look) {
    this.look = look;
    this.layout = "together";
    this.width = this.height = 1;
    this.readColours();
  }

  /** Reads the colours from the style sheet again, for example when the colour scheme changes. */
  readColours() {
    this.theme = Object.fromEntries(
      ["roll", "roll-dark-row", "roll-line", "bar-line", "ink", "faint", "playhead"].map((name) => [name, themeColour(name)]),
    );
    this.look.readColours();
  }

  /** Shows notes as a whole, or with `keepsPlace` in the window of time that is seen, unless that was everything. */
  show(notes, keepsPlace = false) {
    const wasWhole = !keepsPlace || !this.notes || this.seconds >= this.end;
    const allRows = wasWhole || this.rowsShown >= this.rows.length;
    const top = this.rows?.[Math.floor(this.top)];
    this.notes = notes;
    this.end = notes.end + 0.5;
    this.rows = rowsOf(notes, this.look);
    this.rowOf = { pitch: new Int16Array(128), drum: new Int16Array(128) };
    this.rows.forEach((row, number) => {
      if (row) this.rowOf[row.kind][row.pitch] = number;
    });
    if (wasWhole) this.fit();
    else if (allRows) Object.assign(this, { top: 0, rowsShown: this.rows.length });
    else if (top) this.top = this.rowOf[top.kind][top.pitch];
    this.keepInside();
  }

  fit() {
    Object.assign(this, { start: 0, seconds: this.end, top: 0, rowsShown: this.rows.length });
  }

  /** Shows the time from one moment to another. */
  showWindow(from, to) {
    this.seconds = clamp(to - from, LEAST_SECONDS, this.end);
    this.start = from;
    this.keepInside();
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
    const { sides } = this.look;
    if (sides.length === 1 || this.layout === "together") {
      const [row, share] = [height / this.rowsShown, 1 / sides.length];
      return sides.map((_, number) => ({ y: RULER_PIXELS, height, row, offset: number * share, share }));
    }
    const each = (height - 8) / 2;
    return sides.map((_, number) => ({
      y: RULER_PIXELS + number * (each + 8), height: each, row: each / this.rowsShown, offset: 0, share: 1,
    }));
  }

  draw(context) {
    context.fillStyle = this.theme.roll;
    context.fillRect(0, 0, this.width, this.height);
    const panes = this.panes();
    const isStacked = panes.length > 1 && this.layout === "stacked";
    for (const pane of isStacked ? panes : panes.slice(0, 1)) this.drawRows(context, pane);
    this.drawRuler(context);
    const { sides } = this.look;
    sides.forEach((name, number) => this.drawSide(context, this.notes[name], panes[number]));
    if (isStacked) {
      sides.forEach((name, number) => {
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
    if (this.notes.bars) return this.drawBars(context, this.notes.bars);
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

  /** Bar lines with their numbers instead of seconds; beats between them where there is room. */
  drawBars(context, bars) {
    const { perBar, first } = bars;
    const end = this.start + this.seconds;
    const [from, until] = [bars.barAt(this.start), bars.barAt(end)];
    const width = (this.width - GUTTER_PIXELS) / Math.max((bars.beatAt(end) - bars.beatAt(this.start)) / perBar, 1e-6);
    const step = BAR_STEPS.find((each) => each * width >= BAR_LABEL_PIXELS) ?? BAR_STEPS.at(-1);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (let bar = from; bar <= until; bar++) {
      const isLabelled = bar > 0 && (bar - 1) % step === 0;
      if (width >= LEAST_BAR_PIXELS || isLabelled) this.drawTime(context, bars.startOf(bar), "bar-line");
      if (isLabelled && bars.startOf(bar) >= this.start) {
        context.fillStyle = this.theme.faint;
        context.fillText(String(bar), Math.round(this.x(bars.startOf(bar))) + 4, 11);
      }
      if (width / perBar < LEAST_BEAT_PIXELS) continue;
      for (let beat = 1; beat < perBar; beat++) {
        this.drawTime(context, bars.secondsAt(first + (bar - 1) * perBar + beat), "roll-line");
      }
    }
  }

  drawTime(context, seconds, colour) {
    const x = Math.round(this.x(seconds));
    if (x < GUTTER_PIXELS) return;
    context.fillStyle = this.theme[colour];
    context.fillRect(x, 0, 1, this.height);
  }

  drawSide(context, side, pane) {
    const { look } = this;
    const byStyle = new Map(); // changes of style cost more than notes
    const until = this.start + this.seconds;
    for (let index = firstNotBelow(side.onset, this.start - side.longest); index < side.count; index++) {
      if (side.onset[index] > until) break;
      if (side.offset[index] < this.start || !look.isShown(side, index)) continue;
      const [colour, isHollow, opacity] = [look.colourOf(side, index), look.isHollow(side, index), look.opacity(side, index)];
      const key = `${colour} ${isHollow} ${opacity}`;
      if (!byStyle.has(key)) byStyle.set(key, { colour, isHollow, opacity, found: [] });
      byStyle.get(key).found.push(index);
    }
    context.save();
    context.beginPath();
    context.rect(GUTTER_PIXELS, pane.y, this.width, pane.height);
    context.clip();
    for (const { colour, isHollow, opacity, found } of byStyle.values()) {
      context.fillStyle = context.strokeStyle = colour;
      context.lineWidth = 1.5;
      const boxes = found.map((index) => this.box(side, index, pane));
      context.globalAlpha = opacity;
      for (const box of boxes) this.drawNote(context, isHollow, ...box);
      // A faint note keeps its outline.
      context.globalAlpha = Math.min(1, opacity + 0.3);
      if (opacity < 1) for (const box of boxes) this.drawOutline(context, ...box);
      context.globalAlpha = 1;
    }
    context.restore();
  }

  drawNote(context, isHollow, x, y, width, height) {
    if (isHollow && height >= 5 && width >= 5) context.strokeRect(x + 0.75, y + 0.75, width - 1.5, height - 1.5);
    else context.fillRect(x, y, width, height);
  }

  drawOutline(context, x, y, width, height) {
    if (height < 4 || width < 4) return;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
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

  /** The note at a point as `{side, index}`, or null. */
  noteAt(x, y) {
    const panes = this.panes();
    const { sides } = this.look;
    for (let number = sides.length - 1; number >= 0; number--) {
      const side = this.notes[sides[number]];
      const pane = panes[number];
      if (y < pane.y || y > pane.y + pane.height || x < GUTTER_PIXELS) continue;
      const slack = (8 * this.seconds) / this.width;
      const time = this.secondsAt(x);
      for (let index = firstNotBelow(side.onset, time - side.longest - slack); index < side.count; index++) {
        if (side.onset[index] > time + slack) break;
        if (!this.look.isShown(side, index)) continue;
        const [left, top, width, height] = this.box(side, index, pane);
        if (x >= left - 2 && x <= left + width + 2 && y >= top && y <= top + height) return { side: sides[number], index };
      }
    }
    return null;
  }
}

/** One entry per row from the top: pitches from high to low, an empty row, the drums that are played. */
function rowsOf(notes, look) {
  const pitches = new Set();
  const drums = new Set();
  for (const name of look.sides) {
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
    rows.push({ kind: "drum", pitch, label: look.drumName(pitch), dark: false, isC: false });
  }
  return rows.length ? rows : [{ kind: "pitch", pitch: 60, label: "C4", dark: false, isC: true }];
}

const shortened = (label) => (label.length > 15 ? `${label.slice(0, 14)}…` : label);
