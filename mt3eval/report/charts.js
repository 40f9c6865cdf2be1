// Small charts as SVG: distributions of time and the reliability of confidences.

const CHART = { width: 420, height: 170, left: 8, right: 8, top: 8, bottom: 22 };
const INNER_WIDTH = CHART.width - CHART.left - CHART.right;
const INNER_HEIGHT = CHART.height - CHART.top - CHART.bottom;

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function chart(label) {
  return svg("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": label });
}

function showChart(id, title, explanation, picture) {
  element(id).replaceChildren(make("figcaption", { text: title }, make("span", { text: explanation })), picture);
}

/** The distribution of estimated minus reference times; the tolerance of 50 ms is shaded. */
function showDeviations(id, title, deviations) {
  if (!deviations.notes) {
    element(id).replaceChildren();
    return;
  }
  const { low, bin, counts } = deviations;
  const most = Math.max(...counts);
  const x = (milliseconds) => CHART.left + (INNER_WIDTH * (milliseconds - low)) / (bin * counts.length);
  const bottom = CHART.top + INNER_HEIGHT;
  const figure = (value) => `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(1)} ms`;
  const text =
    `${deviations.notes.toLocaleString("en")} pairs; median ${figure(deviations.median)}, ` +
    `middle 90 % from ${figure(deviations.percentile_5)} to ${figure(deviations.percentile_95)}; shaded: 50 ms`;
  const picture = chart(`${title}. ${text}`);
  picture.append(
    svg("rect", { class: "tolerance", x: x(-50), y: CHART.top, width: x(50) - x(-50), height: INNER_HEIGHT }),
  );
  counts.forEach((count, number) => {
    if (!count) return;
    const height = Math.max(1, (INNER_HEIGHT * count) / most);
    const from = low + bin * number;
    const bar = svg("rect", {
      class: "bar", x: x(from) + 0.5, y: bottom - height, width: x(bin) - x(0) - 1, height,
    });
    bar.append(svg("title", {}, `${from} to ${from + bin} ms: ${count}`));
    picture.append(bar);
  });
  picture.append(svg("line", { class: "axis", x1: CHART.left, x2: CHART.width - CHART.right, y1: bottom, y2: bottom }));
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const value = low + share * bin * counts.length;
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    picture.append(svg("text", { x: x(value), y: bottom + 15, "text-anchor": anchor }, `${value} ms`));
  }
  showChart(id, title, text, picture);
}

/** Share of correct notes by confidence, with the line on which the two are equal. */
function showCalibration(calibration) {
  const columns = [
    { key: "range", title: "Confidence", kind: "text" },
    { key: "notes", title: "Notes", kind: "count" },
    { key: "confidence", title: "Mean confidence", kind: "percent" },
    { key: "right", title: "Right", kind: "percent" },
    { key: "difference", title: "Difference", kind: "percent" },
  ];
  const caption = "Reliability of the estimate's confidences";
  if (!calibration) {
    element("calibration").replaceChildren();
    showTable("calibration-table", caption, columns, [], "The estimate gives no confidences.");
    return;
  }
  const title = "Confidence and how often it is right";
  const text =
    `expected calibration error ${percentText(calibration.expected_error)}, ` +
    `maximum ${percentText(calibration.greatest_error)}, Brier score ${calibration.brier_score.toFixed(4)}`;
  const picture = chart(`${title}. ${text}`);
  const x = (share) => CHART.left + INNER_WIDTH * share;
  const y = (share) => CHART.top + INNER_HEIGHT * (1 - share);
  for (const bin of calibration.bins) {
    const bar = svg("rect", {
      class: "bar", x: x(bin.low) + 2, y: y(bin.right), width: x(bin.high) - x(bin.low) - 4, height: y(0) - y(bin.right),
    });
    bar.append(svg("title", {}, `${bin.notes} notes, ${percentText(bin.right)} right`));
    picture.append(bar);
  }
  picture.append(
    svg("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    svg("line", { class: "axis", x1: x(0), y1: y(0), x2: x(1), y2: y(0) }),
    svg("text", { x: x(0), y: y(0) + 15 }, "0 %"),
    svg("text", { x: x(1), y: y(0) + 15, "text-anchor": "end" }, "100 %"),
  );
  showChart("calibration", title, text, picture);
  const rows = calibration.bins.map((bin) => ({
    range: `${Math.round(100 * bin.low)} to ${Math.round(100 * bin.high)} %`,
    notes: bin.notes,
    confidence: bin.mean_confidence,
    right: bin.right,
    difference: bin.mean_confidence - bin.right,
  }));
  showTable("calibration-table", caption, columns, rows);
}
