// Puts the page together: which piece is shown, what is heard, what the controls do.

const player = new Player(showPlaying, showAudioProblem);
const look = new ErrorLook();
const roll = new PianoRoll(look, seek);
let currentPiece = null;

function showPlaying(isPlaying) {
  element("play").textContent = isPlaying ? "Pause" : "Play";
  element("play").setAttribute("aria-pressed", String(isPlaying));
  if (isPlaying) requestAnimationFrame(frame);
  else showPosition();
}

function showAudioProblem(text) {
  element("audio-problem").textContent = text;
  element("audio-problem").hidden = false;
}

function frame() {
  if (!player.isPlaying) return;
  showPosition();
  requestAnimationFrame(frame);
}

function showPosition() {
  const seconds = player.position;
  roll.setPosition(seconds, player.isPlaying && element("follow").checked);
  element("position").textContent = currentPiece ? `${timeText(seconds)} of ${timeText(notesOf(currentPiece).end)}` : "";
}

const heard = () => ({
  reference: element("hear-reference").checked,
  estimate: element("hear-estimate").checked,
  audio: element("hear-audio").checked && Boolean(currentPiece?.audio),
});

/** Moves to a time; playback continues from there. */
function seek(seconds) {
  const wasPlaying = player.isPlaying;
  player.pause();
  player.from = seconds;
  if (wasPlaying) player.play(heard());
  else showPosition();
}

function openPiece(piece, isAsked = true) {
  currentPiece = piece;
  const notes = notesOf(piece);
  element("roll-piece").value = String(report.pieces.indexOf(piece));
  element("audio-problem").hidden = true;
  element("hear-audio").disabled = !piece.audio;
  element("hear-audio").checked = false;
  element("hear-audio-label").title = piece.audio ? "" : "The page was written without a recording of this piece.";
  player.show(notes, piece.audio);
  player.setVolume(Number(element("volume").value));
  roll.show(notes);
  showLegend(piece.analysis);
  showFamilies();
  showPosition();
  showPieces(openPiece, currentPiece);
  if (isAsked) element("roll-section").scrollIntoView({ block: "start" });
}

/** The categories of the piece with their colours; an unticked category is hidden. */
function showLegend(analysis) {
  element("legend").replaceChildren();
  CATEGORIES.forEach((category, number) => {
    const side = category === "ghost" ? "estimate" : "reference";
    const count = analysis.pitched[category][side] + analysis.drums[category][side];
    if (!count) return;
    const box = make("input", { type: "checkbox" });
    box.checked = look.shown.has(number);
    box.addEventListener("change", () => {
      if (box.checked) look.shown.add(number);
      else look.shown.delete(number);
      roll.redraw();
    });
    const swatch = make("span", { class: category === "missed" ? "swatch hollow" : "swatch" });
    swatch.style.setProperty("--colour", `var(--${category})`);
    const text = [category, make("span", { class: "count", text: count.toLocaleString("en") })];
    element("legend").append(make("label", { title: MEANINGS[category] }, box, swatch, ...text));
  });
}

/** If colours stand for instruments: the colour of each instrument of the piece. */
function showFamilies() {
  const isByInstrument = look.colourBy === "instruments";
  element("legend").classList.toggle("uncoloured", isByInstrument);
  element("families").hidden = !isByInstrument;
  if (!isByInstrument || !currentPiece) return;
  const colours = new Map(); // colour -> name, in the order of General MIDI, drums last
  const { reference, estimate } = notesOf(currentPiece);
  report.names.families.forEach((name, family) => {
    const has = (side) => side.program.some((program, index) => program >> 3 === family && !side.drum[index]);
    if (has(reference) || has(estimate)) colours.set(look.families[family], name);
  });
  if (reference.drum.includes(1) || estimate.drum.includes(1)) colours.set(look.ink, "Drums");
  const entries = [...colours].map(([colour, name]) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.setProperty("--colour", colour);
    return make("span", {}, swatch, name);
  });
  element("families").replaceChildren(...entries);
}

function fillSelect(id, entries) {
  element(id).replaceChildren(...entries.map(([value, text]) => make("option", { value, text })));
}

function listen(id, kind, action) {
  element(id).addEventListener(kind, action);
}

function start() {
  const pieces = report.pieces.map((piece, number) => [String(number), piece.name]);
  fillSelect("pieces-protocol", Object.keys(report.protocols).map((name) => [name, name]));
  fillSelect("roll-piece", pieces);
  fillSelect("scope", [["all", "all pieces"], ...pieces]);

  listen("averages-filter", "input", showAverages);
  listen("averages-only-main", "change", showAverages);
  listen("pieces-protocol", "change", () => showPieces(openPiece, currentPiece));
  listen("pieces-only-main", "change", () => showPieces(openPiece, currentPiece));
  listen("scope", "change", () => {
    const { value } = element("scope");
    showErrors(value === "all" ? report.pooled : report.pieces[Number(value)].analysis);
  });
  listen("roll-piece", "change", () => openPiece(report.pieces[Number(element("roll-piece").value)], false));
  listen("roll-layout", "change", () => {
    roll.view.layout = element("roll-layout").value;
    roll.redraw();
  });
  listen("roll-colour", "change", () => {
    look.colourBy = element("roll-colour").value;
    roll.redraw();
    showFamilies();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showFamilies);
  listen("play", "click", () => (player.isPlaying ? player.pause() : player.play(heard())));
  listen("to-start", "click", () => seek(0));
  for (const id of ["hear-reference", "hear-estimate", "hear-audio"]) {
    listen(id, "change", () => player.isPlaying && player.play(heard()));
  }
  listen("volume", "input", () => player.setVolume(Number(element("volume").value)));
  listen("speed", "change", () => {
    const wasPlaying = player.isPlaying;
    player.pause();
    player.speed = Number(element("speed").value);
    if (wasPlaying) player.play(heard());
  });

  showCards();
  showLeftOut();
  showAverages();
  showErrors(report.pooled);
  showSettings();
  if (report.pieces.length) openPiece(report.pieces[0], false);
  else {
    showPieces(openPiece, null);
    element("roll-section").hidden = true;
  }
}

start();
