// Recordings on the server: sending them, asking what became of them. What this browser sent is remembered, so that the
// page can be loaded again and opened twice.

const REMEMBERED = "mt3-recordings";
const ASKING_MILLISECONDS = 400;
const QUIET_MILLISECONDS = 15000; // when nothing is under way, so that what was removed disappears

class RecordingQueue {
  /** `onChange(job)` is called when a job has news, with job.isGone when it is no more; `onTrouble(text)` with "" when it is over. */
  constructor(onChange, onTrouble) {
    this.onChange = onChange;
    this.onTrouble = onTrouble;
    this.jobs = new Map(); // by id, in the order of this page
    this.uploads = []; // one at a time: a browser has few connections to a server, and asking needs one
    this.sent = 0;
    this.timer = null;
    this.isAsking = false;
    for (const id of this.remembered()) this.jobs.set(id, { id, name: "", state: "unknown", version: 0, notes: [] });
    addEventListener("storage", (event) => event.key === REMEMBERED && this.adopt());
    this.ask();
  }

  remembered() {
    try {
      const ids = JSON.parse(localStorage.getItem(REMEMBERED) ?? "[]");
      return Array.isArray(ids) ? ids.filter((id) => /^[\w-]{10,40}$/.test(id)) : [];
    } catch {
      return [];
    }
  }

  remember(change) {
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(change(this.remembered())));
    } catch {
      // A browser may keep nothing; the page works as long as it is open.
    }
  }

  /** What another page of this browser has sent or removed. */
  adopt() {
    const ids = this.remembered();
    for (const id of ids) if (!this.jobs.has(id)) this.jobs.set(id, { id, name: "", state: "unknown", version: 0, notes: [] });
    for (const id of [...this.jobs.keys()]) if (!id.startsWith("upload-") && !ids.includes(id)) this.forget(this.jobs.get(id));
    this.ask();
  }

  /** Sends a file when those before it are sent. Until the server has it, its job is an upload that can be cancelled. */
  send(file, name, choice) {
    const job = { id: `upload-${++this.sent}`, name, file, choice, state: "sending", share: 0, notes: [] };
    this.jobs.set(job.id, job);
    this.uploads.push(job);
    if (this.uploads.length === 1) this.upload(job);
    this.onChange(job);
  }

  /** An upload is over, one way or another: the next one's turn. */
  uploadNext(job) {
    const at = this.uploads.indexOf(job);
    if (at >= 0) this.uploads.splice(at, 1);
    if (at === 0 && this.uploads.length) this.upload(this.uploads[0]);
  }

  upload(job) {
    const { file, name, choice } = job;
    const request = new XMLHttpRequest();
    job.request = request;
    request.addEventListener("loadend", () => this.uploadNext(job));
    const query = new URLSearchParams({ name, ...choice });
    request.open("POST", `/api/jobs?${query}`);
    request.upload.addEventListener("progress", (event) => {
      job.share = event.total ? event.loaded / event.total : 0;
      this.onChange(job);
    });
    const fail = (text) => {
      Object.assign(job, { state: "failed", error: text, request: null });
      this.onChange(job);
    };
    request.addEventListener("load", () => {
      if (request.status !== 201) return fail(request.responseText || "The server did not take it.");
      this.take(JSON.parse(request.responseText), job);
      this.forget(job);
    });
    request.addEventListener("error", () => fail("The recording could not be sent. Is mt3 serve still running?"));
    request.addEventListener("abort", () => this.forget(job));
    request.send(file);
  }

  /** A job that the server has just taken; it takes the place of its upload, if it was one. */
  take(state, upload = null) {
    this.jobs.set(state.id, { notes: [], version: 0, isFresh: true, uploadId: upload?.id });
    this.remember((ids) => [...ids, state.id]);
    this.merge(state.id, state);
    this.ask();
  }

  /** Once more, with `choice` of instruments and quality; returns the id of the new job. */
  async again(job, choice) {
    const answer = await this.post(`/api/jobs/${job.id}/again?${new URLSearchParams(choice)}`);
    if (answer) this.take(answer);
    return answer?.id;
  }

  /** Other notes of a finished job: with bars, on a grid, fewer. Returns whether it was done. */
  async arrange(job, wishes) {
    const answer = await this.post(`/api/jobs/${job.id}/arrange?${new URLSearchParams(wishes)}`);
    if (answer) this.merge(job.id, answer);
    return Boolean(answer);
  }

  async cancel(job) {
    if (job.request) job.request.abort();
    else if (this.uploads.includes(job)) {
      this.uploadNext(job);
      this.forget(job);
    } else if (await this.post(`/api/jobs/${job.id}/cancel`)) this.ask();
  }

  async remove(job) {
    if (!job.id.startsWith("upload-")) {
      this.remember((ids) => ids.filter((id) => id !== job.id));
      fetch(`/api/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
    }
    this.forget(job);
  }

  forget(job) {
    this.jobs.delete(job.id);
    job.isGone = true;
    this.onChange(job);
  }

  async post(address) {
    try {
      const answer = await fetch(address, { method: "POST" });
      if (answer.ok) return await answer.json();
      this.onTrouble(await answer.text());
    } catch {
      this.onTrouble("The server does not answer. Start it again with mt3 serve.");
    }
    return null;
  }

  /** Asks for news of all jobs, and again after a while. */
  async ask() {
    clearTimeout(this.timer);
    if (this.isAsking) return;
    this.isAsking = true;
    const asked = [...this.jobs.values()].filter((job) => !job.id.startsWith("upload-"));
    let wait = QUIET_MILLISECONDS;
    try {
      if (asked.length) {
        const since = asked.map((job) => `${job.id}:${job.notes.length}:${job.version ?? 0}`).join(",");
        const answer = await fetch(`/api/jobs?${new URLSearchParams({ since })}`);
        if (!answer.ok) throw new Error(await answer.text());
        for (const [id, state] of Object.entries(await answer.json())) this.merge(id, state);
      }
      this.onTrouble("", true);
    } catch {
      this.onTrouble("The server does not answer. Start it again with mt3 serve; then this page continues.", true);
      wait = 2000;
    }
    this.isAsking = false;
    const isBusy = [...this.jobs.values()].some((job) => ["waiting", "decoding", "unknown"].includes(job.state));
    if (isBusy) wait = Math.min(wait, ASKING_MILLISECONDS);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), wait);
  }

  merge(id, state) {
    const job = this.jobs.get(id);
    if (!job) return;
    if (state === null) {
      this.remember((ids) => ids.filter((each) => each !== id));
      if (job.state === "unknown") return this.forget(job);
      if (job.state !== "lost") Object.assign(job, { state: "lost", error: "The server no longer has this recording. Send it again." });
      return this.onChange(job);
    }
    const { notes, first, tempo, ...rest } = state;
    const news = () => JSON.stringify([job.state, job.version, job.notes.length, job.finalSeconds, job.place, job.minutesKept]);
    const before = news();
    const isOther = (job.version ?? 0) !== rest.version; // other notes, not more of the same
    if (isOther && first) return; // asked for before they changed
    if (isOther || !first) job.tempo = tempo;
    Object.assign(job, rest);
    if (isOther) job.notes = notes;
    else if (first === job.notes.length) job.notes.push(...notes);
    if (news() !== before) this.onChange(job);
  }
}
