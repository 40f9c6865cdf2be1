// The panel of one piece: what is heard, the instruments, the roll, the least certain stretches, the notes as a table.

const MOST_ROWS = 200; // of the table of notes
const BALANCES = { "hear-recording": 0, "hear-both": 0.5, "hear-notes": 1 };

class PiecePanel {
  /** `onParts()` is called when other instruments are to be heard. */
  constructor(names, onParts = () => {}) {
    this.look = new PieceLook(names);
    this.onParts = onParts;
    this.player = new Player(
      (isPlaying) => this.showPlaying(isPlaying),
      (text) => this.showProblem(text),
      (side, index) => this.look.isHeard(partOf(side, index)),
    );
    this.roll = new PianoRoll(this.look, (seconds) => this.seek(seconds));
    this.notes = null;
    this.listen();
  }

  /** Another piece: notes as of `pieceNotes`, and the address of the recording or null. */
  show(notes, audio) {
    element("audio-problem").hidden = true;
    this.hasAudio = Boolean(audio);
    element("hear").hidden = !audio;
    this.look.findParts(notes.notes, true);
    this.notes = notes;
    this.player.show(notes, audio);
    this.setBalance(audio ? Number(element("balance").value) : null);
    this.player.setVolume(Number(element("volume").value));
    this.roll.show(notes);
    this.showAll();
  }

  /** More notes of the same piece. */
  update(notes) {
    this.look.findParts(notes.notes, false);
    this.notes = notes;
    this.player.update(notes);
    this.roll.show(notes, true);
    this.showAll();
  }

  showAll() {
    this.showParts();
    this.showStretches();
    this.showTable();
    this.showPosition();
  }

  get heard() {
    return { notes: true, audio: this.hasAudio };
  }

  toggle() {
    if (this.player.isOn) this.player.pause();
    else this.player.play(this.heard);
  }

  /** Moves to a time; playback continues from there. */
  seek(seconds) {
    const wasPlaying = this.player.isOn;
    this.player.pause();
    this.player.from = seconds;
    if (wasPlaying) this.player.play(this.heard);
    else this.showPosition();
  }

  /** Starts again where it is, if it plays: with other notes or sounds. */
  replay() {
    if (this.player.isOn) this.seek(this.player.position);
  }

  setBalance(balance) {
    this.player.setBalance(balance);
    for (const [id, value] of Object.entries(BALANCES)) {
      element(id).setAttribute("aria-pressed", String(balance !== null && Math.abs(balance - value) < 0.005));
    }
  }

  showPlaying(isPlaying) {
    element("play").textContent = isPlaying ? "Pause" : "Play";
    element("play").setAttribute("aria-pressed", String(isPlaying));
    if (isPlaying) requestAnimationFrame(() => this.frame());
    else this.showPosition();
  }

  showProblem(text) {
    element("audio-problem").textContent = text;
    element("audio-problem").hidden = false;
  }

  frame() {
    if (!this.player.isPlaying) return;
    this.showPosition();
    requestAnimationFrame(() => this.frame());
  }

  showPosition() {
    if (!this.notes) return;
    const seconds = this.player.position;
    this.roll.setPosition(seconds, this.player.isPlaying && element("follow").checked);
    const { bars, end } = this.notes;
    element("position").textContent = `${timeText(seconds)} of ${timeText(end)}${bars ? `, ${barText(bars.barAt(seconds))}` : ""}`;
  }

  /** One line per instrument: its colour, how many notes it has, and whether it is heard alone or not at all. */
  showParts() {
    const rows = [...this.look.parts.values()].map((part) => {
      const known = element(`part-${part.key}`);
      if (known) {
        known.querySelector(".count").textContent = part.count.toLocaleString("en");
        known.querySelector(".swatch").style.setProperty("--colour", this.look.partColour(part.key));
        return known;
      }
      const swatch = make("span", { class: "swatch" });
      swatch.style.setProperty("--colour", this.look.partColour(part.key));
      const switches = [["isSolo", "Solo"], ["isMuted", "Mute"]].map(([field, text]) => {
        const button = make("button", { type: "button", text, "aria-pressed": "false", "aria-label": `${text}: ${part.name}` });
        button.addEventListener("click", () => {
          part[field] = !part[field];
          button.setAttribute("aria-pressed", String(part[field]));
          this.roll.redraw();
          this.onParts();
          this.replay();
        });
        return button;
      });
      const count = make("span", { class: "count", text: part.count.toLocaleString("en"), title: "notes" });
      return make("li", { id: `part-${part.key}` }, swatch, make("span", { class: "part-name", text: part.name }), count, ...switches);
    });
    const list = element("parts");
    if (list.children.length !== rows.length || rows.some((row, number) => list.children[number] !== row)) list.replaceChildren(...rows);
    element("no-parts").hidden = rows.length > 0;
  }

  forgetParts() {
    element("parts").replaceChildren();
  }

  showStretches() {
    const stretches = leastCertain(this.notes.notes, this.notes.bars);
    const buttons = stretches.map(({ start, end, name, count, mean }) => {
      const what = `${count} ${count === 1 ? "note" : "notes"}, mean confidence ${mean.toFixed(2)}`;
      const button = make("button", { type: "button", text: capital(name), title: what });
      button.addEventListener("click", () => {
        this.roll.view.showWindow(start - 0.5, end + 0.5);
        this.seek(start);
        this.roll.redraw();
        element("selected").textContent = `${capital(name)}: ${what}`;
      });
      return make("li", {}, button, make("span", { class: "note", text: what }));
    });
    element("stretches").replaceChildren(...buttons);
    element("uncertain").hidden = !buttons.length;
  }

  /** The notes from the position on, in words: for those who do not see the roll. */
  showTable() {
    if (!element("table").open || !this.notes) return;
    const side = this.notes.notes;
    const first = firstNotBelow(side.onset, this.player.position);
    const rows = [];
    for (let index = first; index < Math.min(side.count, first + MOST_ROWS); index++) {
      const sureness = confidenceOf(side, index);
      const cells = [
        side.onset[index].toFixed(2), (side.offset[index] - side.onset[index]).toFixed(2), this.look.noteName(side, index),
        this.look.partName(partOf(side, index)), sureness === null ? "–" : sureness.toFixed(2),
      ];
      rows.push(make("tr", {}, ...cells.map((text) => make("td", { text }))));
    }
    element("rows").replaceChildren(...rows);
  }

  listen() {
    const on = (id, kind, action) => element(id).addEventListener(kind, action);
    on("play", "click", () => this.toggle());
    on("to-start", "click", () => this.seek(0));
    on("volume", "input", () => this.player.setVolume(Number(element("volume").value)));
    on("speed", "change", () => {
      const wasPlaying = this.player.isOn;
      this.player.pause();
      this.player.speed = Number(element("speed").value);
      if (wasPlaying) this.player.play(this.heard);
    });
    on("balance", "input", () => this.setBalance(Number(element("balance").value)));
    for (const [id, balance] of Object.entries(BALANCES)) {
      on(id, "click", () => {
        element("balance").value = balance;
        this.setBalance(balance);
      });
    }
    on("shade", "change", () => {
      this.look.isShaded = element("shade").checked;
      this.roll.redraw();
    });
    on("table", "toggle", () => this.showTable());
    on("refresh-table", "click", () => this.showTable());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.notes && this.showParts());
    document.addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target !== document.body || !this.notes) return;
      event.preventDefault();
      this.toggle();
    });
  }
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** Notes for the panel: one side, beats and bars if they are known, and where the piece ends, not before `seconds`. */
function pieceNotes(side, seconds = 0, tempo = null) {
  return { notes: side, bars: tempo && new Bars(tempo), end: side.offset.reduce((end, time) => Math.max(end, time), Math.max(seconds, 1)) };
}
