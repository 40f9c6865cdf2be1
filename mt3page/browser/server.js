// The page of the server: what can be dropped, the list of recordings, and the panel of the one that is open.

const about = JSON.parse(element("server-data").textContent);
const panel = new PiecePanel(about.names, () => useSound());
let current = null; // the job whose notes are shown
let shownState = "";
let shownNotes = "";
let recorder = null;
const MOST_READABLE_PARTS = 6; // of a sheet

/** Notes of the server as a side of the roll. */
function sideOf(rows) {
  const column = (number, kind) => kind.from(rows, (row) => row[number]);
  const side = {
    count: rows.length,
    onset: column(0, Float64Array), offset: column(1, Float64Array), pitch: column(2, Uint8Array),
    velocity: column(3, Uint8Array), program: column(4, Uint8Array), drum: column(5, Uint8Array),
    confidence: Uint8Array.from(rows, (row) => (row[6] === null ? NO_CONFIDENCE : Math.round(CONFIDENCE_STEPS * row[6]))),
  };
  side.longest = longestOf(side);
  return side;
}

function lengthText(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

function stateText(job) {
  const notes = `${job.notes.length.toLocaleString("en")} ${job.notes.length === 1 ? "note" : "notes"}`;
  const what = `${job.quality === about.quality ? "" : job.quality === "best" ? ", best quality" : ", decoded fast"}${job.instruments ? `, only ${job.instruments}` : ""}`;
  switch (job.state) {
    case "sending": return `Sending, ${percent(job.share)}`;
    case "waiting": return `Waiting${job.place ? `, ${job.place} before it` : ""}${what}`;
    case "decoding":
      return `${percent(job.finalSeconds / job.seconds)}, ${notes}${job.secondsLeft === null ? "" : `, about ${lengthText(job.secondsLeft)} left`}${what}`;
    case "done": return `${notes}, ${lengthText(job.seconds)}${what}`;
    case "cancelled": return `Cancelled, ${notes}${what}`;
    default: return job.error || "…";
  }
}

const percent = (share) => `${Math.floor(100 * (share || 0))} %`;
const isUnderWay = (job) => ["sending", "waiting", "decoding"].includes(job.state);

/** The line of a job, made once and changed in place, so that the keyboard stays where it is. */
function showJob(job) {
  element("recordings-section").hidden = queue.jobs.size === 0;
  let line = element(`job-${job.id}`);
  let focused = ""; // which button of the upload's line had the keyboard
  if (job.isGone) {
    line?.remove();
    if (current === job) closePiece();
    return;
  }
  if (job.state === "unknown") return;
  if (!line) {
    const button = (text, action) => {
      const made = make("button", { type: "button", text, "aria-label": `${text}: ${job.name}` });
      made.dataset.does = text;
      if (text === "Decode again") made.title = "In the quality and with the instruments that are chosen above";
      made.addEventListener("click", action);
      return made;
    };
    line = make(
      "li", { id: `job-${job.id}` },
      make("span", { class: "name", text: job.name }), make("span", { class: "state" }),
      make("span", { class: "buttons" },
        button("Open", () => openPiece(job)), button("Decode again", () => decodeAgain(job)),
        button("Cancel", () => queue.cancel(job)), button("Remove", () => queue.remove(job))),
      make("progress", { max: 1, "aria-label": `Progress: ${job.name}` }),
    );
    const sent = job.uploadId && element(`job-${job.uploadId}`);
    if (sent) {
      focused = sent.contains(document.activeElement) ? document.activeElement.dataset.does : "";
      sent.replaceWith(line);
    } else element("jobs").prepend(line);
  }
  const text = stateText(job);
  const state = line.querySelector(".state");
  state.textContent = text;
  state.classList.toggle("failed", Boolean(job.error));
  const progress = line.querySelector("progress");
  progress.hidden = !isUnderWay(job);
  if (job.state === "waiting") progress.removeAttribute("value");
  else progress.value = job.state === "sending" ? job.share : (job.finalSeconds || 0) / (job.seconds || 1);
  const shows = {
    Open: ["waiting", "decoding", "done", "cancelled"].includes(job.state), Cancel: isUnderWay(job), Remove: !isUnderWay(job),
    "Decode again": ["done", "cancelled"].includes(job.state),
  };
  for (const [does, isShown] of Object.entries(shows)) line.querySelector(`[data-does="${does}"]`).hidden = !isShown;
  if (focused) line.querySelector(`[data-does="${focused}"]`).focus();
  if (job.state !== job.saidState && ["done", "failed", "cancelled", "lost"].includes(job.state)) {
    element("said").textContent = `${job.name}: ${text}`;
  }
  job.saidState = job.state;
  // What was just sent, and may be done by now; or what this page finds under way.
  if (!current && (job.isFresh || ["waiting", "decoding"].includes(job.state))) openPiece(job, false);
  else if (current === job) showPiece();
}

function openPiece(job, isAsked = true) {
  for (const line of element("jobs").children) line.classList.toggle("current", line.id === `job-${job.id}`);
  current = job;
  shownState = "";
  element("roll-section").hidden = false;
  element("piece-title").textContent = job.name;
  panel.forgetParts();
  panel.show(pieceNotes(sideOf(job.notes), job.seconds, job.tempo), `/api/jobs/${job.id}/recording`);
  shownNotes = notesShown(job);
  showWishes(job.asked ?? {});
  showPiece();
  if (isAsked) element("roll-section").scrollIntoView({ block: "start" });
}

function closePiece() {
  panel.player.pause();
  current = null;
  element("roll-section").hidden = true;
}

/** News of the job that is open. */
function showPiece() {
  if (shownNotes !== notesShown(current)) {
    panel.update(pieceNotes(sideOf(current.notes), current.seconds, current.tempo));
    shownNotes = notesShown(current);
  }
  const state = `${current.state} ${current.version}`;
  if (shownState === state) return;
  shownState = state;
  const isDone = current.state === "done";
  element("no-parts").textContent = isUnderWay(current) ? "No notes yet." : "No notes.";
  const remarks = [current.remark, current.tempo && `${capital(current.tempo.words)}`].filter(Boolean);
  element("remark").textContent = remarks.join("\n");
  element("remark").hidden = !remarks.length;
  element("arrange").hidden = !isDone;
  element("sheet-hint").hidden = !isDone || panel.look.numPlaying <= MOST_READABLE_PARTS;
  const rendered = element("sound").querySelector('[value="rendered"]');
  rendered.disabled = !isDone;
  if (!isDone) element("sound").value = "quick";
  useSound();
  panel.replay();
  const base = `/api/jobs/${current.id}`;
  const links = isDone
    ? [
        ...about.formats.map(({ name, label, about: what }) => [`${base}/result.${name}`, label, what]),
        [`${base}/sound.wav?download`, "Sound (WAV)", "the transcription as sound"],
        [`${base}/compared.wav?download`, "Sound with the original (WAV)", "the original left, the transcription right"],
      ].map(downloadLink)
    : [make("span", { class: "note", text: "Downloads are here when it is done." })];
  element("downloads").replaceChildren(...(isDone ? [make("span", { text: "Download" }), ...links] : links));
}

/** A link to a file that is made when it is asked for; what is in the way is said instead of saved. */
function downloadLink([href, text, title]) {
  const link = make("a", { href, text, title });
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    showTrouble("");
    link.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(href);
      if (!answer.ok) return showTrouble(await answer.text());
      const name = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "transcription";
      const address = URL.createObjectURL(await answer.blob());
      make("a", { href: address, download: decodeURIComponent(name) }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    } catch {
      showTrouble("The server does not answer. Start it again with mt3 serve.");
    } finally {
      link.removeAttribute("aria-busy");
    }
  });
  return link;
}

/** Plays the transcription by the synthesizer of this page, or as the server renders it. */
function useSound() {
  const isRendered = current?.state === "done" && element("sound").value === "rendered";
  element("sound-state").textContent = isRendered ? "The sound is being made…" : "";
  if (isRendered) {
    const heard = [...panel.look.parts.keys()].filter((key) => panel.look.isHeard(key)).map((key) => (key === DRUMS ? -1 : key));
    const only = panel.look.isWhole ? "" : `?only=${heard.join(",")}`;
    panel.player.setRendered(`/api/jobs/${current.id}/sound.wav${only || "?"}&version=${current.version}`, () => (element("sound-state").textContent = ""));
  } else panel.player.setRendered(null);
}

const ticked = () => [...element("classes").querySelectorAll("input:checked")].map((box) => box.value).join(",");

/** What is chosen above: the instruments to be written, and the quality. */
function choice() {
  const instruments = ticked();
  return { quality: element("quality").value, ...(instruments ? { instruments } : {}) };
}

const notesShown = (job) => `${job.version} ${job.notes.length}`;

/** Sets the form to what was asked for. */
function showWishes(asked) {
  const isNumber = asked.tempo && asked.tempo !== "auto";
  element("tempo").value = isNumber ? "number" : asked.tempo ?? "";
  if (isNumber) element("tempo-number").value = asked.tempo;
  for (const name of ["signature", "grid", "least"]) element(name).value = asked[name] ?? "";
  element("merge").checked = Boolean(asked.merge);
  element("arranged").textContent = "";
  showTempoNumber();
}

const showTempoNumber = () => (element("tempo-number").hidden = element("tempo").value !== "number");

async function arrange(event) {
  event.preventDefault();
  const job = current;
  const tempo = element("tempo").value === "number" ? element("tempo-number").value : element("tempo").value;
  const wishes = { tempo, merge: element("merge").checked ? "class" : "" };
  for (const name of ["signature", "grid", "least"]) wishes[name] = element(name).value;
  showTrouble("");
  element("apply").disabled = true;
  element("arranged").textContent = tempo === "auto" ? "Beats are being found…" : "…";
  const isDone = await queue.arrange(job, wishes);
  element("apply").disabled = false;
  if (current !== job) return;
  const hasNoBars = tempo && !job.tempo;
  element("arranged").textContent = !isDone ? "" : hasNoBars ? "No tempo was found: give it as a number." : "Done.";
}

async function decodeAgain(job) {
  const id = await queue.again(job, choice());
  if (id) openPiece(queue.jobs.get(id));
}

function addFiles(files) {
  for (const file of files) {
    if (file.size > about.maxUpload) {
      showTrouble(`${file.name} is larger than ${about.maxUploadText}. Use a shorter or compressed recording, or start mt3 serve with a larger --max-upload.`);
    } else queue.send(file, file.name, choice());
  }
}

function showTrouble(text, isOfServer = false) {
  const box = element("trouble");
  if (!text && (box.hidden || isOfServer !== (box.dataset.server === "true"))) return;
  box.dataset.server = String(isOfServer);
  if (box.textContent !== text) box.textContent = text;
  box.hidden = !text;
}

async function toggleRecording() {
  const button = element("record");
  if (recorder) {
    recorder.stop();
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", () => {
      for (const track of stream.getTracks()) track.stop();
      const file = new Blob(parts, { type: recorder.mimeType });
      recorder = null;
      button.textContent = "Record";
      button.setAttribute("aria-pressed", "false");
      const time = new Date().toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false });
      queue.send(file, `Recording ${time}`, choice());
    });
    recorder.start(1000);
    button.textContent = "Stop recording";
    button.setAttribute("aria-pressed", "true");
  } catch (problem) {
    recorder = null;
    showTrouble(`The microphone cannot be used: ${problem.message}. Allow it for this page, or drop a file.`);
  }
}

function listenToDrops() {
  let depth = 0;
  const over = (is) => element("drop").classList.toggle("over", is);
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    over(++depth > 0);
  });
  addEventListener("dragleave", () => over(--depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(false);
    showTrouble("");
    addFiles(event.dataTransfer.files);
  });
}

element("quality").value = about.quality;
const queue = new RecordingQueue(showJob, showTrouble);
element("classes").append(
  ...about.classes.map((name) => make("label", {}, make("input", { type: "checkbox", value: name }), name)),
);
element("files").addEventListener("change", (event) => {
  showTrouble("");
  addFiles(event.target.files);
  event.target.value = "";
});
element("record").addEventListener("click", toggleRecording);
element("record").hidden = !navigator.mediaDevices || !("MediaRecorder" in globalThis);
element("record").setAttribute("aria-pressed", "false");
element("sound").addEventListener("change", () => {
  useSound();
  panel.replay();
});
element("arrangement").addEventListener("submit", arrange);
element("tempo").addEventListener("change", showTempoNumber);
listenToDrops();
