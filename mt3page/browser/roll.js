// Using the piano roll: pointer, wheel, keys and buttons, the strip below, stepping from one place of interest to the next.

class PianoRoll {
  /** `onSeek(seconds)` is called when a position is chosen. */
  constructor(look, onSeek) {
    this.look = look;
    this.view = new RollView(look);
    this.onSeek = onSeek;
    this.notesCanvas = element("roll-notes");
    this.overCanvas = element("roll-over");
    this.minimap = element("minimap");
    this.tip = element("tip");
    this.position = 0;
    this.selected = null;
    this.isWaiting = false;
    new ResizeObserver(() => this.resize()).observe(element("roll"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.view.readColours();
      this.redraw();
    });
    this.listenToPointer();
    this.listenToMinimap();
    this.notesCanvas.addEventListener("keydown", (event) => this.key(event));
    const zoom = { "zoom-in": 0.5, "zoom-out": 2 };
    for (const [id, factor] of Object.entries(zoom)) this.button(id, () => this.view.zoomTime(factor, this.focusShare()));
    this.button("zoom-fit", () => this.view.fit());
    this.button("rows-taller", () => this.view.zoomRows(0.7));
    this.button("rows-shorter", () => this.view.zoomRows(1 / 0.7));
    this.button("next-stop", () => this.walk(1));
    this.button("previous-stop", () => this.walk(-1));
  }

  button(id, change) {
    element(id).addEventListener("click", () => {
      change();
      this.redraw();
    });
  }

  /** Other notes; with `keepsPlace` they are more of the same piece. */
  show(notes, keepsPlace = false) {
    this.view.show(notes, keepsPlace);
    this.stops = this.look.stops(notes);
    this.selected = null;
    if (!keepsPlace) this.position = 0;
    element("selected").textContent = "\u00a0";
    this.redraw();
  }

  resize() {
    const { clientWidth, clientHeight } = element("roll");
    Object.assign(this.view, { width: clientWidth, height: clientHeight });
    this.redraw();
  }

  /** Draws everything at the next frame. */
  redraw() {
    if (this.isWaiting || !this.view.notes) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      const { width, height } = this.view;
      this.view.draw(sizedContext(this.notesCanvas, width, height));
      this.drawOver();
      this.drawMinimap();
    });
  }

  /** Moves the playhead; the view follows if requested. */
  setPosition(seconds, isFollowing) {
    this.position = seconds;
    const { start, seconds: shown } = this.view;
    if (isFollowing && (seconds < start || seconds > start + 0.92 * shown)) {
      this.view.start = seconds - 0.08 * shown;
      this.view.keepInside();
      this.redraw();
    } else this.drawOver();
  }

  drawOver() {
    const { view } = this;
    if (!view.notes) return;
    const context = sizedContext(this.overCanvas, view.width, view.height);
    context.clearRect(0, 0, view.width, view.height);
    if (this.selected) {
      const side = view.notes[this.selected.side];
      const pane = view.panes()[this.look.sides.indexOf(this.selected.side)];
      const [x, y, width, height] = view.box(side, this.selected.index, pane);
      context.strokeStyle = view.theme.playhead;
      context.lineWidth = 2;
      if (x + width > GUTTER_PIXELS) context.strokeRect(x - 2.5, y - 2.5, width + 5, height + 5);
    }
    const x = Math.round(view.x(this.position));
    if (x >= GUTTER_PIXELS) {
      context.fillStyle = view.theme.playhead;
      context.fillRect(x - 1, 0, 2, view.height);
      context.beginPath();
      context.moveTo(x - 6, 0);
      context.lineTo(x + 6, 0);
      context.lineTo(x, 9);
      context.fill();
    }
  }

  /** Where the marked notes are in the piece, and which part of it is shown. */
  drawMinimap() {
    const { view, minimap } = this;
    const [width, height] = [minimap.clientWidth, minimap.clientHeight];
    const context = sizedContext(minimap, width, height);
    context.fillStyle = view.theme.roll;
    context.fillRect(0, 0, width, height);
    const bins = Math.max(1, Math.floor(width / 3));
    const counts = [new Uint16Array(bins), new Uint16Array(bins)]; // of notes that are not marked, and of those that are
    for (const name of this.look.sides) {
      const side = view.notes[name];
      for (let index = 0; index < side.count; index++) {
        const bin = Math.min(bins - 1, Math.floor((bins * side.onset[index]) / view.end));
        counts[Number(this.look.isMarked(side, index))][bin]++;
      }
    }
    let most = 1;
    for (let bin = 0; bin < bins; bin++) most = Math.max(most, counts[0][bin] + counts[1][bin]);
    for (let bin = 0; bin < bins; bin++) {
      const [plain, marked] = counts.map((each) => ((height - 4) * each[bin]) / most);
      const [plainColour, markedColour] = this.look.stripColours;
      context.fillStyle = markedColour;
      context.fillRect(bin * 3, height - marked, 2, marked);
      context.fillStyle = plainColour;
      context.fillRect(bin * 3, height - marked - plain, 2, plain);
    }
    context.strokeStyle = view.theme.playhead;
    context.lineWidth = 2;
    const left = (width * view.start) / view.end;
    context.strokeRect(left + 1, 1, Math.max(4, (width * view.seconds) / view.end - 2), height - 2);
  }

  listenToPointer() {
    const canvas = this.notesCanvas;
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      from = { x: event.offsetX, y: event.offsetY, lastX: event.offsetX, lastY: event.offsetY, moved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return this.showTip(event);
      from.moved ||= Math.hypot(event.offsetX - from.x, event.offsetY - from.y) > 4;
      if (!from.moved) return;
      const { view } = this;
      const seconds = view.secondsAt(from.lastX) - view.secondsAt(event.offsetX);
      view.move(seconds, (from.lastY - event.offsetY) / view.panes()[0].row);
      Object.assign(from, { lastX: event.offsetX, lastY: event.offsetY });
      this.tip.hidden = true;
      this.redraw();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from && !from.moved) this.click(event.offsetX, event.offsetY);
      from = null;
    });
    canvas.addEventListener("pointercancel", () => (from = null));
    canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** Without Ctrl the wheel scrolls the page, except sideways. */
  wheel(event) {
    const { view } = this;
    if (event.ctrlKey || event.metaKey) {
      const share = clamp((event.offsetX - GUTTER_PIXELS) / (view.width - GUTTER_PIXELS), 0, 1);
      view.zoomTime(Math.exp(clamp(event.deltaY, -100, 100) / 250), share);
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      view.move(((event.deltaX || event.deltaY) / view.width) * view.seconds, 0);
    } else return;
    event.preventDefault();
    this.redraw();
  }

  listenToMinimap() {
    const go = (event) => {
      this.view.start = (this.view.end * event.offsetX) / this.minimap.clientWidth - this.view.seconds / 2;
      this.view.keepInside();
      this.redraw();
    };
    this.minimap.addEventListener("pointerdown", (event) => {
      this.minimap.setPointerCapture(event.pointerId);
      go(event);
    });
    this.minimap.addEventListener("pointermove", (event) => event.buttons && go(event));
  }

  key(event) {
    const { view } = this;
    const move = (time, rows) => view.move(time * view.seconds, rows * view.rowsShown);
    const actions = {
      ArrowLeft: () => move(-0.2, 0), ArrowRight: () => move(0.2, 0),
      ArrowUp: () => move(0, -0.2), ArrowDown: () => move(0, 0.2),
      "+": () => (event.shiftKey && event.code.startsWith("Numpad") ? view.zoomRows(0.7) : view.zoomTime(0.5, this.focusShare())),
      "=": () => view.zoomTime(0.5, this.focusShare()),
      "-": () => view.zoomTime(2, this.focusShare()), "−": () => view.zoomTime(2, this.focusShare()),
      "*": () => view.zoomRows(0.7), "_": () => view.zoomRows(1 / 0.7),
      0: () => view.fit(), n: () => this.walk(1), p: () => this.walk(-1),
      " ": () => element("play").click(), Home: () => this.onSeek(0),
    };
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
    this.redraw();
  }

  /** The share of the width around which to zoom: the selected note or the position, if visible. */
  focusShare() {
    const { view } = this;
    const time = this.selected ? view.notes[this.selected.side].onset[this.selected.index] : this.position;
    const share = (time - view.start) / view.seconds;
    return share >= 0 && share <= 1 ? share : 0.5;
  }

  click(x, y) {
    this.select(this.view.noteAt(x, y));
    if (x >= GUTTER_PIXELS) this.onSeek(clamp(this.view.secondsAt(x), 0, this.view.end));
  }

  select(found) {
    this.selected = found;
    element("selected").textContent = found
      ? this.look.describe(this.view.notes, found.side, found.index).replaceAll("\n", " · ")
      : "\u00a0";
    this.drawOver();
  }

  /** Selects the next (1) or previous (-1) of the look's stops that are shown. */
  walk(direction) {
    const { view } = this;
    const shown = this.stops.filter((each) => this.look.isShown(view.notes[each.side], each.index));
    if (!shown.length) {
      element("selected").textContent = this.look.noStops;
      return;
    }
    let at = shown.findIndex((each) => each.side === this.selected?.side && each.index === this.selected?.index);
    if (at < 0) at = shown.findIndex((each) => each.onset >= this.position) - (direction > 0 ? 1 : 0);
    const next = shown[(at + direction + shown.length) % shown.length];
    view.reveal(next.side, next.index);
    this.select(next);
    this.onSeek(next.onset);
  }

  showTip(event) {
    const found = this.view.noteAt(event.offsetX, event.offsetY);
    this.tip.hidden = !found;
    if (!found) return;
    this.tip.textContent = this.look.describe(this.view.notes, found.side, found.index);
    const { offsetWidth, offsetHeight } = this.tip;
    this.tip.style.left = `${Math.min(event.offsetX + 14, this.view.width - offsetWidth - 6)}px`;
    const below = event.offsetY + 16;
    this.tip.style.top = `${below + offsetHeight > this.view.height ? event.offsetY - offsetHeight - 10 : below}px`;
  }
}

/** The canvas's context, in CSS pixels whatever the screen's resolution is. */
function sizedContext(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [pixelsWide, pixelsHigh] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelsWide || canvas.height !== pixelsHigh) {
    canvas.width = pixelsWide;
    canvas.height = pixelsHigh;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
