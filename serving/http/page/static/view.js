// Shows an explanation: the answer, what was saved, the layers, and the text.

import { KEPT, keptByLayer, runs, tokensOf } from "./text.js";

const byId = (id) => document.getElementById(id);

let explained = null; // what is shown
let selecting = []; // layers that dropped something, which have a colour each

const count = (value) => value.toLocaleString("en");
const billions = (value) => (value < 1e7 ? `${(value / 1e6).toPrecision(2)} M` : `${(value / 1e9).toFixed(2)} G`);
export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}\u00a0ms`;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Show an explanation. `request` is what was asked for. */
export function show(explanation, request) {
  explained = explanation;
  const { answer, windows } = explanation;
  const dropping = windows.flatMap((window) => window.words.map((word) => word.dropped_at)).filter((at) => at !== null);
  const perLayer = keptByLayer(windows);
  const all = tokensOf(windows);
  selecting = perLayer.map((_, layer) => layer).filter((layer) => perLayer[layer] < (perLayer[layer - 1] ?? all));
  byId("explained").hidden = false;
  byId("answer").textContent = answer.answer.trim() || "No answer in this text";
  byId("ran").replaceChildren(...whatRan(explanation, request));
  listWindows();
  showWindows();
  showSavings(null);
  byId("spoken").textContent =
    `Answer: ${answer.answer}. ${name()} ran in ${milliseconds(explanation.ms)}; ` +
    `${perLayer.at(-1)} of ${all} tokens were left after the last layer.`;
}

/** Show the same question answered by `full` beside it; null while that is not known. */
export function showSavings(full) {
  const { windows, ms, macs, full_macs } = explained;
  const all = tokensOf(windows) * windows[0].kept.length;
  const kept = keptByLayer(windows).reduce((sum, tokens) => sum + tokens, 0);
  const [time, work, tokens] = byId("savings").querySelectorAll("dd");
  fill(time, milliseconds(ms), [ms, full ? full.ms : null], milliseconds);
  fill(work, fewer(full_macs / macs), [macs, full_macs], billions);
  fill(tokens, `${Math.round((100 * kept) / all)} % kept`, [kept, all], count);
  byId("full-answer").replaceChildren(...(full && full !== explained ? besideFull(full.answer) : [" "]));
}

function name() {
  return explained.length_config_name ?? "keep ratios without a name";
}

function whatRan({ answer, ms, budget_met, windows }, request) {
  const budget = request.budget_ms;
  const met = budget === undefined ? "" : `, ${budget_met ? "within" : "over"} the budget of ${budget}\u00a0ms`;
  const cut = windows.length > 1 ? ` · ${windows.length} windows that overlap` : "";
  return [`score ${answer.score.toFixed(2)} · `, element("code", "", name()), ` · ${milliseconds(ms)}${met}${cut}`];
}

function fewer(times) {
  return times < 1.005 ? "as many as full" : `${times.toFixed(times < 10 ? 1 : 0)}× fewer`;
}

function fill(place, headline, [own, full], format) {
  const largest = Math.max(own, full ?? 0);
  const rows = [versus(name(), own, largest, format)];
  if (name() !== "full") rows.push(versus("full", full, largest, format));
  place.replaceChildren(element("strong", "", headline), ...rows);
}

function versus(label, value, largest, format) {
  const row = element("div", "versus", element("span", "", label), bar([[(value ?? 0) / largest, null]]));
  row.append(element("span", "", value === null ? "…" : format(value)));
  return row;
}

function besideFull(answer) {
  const same = answer.start === explained.answer.start && answer.end === explained.answer.end;
  const score = `(score ${answer.score.toFixed(2)})`;
  if (same) return [element("code", "", "full"), ` gives the same answer ${score}.`];
  return [element("code", "", "full"), ` answers otherwise: “${answer.answer}” ${score}.`];
}

/** A bar of parts, each a share of its width and the layer whose colour it has. */
function bar(parts) {
  const made = element("span", "bar");
  made.setAttribute("aria-hidden", "true");
  for (const [share, layer] of parts) {
    const part = element("i", "");
    part.style.setProperty("--part", share);
    if (layer !== null) colour(part, layer);
    made.append(part);
  }
  return made;
}

function colour(element, layer) {
  element.style.setProperty("--at", selecting.indexOf(layer) / Math.max(1, selecting.length - 1));
}

function listWindows() {
  const choice = byId("window");
  const { windows, answer_window } = explained;
  choice.hidden = windows.length === 1;
  const options = windows.map((window, index) => {
    const words = window.words.filter((word) => word.segment === "context");
    const where = `window ${index + 1}: characters ${words[0].start}–${words.at(-1).end}`;
    return new Option(index === answer_window ? `${where} (answer)` : where, index);
  });
  choice.replaceChildren(new Option("the whole text", ""), ...options);
}

/** Show the layers and the text of the chosen windows, after the last layer. */
export function showWindows() {
  const chosen = byId("window").value;
  const windows = chosen === "" ? explained.windows : [explained.windows[Number(chosen)]];
  showLayers(windows);
  showText("question-shown", explained.question, runs(explained.question, windows, "question", null));
  showText("context-shown", explained.context, runs(explained.context, windows, "context", explained.answer));
  showStep();
  scrollToAnswer();
}

function showLayers(windows) {
  const all = tokensOf(windows);
  const kept = keptByLayer(windows);
  const rows = [row("input", -1, all, 0, all)];
  kept.forEach((left, layer) => rows.push(row(`layer ${layer}`, layer, left, (kept[layer - 1] ?? all) - left, all)));
  rows.at(-1).querySelector("input").checked = true;
  byId("layers").replaceChildren(...rows);
}

function row(label, layer, left, dropped, all) {
  const input = element("input", "");
  Object.assign(input, { type: "radio", name: "layer", value: layer });
  input.setAttribute("aria-label", `${label}: ${left} of ${all} tokens remain, ${dropped} dropped`);
  const parts = dropped ? [[left / all, null], [dropped / all, layer]] : [[left / all, null]];
  const made = element("label", dropped || layer < 0 ? "" : "none", input, element("span", "", label), bar(parts));
  made.append(element("span", "count", count(left)));
  made.title = layer < 0 ? `${all} tokens are read` : `${label} drops ${dropped} tokens and passes on ${left} of ${all}`;
  return made;
}

function showText(id, text, stretches) {
  const shown = stretches.map(({ text, layer, answer }) => {
    const made = element(answer ? "mark" : "span", "", text);
    if (layer === null) return made;
    made.dataset.layer = layer;
    made.title = layer === KEPT ? "kept by all layers" : `dropped by layer ${layer}`;
    if (layer !== KEPT) colour(made, layer);
    return made;
  });
  byId(id).replaceChildren(...shown);
}

function scrollToAnswer() {
  const box = byId("context-shown");
  const found = box.querySelector("mark");
  if (found) box.scrollTop = found.offsetTop - box.offsetTop - box.clientHeight / 3;
}

/** Strike out what the layers up to the chosen one dropped. */
export function showStep() {
  const step = Number(byId("layers").querySelector(":checked").value);
  for (const stretch of document.querySelectorAll(".shown [data-layer]")) {
    stretch.classList.toggle("gone", Number(stretch.dataset.layer) <= step);
  }
  byId("text-title").textContent = step < 0 ? "What the model reads" : `What remains after layer ${step}`;
}
