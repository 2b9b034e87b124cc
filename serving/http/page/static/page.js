// The page: what a person asks, and what is shown for it.

import { ServerError, explain, info, time } from "./server.js";
import { show, showSavings, showStep, showWindows } from "./view.js";

const BUDGETS_MS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000, 2000];
const SETTLE_MS = 200; // a moving slider asks when it rests
const STEP_MS = 900;
const RETRY_MS = 1000;
const TIMED_AGAIN = 3; // a single time says little where the browser uses the same cores
const CHEAP_MS = 100;

const byId = (id) => document.getElementById(id);
const form = byId("ask");
const budget = byId("budget");

let running = null; // AbortController of the question that is being answered
let byFullBefore = { key: null, explained: null };
let settling = 0;
let playing = 0;

function asked() {
  const text = { question: byId("question").value, context: byId("context").value };
  if (form.elements.by.value === "name") return { ...text, length_config: form.elements.length_config.value };
  const limits = { budget_ms: BUDGETS_MS[budget.value] };
  if (byId("loss").value) limits.max_f1_loss = Number(byId("loss").value);
  return { ...text, ...limits };
}

/** Ask what the form says, and show the answer; returns it, or null if there is none. */
async function ask() {
  if (!form.reportValidity()) return null;
  running?.abort();
  const own = (running = new AbortController());
  byId("result").setAttribute("aria-busy", "true");
  try {
    const request = asked();
    const explained = await explain(request, own.signal);
    byId("error").hidden = true;
    show(explained, request);
    byId("result").setAttribute("aria-busy", "false");
    const full = await byFull(request, own.signal, explained);
    showSavings(full);
    timeAgain(explained, full, own.signal).catch(() => {}); // the answer is there already
    return explained;
  } catch (error) {
    if (!own.signal.aborted) report(error);
    return null;
  } finally {
    if (running === own) byId("result").setAttribute("aria-busy", "false");
  }
}

/** The same question answered by `full`; kept, since a moved budget does not change it. */
async function byFull({ question, context }, signal, explained = null) {
  const key = JSON.stringify([question, context]);
  if (explained?.length_config_name === "full") byFullBefore = { key, explained };
  if (byFullBefore.key !== key) {
    byFullBefore = { key, explained: await explain({ question, context, length_config: "full" }, signal) };
  }
  return byFullBefore.explained;
}

/** Replace the times of both by the shortest of several, in turns, if they are short. */
async function timeAgain(explained, full, signal) {
  if (explained === full || explained.ms + full.ms > CHEAP_MS) return;
  for (let run = 0; run < TIMED_AGAIN; run++) {
    for (const one of [explained, full]) one.ms = Math.min(one.ms, await time(one, signal));
  }
  showSavings(full);
}

function report(error) {
  if (!(error instanceof ServerError)) throw error;
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

function askWhenSettled() {
  clearTimeout(settling);
  settling = setTimeout(ask, SETTLE_MS);
}

/** Ask with the largest budget that `full` does not fit, so that the page begins with what a budget does. */
async function askBelowFull({ ms }) {
  budget.value = BUDGETS_MS.findLastIndex((fits) => fits <= ms);
  for (;;) {
    showBudget();
    const explained = await ask();
    if (explained?.length_config_name !== "full" || budget.value === budget.min) return;
    budget.value--;
  }
}

function showBudget() {
  const text = `${BUDGETS_MS[budget.value]} ms`;
  byId("budget-text").textContent = text;
  budget.setAttribute("aria-valuetext", text);
}

function showChoice() {
  const byName = form.elements.by.value === "name";
  byId("by-name").hidden = !byName;
  byId("by-budget").hidden = byName;
}

/** Choose one layer after the other. */
function play() {
  const steps = [...byId("layers").querySelectorAll("input")];
  let next = 0;
  const step = () => {
    if (next === steps.length || !steps[next].isConnected) return clearInterval(playing);
    steps[next++].checked = true;
    showStep();
  };
  clearInterval(playing);
  playing = setInterval(step, STEP_MS);
  step();
}

/** Fill in what depends on the server's model, once it is loaded, and ask the example. */
async function begin() {
  try {
    const { model } = await info();
    byId("facts").textContent = [model.name, model.cpu, `${model.threads} threads`].join(" · ");
    listNames(model);
  } catch (error) {
    report(error);
    if (error.status === 503) setTimeout(begin, RETRY_MS);
    return;
  }
  try {
    await askBelowFull(await byFull(asked()));
  } catch (error) {
    report(error);
  }
}

function listNames({ length_configs: configs, default_length_config: chosen }) {
  byId("loss-control").hidden = !Object.values(configs).some(({ measured }) => measured?.f1_against_full);
  for (const [name, { measured }] of Object.entries(configs)) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "length_config", value: name, checked: name === chosen });
    const label = document.createElement("label");
    const cost = document.createElement("span");
    cost.className = "quiet";
    cost.textContent = measured?.macs_fewer > 1 ? `${measured.macs_fewer.toFixed(1)}× fewer MACs` : "";
    label.append(input, name, cost);
    byId("names").append(label);
  }
}

budget.max = BUDGETS_MS.length - 1;
showBudget();
showChoice();

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  await ask();
  const result = byId("result"); // below the form on narrow screens
  if (result.getBoundingClientRect().top > 0.7 * innerHeight) result.scrollIntoView();
});
byId("context").addEventListener("input", ({ target }) => {
  byId("examples").hidden = target.value !== target.defaultValue; // they ask about that text
});
byId("context").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
});
for (const example of byId("examples").children) {
  example.addEventListener("click", () => {
    byId("question").value = example.textContent;
    ask();
  });
}
budget.addEventListener("input", () => {
  showBudget();
  askWhenSettled();
});
byId("loss").addEventListener("change", ask);
for (const choice of form.elements.by) {
  choice.addEventListener("change", () => {
    showChoice();
    ask();
  });
}
byId("names").addEventListener("change", ask);
byId("window").addEventListener("change", showWindows);
byId("layers").addEventListener("change", () => {
  clearInterval(playing);
  showStep();
});
byId("play").addEventListener("click", play);
begin();
