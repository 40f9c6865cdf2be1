// The tables of the page, from the data of the whole set or of one piece.

const scored = (scores) => scores && !("error" in scores);
const settingText = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value ?? "–"));

/** Averages of every protocol with their intervals, filtered by the controls above the table. */
function showAverages() {
  const words = element("averages-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const onlyMain = element("averages-only-main").checked;
  const { against } = report;
  const rows = [];
  for (const [name, protocol] of Object.entries(report.protocols)) {
    const other = against?.protocols[name];
    for (const metric of chosenMetrics(name, Object.keys(protocol.average ?? {}), onlyMain)) {
      const text = `${name} ${metric}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
      const value = protocol.average[metric];
      const [low, high] = protocol.intervals?.[metric] ?? [null, null];
      const isShare = typeof value === "number" && value >= 0 && value <= 1;
      const oneSided = other?.paired.one_sided?.[metric];
      const hint = oneSided ? `Without ${oneSided} for which only one system has a value` : null;
      rows.push({
        metric, protocol: { value: name, hint: protocol.summary }, low, high,
        average: { value, bar: isShare ? value : null, own: true },
        other: other?.paired.second[metric],
        difference: { value: other?.paired.difference[metric], own: true, hint },
        "difference low": other?.paired.intervals[metric]?.[0],
        "difference high": other?.paired.intervals[metric]?.[1],
      });
    }
  }
  const columns = [
    { key: "metric", title: "Metric", kind: "text" },
    { key: "protocol", title: "Protocol", kind: "text", hint: "The published rule for this score" },
    { key: "average", title: "Set", kind: "number", hint: "The value of the set, as the protocol averages" },
    { key: "low", title: "From", kind: "number", hint: "Lower end of the interval" },
    { key: "high", title: "To", kind: "number", hint: "Upper end of the interval" },
  ];
  if (against) {
    columns.push(
      { key: "other", title: "Other system", kind: "number", hint: against.estimate },
      { key: "difference", title: "Difference", kind: "number", hint: "This system minus the other, piece by piece" },
      { key: "difference low", title: "From", kind: "number", hint: "Lower end of the difference's interval" },
      { key: "difference high", title: "To", kind: "number", hint: "Upper end of the difference's interval" },
    );
  }
  const whenEmpty = Object.keys(report.protocols).length ? "No metric contains this." : "No protocol was chosen.";
  showTable("averages", "Scores of the set", columns, rows, whenEmpty);
  const { interval, confidence } = report.settings;
  element("averages-note").textContent = interval ? `Intervals: ${100 * confidence} %, ${interval}.` : "";
}

function showPieces(openPiece, current) {
  const name = element("pieces-protocol").value;
  const protocol = report.protocols[name];
  element("protocol-summary").textContent = protocol?.summary ?? "";
  const metrics = [];
  for (const piece of report.pieces) {
    if (!scored(piece.scores[name])) continue;
    for (const metric of Object.keys(piece.scores[name])) if (!metrics.includes(metric)) metrics.push(metric);
  }
  const shown = chosenMetrics(name, metrics, element("pieces-only-main").checked);
  const columns = [
    { key: "name", title: "Piece", kind: "text" },
    { key: "reference notes", title: "Reference notes", kind: "count" },
    { key: "estimated notes", title: "Estimated notes", kind: "count" },
    { key: "correct share", title: "Correct", kind: "percent", hint: "Share of the reference notes without any error" },
    ...shown.map((metric) => ({ key: `metric ${metric}`, title: metric, kind: "number" })),
  ];
  const rows = report.pieces.map((piece) => {
    const scores = piece.scores[name] ?? {};
    const { analysis } = piece;
    const correct = analysis.pitched.correct.reference + analysis.drums.correct.reference;
    const row = {
      current: piece === current,
      name: { value: piece.name, action: () => openPiece(piece), hint: scores.error },
      "reference notes": analysis.reference_notes,
      "estimated notes": analysis.estimated_notes,
      "correct share": analysis.reference_notes ? correct / analysis.reference_notes : null,
    };
    for (const metric of shown) {
      const value = scores[metric];
      const isShare = typeof value === "number" && value >= 0 && value <= 1;
      row[`metric ${metric}`] = { value, bar: isShare ? value : null, hint: scores.error };
    }
    return row;
  });
  showTable("pieces", "Scores of each piece", columns, rows, "There are no pieces.");
}

/** The tables and charts of an analysis. */
function showErrors(analysis) {
  showTaxonomy(analysis);
  showLabels("by-instrument", "Errors by instrument", "Instrument", analysis.by_instrument);
  showLabels("by-pitch-range", "Errors by pitch range", "Octave", analysis.by_pitch_range);
  showLabels("by-drum", "Errors by drum", "Drum", analysis.by_drum);
  showConfusion("confusion", "Confused instruments", analysis.confusion);
  showConfusion("drum-confusion", "Confused drums", analysis.drum_confusion);
  showDeviations("onset-deviations", "Onset deviations (estimate minus reference)", analysis.onset_deviations);
  showDeviations("offset-deviations", "Offset deviations (estimate minus reference)", analysis.offset_deviations);
  showCalibration(analysis.calibration);
}

const swatchOf = (category) => ({ colour: `var(--${category})`, hollow: category === "missed" });

function showTaxonomy(analysis) {
  const sides = [["reference", "Reference"], ["estimate", "Estimate"]];
  const columns = [
    { key: "category", title: "Category", kind: "text" },
    { key: "meaning", title: "Meaning", kind: "text" },
  ];
  const totals = {};
  for (const part of ["pitched", "drums"]) {
    for (const [side, title] of sides) {
      const total = CATEGORIES.reduce((sum, category) => sum + analysis[part][category][side], 0);
      if (!total) continue;
      totals[`${part} ${side}`] = total;
      columns.push({ key: `${part} ${side}`, title: `${title}: ${part === "drums" ? "drum hits" : "pitched notes"}`, kind: "count" });
    }
  }
  const rows = CATEGORIES.map((category) => {
    const row = { category: { value: category, ...swatchOf(category) }, meaning: MEANINGS[category] };
    const { pitched, drums } = analysis.velocities_compared;
    if (category === "velocity" && !pitched && !drums) row.meaning = "Not judged: a side has one velocity for all notes.";
    for (const [key, total] of Object.entries(totals)) {
      const [part, side] = key.split(" ");
      const value = analysis[part][category][side];
      row[key] = { value, bar: value / total, text: value ? `${value.toLocaleString("en")} (${percentText(value / total)})` : "0" };
    }
    return row;
  });
  showTable("taxonomy", "Categories of errors", columns, rows);
}

/** Scores and errors of each instrument, octave or drum. */
function showLabels(id, caption, title, labels) {
  const used = CATEGORIES.filter((category) => labels.some((each) => Math.max(...Object.values(each.categories[category]))));
  const columns = [
    { key: "name", title, kind: "text" },
    { key: "reference_notes", title: "Reference notes", kind: "count" },
    { key: "estimated_notes", title: "Estimated notes", kind: "count" },
    { key: "precision", title: "Precision", kind: "number", hint: "Share of the estimated notes whose onset, pitch and instrument agree" },
    { key: "recall", title: "Recall", kind: "number", hint: "Share of the reference notes that were found in this sense" },
    { key: "f1", title: "F1", kind: "number" },
    ...used.map((category) => ({ key: category, title: category, kind: "count", hint: MEANINGS[category] })),
  ];
  const rows = labels.map((each) => {
    const row = { ...each, name: { value: each.name } };
    for (const key of ["precision", "recall", "f1"]) row[key] = { value: each[key], bar: each[key] };
    for (const category of used) {
      // Ghosts are only in the estimate; everything else is counted by reference notes.
      row[category] = each.categories[category][category === "ghost" ? "estimate" : "reference"];
    }
    return row;
  });
  showTable(id, caption, columns, rows, "There are no such notes.");
}

/** Rows are the labels of the reference, columns those of the estimate. */
function showConfusion(id, caption, { labels, counts }) {
  const columns = [
    { key: "name", title: "Reference ↓ Estimate →", kind: "text" },
    ...labels.map((label, number) => ({ key: `to ${number}`, title: label, kind: "count" })),
  ];
  const rows = labels.map((label, from) => {
    const total = counts[from].reduce((sum, count) => sum + count, 0);
    const row = { name: { value: label } };
    counts[from].forEach((count, to) => {
      row[`to ${to}`] = {
        value: count, text: count ? count.toLocaleString("en") : "·", heat: total ? count / total : 0, own: from === to,
        hint: `${label} → ${labels[to]}: ${count} of ${total}`,
      };
    });
    return row;
  });
  showTable(id, caption, columns, labels.length > 1 ? rows : [], "There are no such notes.");
}

function showSettings() {
  const rows = Object.entries(report.settings).map(([name, value]) => ({ name, value: settingText(value) }));
  const columns = [{ key: "name", title: "Setting", kind: "text" }, { key: "value", title: "Value", kind: "text" }];
  showTable("settings", "Settings", columns, rows, "No settings were given.");
}

/** Pieces that could not be read and files without a partner; nothing if all were scored. */
function showLeftOut() {
  const columns = [{ key: "name", title: "Piece or file", kind: "text" }, { key: "reason", title: "Why", kind: "text" }];
  showTable("left-out", "Left out", columns, report.left_out, "Nothing is left out.");
  for (const id of ["left-out-section", "left-out-link"]) element(id).hidden = !report.left_out.length;
}

/** The set in a few numbers: scores in plain words, then how many notes have no error and are ghosts. */
function showCards() {
  const { pooled } = report;
  const count = (category, side) => pooled.pitched[category][side] + pooled.drums[category][side];
  const share = (value, total) => (total ? percentText(value / total) : "–");
  const interval = (range) => (range ? ` (${percentText(range[0])} to ${percentText(range[1])})` : "");
  const cards = [
    ...report.plain.map((each) => [percentText(each.value), `F1 of ${each.name}${interval(each.interval)}`, each.rule]),
    [share(count("correct", "reference"), pooled.reference_notes), "of all reference notes have no error"],
    [share(count("ghost", "estimate"), pooled.estimated_notes), "of all estimated notes are ghosts", MEANINGS.ghost],
  ];
  element("cards").replaceChildren(
    ...cards.map(([value, text, title]) =>
      make("div", { class: "card", title }, make("b", { text: value }), make("span", { text })),
    ),
  );
  element("cards-note").textContent = report.plain_note;
  const notes = (number) => number.toLocaleString("en");
  element("overview").textContent =
    `${report.pieces.length} ${report.pieces.length === 1 ? "piece" : "pieces"}, ` +
    `${notes(pooled.reference_notes)} reference notes, ${notes(pooled.estimated_notes)} estimated notes` +
    (report.left_out.length ? `; ${notes(report.left_out.length)} left out` : "") +
    (report.against ? `; other system: ${report.against.estimate}` : "");
}
