"use strict";
// What the page shows is in `data`: every number is a text that Python rounded. Marks are placed by
// these texts, and nothing is rounded here.
const data = JSON.parse(document.getElementById("data").textContent);
const state = {study: 0, sort: "auroc_lost", down: true, text: "", verdict: "", format: "", open: new Set(),
  before: "tuned", after: "random", pairs: 0, measure: "auroc_lost"};
const CHANGES = ["wrong before and after", "right before and after", "wrong, then right", "right, then wrong"];
const MARKS = {  // a point at 0, as in the figures
  base: "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0", tuned: "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
  true: "M-3.2 -3.2h6.4v6.4h-6.4z", random: "M0 -4.5L4.5 0L0 4.5L-4.5 0z",
};

// --- small things

const SVG = "http://www.w3.org/2000/svg";
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "colour") { element.dataset.colour = ""; element.style.setProperty("--raw", value); }
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(child => child != null && child !== false && child !== ""));
  return element;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const many = (n, one, several) => `${n} ${n === 1 ? one : several}`;

// "0.31 [0.20, 0.41]" -> [0.31, 0.20, 0.41]; [] of what is undefined
function numbers(text) {
  return text && text !== "-" ? text.replaceAll("\u2212", "-").match(/-?[\d.]+/g).map(Number) : [];
}
const study = () => data.studies[state.study];
const colour = verdict => data.colours[verdict] || "#8c8c8c";
function verdict(word) {
  return h("span", {class: "verdict", title: data.meanings[word]}, h("span", {class: "dot", colour: colour(word)}), word);
}
const href = name => `${study().link}/${name}`;
function sentence(tokens) {
  return tokens.map(([text, kind, target]) => {
    if (kind === "strong" || kind === "em") return h(kind, {}, text);
    if (kind === "picture") return h("a", {href: href(target)}, text);
    if (kind === "section") return h("a", {href: `#${target}`}, text);
    return text;
  });
}
function choice(label, options, value, change) {  // options: [[value, text]]
  return h("label", {}, label, h("select", {onchange: event => change(event.target.value)},
    options.map(([of, text]) => h("option", {value: of, selected: of === value}, text))));
}
function radios(label, options, value, change) {
  return h("fieldset", {class: "switch"}, h("legend", {}, label), options.map(([of, text]) =>
    h("label", {}, h("input", {type: "radio", name: label, checked: of === value, onchange: () => change(of)}), text)));
}
const section = (id, heading, ...children) =>
  h("section", {id, "aria-labelledby": `${id}-heading`}, h("h2", {id: `${id}-heading`}, heading), children);
const PLACES = {found: "Found", tasks: "Tasks", questions: "Questions", pairs: "Pairs", methods: "Methods", models: "Models",
  claims: "Claims", beside: "Studies", pictures: "Pictures"};
const box = (label, ...children) => h("div", {class: "box", tabindex: 0, role: "region", "aria-label": label}, children);

// --- marks with intervals

function mark(phase, x, y, low, high) {
  return s("g", {class: `mark${phase === "base" ? " hollow" : ""}`, colour: data.marks[phase]},
    low !== undefined && s("line", {x1: low, x2: high, y1: y, y2: y}),
    s("path", {class: "point", d: MARKS[phase], transform: `translate(${x} ${y})`}));
}
const key = phase => s("svg", {width: 12, height: 12, "aria-hidden": "true"}, mark(phase, 6, 6));
const WIDE = 168, TALL = 46, EDGE = 6;
function intervals(task, measure) {
  const at = value => EDGE + value * (WIDE - 2 * EDGE), said = [];
  const line = (value, name) => s("line", {class: name, x1: at(value), x2: at(value), y1: 0, y2: TALL});
  const marks = Object.keys(data.phases).map((phase, i) => {
    const text = (task.phases[phase] || {})[measure], [value, low, high] = numbers(text);
    if (value === undefined) return null;
    said.push(`${data.phases[phase]} ${text}`);
    return mark(phase, at(value), 7 + i * 10.7, low === undefined ? undefined : at(low), at(high));
  });
  const constant = measure === "accuracy" && numbers(task.constant)[0];
  if (constant > 0.5) said.push(`one answer to everything reaches ${task.constant}`);
  return s("svg", {class: "intervals", width: WIDE, height: TALL, role: "img", "aria-label": said.join("; ")},
    s("title", {}, said.join("\n")), [0, 0.25, 0.75, 1].map(value => line(value, "axis")), line(0.5, "chance"),
    constant > 0.5 && line(constant, "constant"), marks);
}
function scale() {
  return s("svg", {width: WIDE, height: 14, "aria-hidden": "true"}, [[0, "0", "start"], [0.5, "0.5", "middle"], [1, "1", "end"]]
    .map(([value, text, anchor]) => s("text", {x: EDGE + value * (WIDE - 2 * EDGE), y: 11, "text-anchor": anchor,
      "font-size": 11, fill: "currentColor", "font-weight": 400}, text)));
}

// --- the studies, what was found

function studies() {
  document.getElementById("studies").replaceChildren(...data.studies.map((of, i) =>
    h("button", {type: "button", "aria-pressed": String(i === state.study), onclick: () => {
      history.replaceState(null, "", `#study=${of.name}`);  // an address that can be handed on
      choose(i);
      document.querySelector("#studies [aria-pressed=true]").focus();
    }}, of.name,
      h("small", {}, of.about === of.name ? "" : of.about))));
}
function choose(i) {
  Object.assign(state, {study: i, text: "", verdict: "", format: "", open: new Set(), before: "tuned",
    after: "random", pairs: 0, measure: "auroc_lost", down: true});
  state.sort = (study().tasks || []).some(of => of.phases.random.auroc_lost) ? "auroc_lost" : "title";
  show();
}
function counts() {
  return Object.keys(data.meanings).map(word => [word, study().tasks.filter(task => task.verdict === word).length])
    .filter(([, n]) => n);
}
function found() {
  const of = study(), bar = of.tasks && h("div", {class: "bar", role: "img",
    "aria-label": counts().map(([word, n]) => `${n} ${word}`).join(", ")},
  counts().map(([word, n]) => h("span", {colour: colour(word), "--n": n, title: `${n} ${word}`})));
  return section("found", "What was found", h("p", {class: "headline"}, `${of.headline}.`), bar, of.tasks && chips(),
    of.lead && h("p", {class: "lead"}, sentence(of.lead)),
    of.findings && h("ul", {class: "findings"}, of.findings.map(said => h("li", {}, sentence(said)))));
}
function chips() {
  return h("ul", {class: "chips", "aria-label": "Show the tasks of a verdict"}, counts().map(([word, n]) => h("li", {},
    h("button", {type: "button", "data-verdict": word, title: data.meanings[word],
      "aria-pressed": String(state.verdict === word), onclick: () => filter({verdict: state.verdict === word ? "" : word})},
    h("span", {class: "dot", colour: colour(word)}), `${n} ${word}`))));
}

// --- every task

function columns() {
  const has = name => study().tasks.some(task => task.beyond[name]);
  return [
    {id: "title", says: "task"}, {id: "verdict", says: "verdict"},
    {id: "accuracy", says: "accuracy", measure: "accuracy"}, {id: "auroc", says: "AUROC", measure: "auroc"},
    {id: "auroc_lost", says: "AUROC lost"},
    has("auroc_beyond_true_labels") && {id: "auroc_beyond_true_labels", says: "AUROC lost beyond true labels"},
    {id: "forget_ratio", says: "forget ratio"},
  ].filter(Boolean);
}
function value(task, id) {
  if (id === "title") return task.title.toLowerCase();
  if (id === "verdict") return Object.keys(data.meanings).indexOf(task.verdict);
  return numbers(task.beyond[id] || task.phases.random[id])[0];
}
function shown() {
  const wanted = state.text.toLowerCase();
  return study().tasks.filter(task => (!state.verdict || task.verdict === state.verdict)
    && (!state.format || task.format === state.format)
    && (!wanted || `${task.title} ${task.task}`.toLowerCase().includes(wanted)));
}
function sorted(tasks) {
  return [...tasks].sort((one, other) => {
    const a = value(one, state.sort), b = value(other, state.sort);
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);  // undefined ones are last
    return (a < b ? -1 : a > b ? 1 : 0) * (state.down ? -1 : 1);
  });
}
function row(task) {
  const open = state.open.has(task.task);
  const cells = columns().map(column => {
    if (column.id === "title") {
      return h("th", {scope: "row"}, h("button", {type: "button", class: "name", "aria-expanded": String(open),
        "data-task": task.task, onclick: () => toggle(task.task)}, task.title, h("small", {}, task.format), h("small", {class: "narrow"}, verdict(task.verdict))));
    }
    if (column.id === "verdict") return h("td", {"data-column": "verdict"}, verdict(task.verdict));
    if (column.measure) return h("td", {}, intervals(task, column.measure));
    return h("td", {class: "figure", "data-column": column.id}, task.beyond[column.id] || task.phases.random[column.id] || "-");
  });
  const found = [h("tr", {}, cells)];
  if (open) found.push(h("tr", {class: "detail"}, h("td", {colspan: cells.length}, inside(task))));
  return found;
}
function toggle(task) {
  state.open.has(task) ? state.open.delete(task) : state.open.add(task);
  rows();
  document.querySelector(`.name[data-task="${CSS.escape(task)}"]`).focus();
}
function openTask(task) {
  Object.assign(state, {text: "", verdict: "", format: ""});
  state.open.add(task);
  tasksAgain();
  const button = document.querySelector(`.name[data-task="${CSS.escape(task)}"]`);
  button.scrollIntoView({block: "center"});
  button.focus({preventScroll: true});
}
function rows() {
  const there = sorted(shown()), none = h("tr", {}, h("td", {colspan: columns().length}, "No task fits. ",
    h("button", {type: "button", onclick: () => {
      filter({text: "", verdict: "", format: ""});
      tasksAgain();
      document.querySelector("#tasks input").focus();
    }}, "Show all")));
  document.querySelector(".tasks tbody").replaceChildren(...(there.length ? there.flatMap(row) : [none]));
  document.getElementById("count").textContent = `${there.length} of ${many(study().tasks.length, "task", "tasks")}`;
  for (const th of document.querySelectorAll(".tasks thead th")) {
    th.setAttribute("aria-sort", th.dataset.column !== state.sort ? "none" : state.down ? "descending" : "ascending");
  }
}
function filter(change) {
  Object.assign(state, change);
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === state.verdict));
  }
  const select = document.querySelector(".tools [data-filter=verdict] select");
  if (select) select.value = state.verdict;
  rows();
}
function sort(id) {
  const before = state.sort;
  state.sort = id;
  state.down = before === id ? !state.down : id !== "title" && id !== "verdict";  // words begin with the first
  rows();
  document.getElementById("questions")?.replaceWith(questions());
}
function tasks() {
  const of = study(), formats = [...new Set(of.tasks.map(task => task.format))];
  const verdicts = choice("verdict", [["", "all"], ...counts().map(([word, n]) => [word, `${word} (${n})`])], state.verdict,
    word => filter({verdict: word}));
  verdicts.dataset.filter = "verdict";
  const phases = Object.keys(data.phases).filter(phase => of.tasks.some(task => task.phases[phase]));
  const head = columns().map(column => h("th", {scope: "col", "data-column": column.id},
    h("button", {type: "button", onclick: () => sort(column.id)}, column.says), column.measure && h("div", {}, scale())));
  return section("tasks", "Every task",
    h("p", {class: "note"}, "On new questions, with 95 % intervals. Open a task for all its numbers and a dot for every question. ",
      phases.includes("true") ? "The control, the same training on true labels, is in each row."
        : "This study has no control by true labels: part of a loss may be what any such training does."),
    h("div", {class: "tools"}, h("label", {}, "find a task", h("input", {type: "search", value: state.text,
      oninput: event => filter({text: event.target.value})})), verdicts,
    formats.length > 1 && choice("answers", [["", "all"], ...formats.map(f => [f, f])], state.format, f => filter({format: f})),
    h("span", {id: "count", role: "status"})),
    h("div", {class: "legend"}, phases.map(phase => h("span", {}, key(phase), data.phases[phase])),
      formats.includes("fixed answers") && h("span", {}, s("svg", {width: 8, height: 12, class: "intervals", style: "display:inline"},
        s("line", {class: "constant", x1: 4, x2: 4, y1: 0, y2: 12})), "one answer to everything")),
    box("Tasks", h("table", {class: "tasks"}, h("thead", {}, h("tr", {}, head)), h("tbody"))));
}
function tasksAgain() {
  document.getElementById("tasks").replaceWith(tasks());
  filter({});
}
function inside(task) {
  const phases = Object.keys(task.phases);
  const lines = Object.entries(data.measures).filter(([name]) => phases.some(phase => task.phases[phase][name]));
  const beyond = {auroc_beyond_true_labels: "AUROC lost beyond true labels", beyond_true_labels: "accuracy lost beyond true labels"};
  const asked = `${task.n} test questions of ${many(task.seeds, "seed", "seeds")}`;
  return h("div", {class: "inside"},
    h("p", {}, verdict(task.verdict), `: ${data.meanings[task.verdict]}. ${asked}. `,
      task.verdict_true && `After true labels again: ${task.verdict_true}. `,
      task.paper && `The paper's Llama-2-7B: accuracy ${task.paper} after forgetting.`),
    plot(task),
    box(`All numbers of ${task.title}`, h("table", {}, h("thead", {}, h("tr", {}, h("th", {scope: "col"}, "measure"),
      phases.map(phase => h("th", {scope: "col"}, key(phase), ` ${data.phases[phase]}`)))),
    h("tbody", {}, lines.map(([name, says]) => h("tr", {}, h("th", {scope: "row"}, says),
      phases.map(phase => h("td", {"data-measure": name, "data-phase": phase}, task.phases[phase][name] || "")))),
    Object.entries(beyond).filter(([name]) => task.beyond[name]).map(([name, says]) => h("tr", {}, h("th", {scope: "row"}, says),
      phases.map(phase => h("td", {}, phase === "random" ? task.beyond[name] : ""))))))));
}

// --- a dot for every question

const decoded = new Map();
function levels(task, phase) {  // a byte a question: from 128 on it was right
  const text = study().questions[task] && study().questions[task].phases[phase];
  if (text && !decoded.has(text)) decoded.set(text, Uint8Array.from(atob(text), c => c.charCodeAt(0)));
  return text && decoded.get(text);
}
function paths(task, size) {
  const before = levels(task, state.before), after = levels(task, state.after), found = ["", "", "", ""], n = [0, 0, 0, 0];
  if (!before || !after) return null;
  before.forEach((x, i) => {
    const right = [x > 127, after[i] > 127], kind = right[0] ? (right[1] ? 1 : 3) : (right[1] ? 2 : 0);
    n[kind]++;
    found[kind] += `M${x * size / 255 | 0} ${size - after[i] * size / 255 | 0}h0`;
  });
  return {n, drawn: found.map((d, kind) => s("path", {class: `q${kind}`, d}))};
}
const PLOT = 300, LEFT = 46, BELOW = 40;
function plot(task) {
  const found = study().questions[task.task] && paths(task.task, PLOT);
  const selects = h("div", {class: "tools two"}, phaseSwitches(task.task));
  if (!found) return h("div", {class: "plot"}, selects, h("p", {class: "note"}, "No scores of these questions are packed with the study."));
  const place = ([x]) => x * PLOT / 255, ticks = data.ticks.filter(([x]) => x >= 0 && x <= 255);
  const ring = s("circle", {class: "chosen", r: 6, visibility: "hidden"}), asked = h("div", {class: "asked", role: "status"}, h("span", {class: "hint"}, "Point at a dot, or move the slider."));
  const before = levels(task.task, state.before), after = levels(task.task, state.after);
  // What was lost most comes first.
  const order = [...before.keys()].sort((i, j) => (after[i] - before[i]) - (after[j] - before[j]));
  const range = h("input", {type: "range", min: 0, max: order.length - 1, value: 0, "aria-label": "question, the most lost first",
    oninput: event => pick(order[Number(event.target.value)])});
  function pick(i) {
    fill(ring, {cx: before[i] * PLOT / 255, cy: PLOT - after[i] * PLOT / 255, visibility: "visible"}, []);
    range.setAttribute("aria-valuetext", question(task, i).join("; "));
    asked.replaceChildren(...told(task, i));
  }
  const area = s("g", {transform: `translate(${LEFT} 10)`},
    ticks.map(tick => [s("line", {class: "grid", x1: place(tick), x2: place(tick), y1: 0, y2: PLOT}),
      s("line", {class: "grid", y1: PLOT - place(tick), y2: PLOT - place(tick), x1: 0, x2: PLOT}),
      s("text", {x: place(tick), y: PLOT + 16, "text-anchor": "middle"}, tick[1]),
      s("text", {x: -6, y: PLOT - place(tick) + 4, "text-anchor": "end"}, tick[1])]),
    s("line", {class: "grid", x1: 0, x2: PLOT, y1: PLOT, y2: 0}),
    s("line", {class: "half", x1: PLOT / 2, x2: PLOT / 2, y1: 0, y2: PLOT}), s("line", {class: "half", x1: 0, x2: PLOT, y1: PLOT / 2, y2: PLOT / 2}),
    found.drawn, ring);
  const drawing = s("svg", {class: "dots", viewBox: `0 0 ${PLOT + LEFT + 14} ${PLOT + BELOW + 10}`, role: "img",
    "aria-label": `Confidence in the true response of ${before.length} questions: ${data.phases[state.before]} across, `
      + `${data.phases[state.after]} upwards; ${found.n.map((n, i) => `${n} ${CHANGES[i]}`).join(", ")}`,
    onpointermove: event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(area.getScreenCTM().inverse());
      let least = 200, best = -1;
      before.forEach((x, i) => {
        const far = (x * PLOT / 255 - at.x) ** 2 + (PLOT - after[i] * PLOT / 255 - at.y) ** 2;
        if (far < least) { least = far; best = i; }
      });
      if (best >= 0) { range.value = order.indexOf(best); pick(best); }
    }}, area,
  s("text", {x: LEFT + PLOT / 2, y: PLOT + BELOW + 4, "text-anchor": "middle"}, `confidence, ${data.phases[state.before]}`),
  s("text", {transform: `translate(10 ${10 + PLOT / 2}) rotate(-90)`, "text-anchor": "middle"}, `confidence, ${data.phases[state.after]}`));
  return h("div", {class: "plot"}, selects, drawing,
    h("ul", {class: "counts"}, [3, 2, 1, 0].map(i => h("li", {"data-change": i}, dotOf(i), `${found.n[i]} ${CHANGES[i]}`))),
    h("label", {class: "step"}, "step through the questions, the most lost first", range), asked);
}
const dotOf = kind => s("svg", {width: 10, height: 10, "aria-hidden": "true"},
  s("path", {class: `q${kind}`, d: "M5 5h0", "stroke-width": 9, "stroke-linecap": "round"}));
function uid(task, i) {
  const of = study().questions[task], [start, ...end] = of.ends[i].split("/");
  return `${of.starts[start]}/${end.join("/")}`;
}
function seedOf(task, i) {
  for (const [seed, n] of study().questions[task].seeds) {
    if (i < n) return seed;
    i -= n;
  }
}
function question(task, i) {
  const phases = Object.keys(study().questions[task.task].phases);
  return [`${uid(task.task, i)}, seed ${seedOf(task.task, i)}`,
    ...phases.map(phase => `${data.phases[phase]} ${data.confidences[levels(task.task, phase)[i]]}`)];
}
function told(task, i) {
  const [name, ...sure] = question(task, i), text = (study().questions[task.task].texts || {})[uid(task.task, i)];
  return [h("strong", {}, name), h("div", {}, "confidence: ", sure.map((of, n) => [n ? ", " : "", h("span", {}, of)])),
    text && h("q", {}, text[0]), text && h("div", {}, h("b", {}, "true: "), text[1]), text && h("div", {}, h("b", {}, "distractor: "), text[2])].filter(Boolean);
}
function phaseSwitches(task) {
  const there = Object.keys(data.phases).filter(phase => task ? levels(task, phase)
    : Object.values(study().questions).some(of => of.phases[phase]));
  const named = there.map(phase => [phase, data.phases[phase]]);
  const change = name => phase => { state[name] = phase; dotsAgain(task, name); };
  return ["before", "after"].map(name => {
    const found = choice(name, named, state[name], change(name));
    found.dataset.phase = name;
    return found;
  });
}
function dotsAgain(task, name) {
  rows();
  document.getElementById("questions")?.replaceWith(questions());
  const place = task ? document.querySelector(`.name[data-task="${CSS.escape(task)}"]`).closest("tr").nextSibling
    : document.getElementById("questions");
  place.querySelector(`[data-phase=${name}] select`).focus();
}
function questions() {
  const there = sorted(study().tasks).filter(task => study().questions[task.task]);
  return section("questions", "Every question, before and after",
    h("p", {class: "note"}, "A dot is a question: to the right the model was surer of the true response before, upwards it is surer after. "
      + "Unchanged ones lie on the diagonal. Tasks are in the order of the table."),
    h("div", {class: "tools"}, phaseSwitches()),
    h("div", {class: "legend"}, [3, 2, 1, 0].map(i => h("span", {}, dotOf(i), ` ${CHANGES[i]}`))),
    h("ul", {class: "panels"}, there.map(task => {
      const found = paths(task.task, 120);
      return h("li", {}, h("button", {type: "button", "data-panel": task.task, title: `Open ${task.title}`, onclick: () => openTask(task.task)},
        s("svg", {class: "dots few", viewBox: "-4 -4 128 128", "aria-hidden": "true"},
          s("line", {class: "grid", x1: 0, x2: 120, y1: 120, y2: 0}), s("line", {class: "half", x1: 60, x2: 60, y1: 0, y2: 120}), s("line", {class: "half", x1: 0, x2: 120, y1: 60, y2: 60}),
          found && found.drawn),
        h("b", {}, task.title), h("small", {}, found ? `${found.n[3]} lost, ${found.n[2]} won` : "not measured")));
    })));
}

// --- matrices: of pairs of tasks, and of methods

function matrix(of, name, {own, says, under, sub = () => ""}) {
  const measure = of.measures.find(m => m.name === name) || of.measures[0], read = h("div", {class: "read", role: "status"}, h("span", {class: "hint"}, "Point at a cell, or move with the arrow keys, for all its numbers."));
  const buttons = of.rows.map(([row, rowTitle], y) => of.columns.map(([column, columnTitle], x) => {
    const text = measure.cells[y][x], [at, low, high] = numbers(text);
    const open = low !== undefined && low <= 0 && high >= 0;
    const classes = at === undefined ? "none" : `${at < 0 ? "below" : "above"}${open ? " open" : ""}`;
    return h("button", {type: "button", tabindex: x || y ? -1 : 0, "data-row": y, "data-column": x,
      class: own && row === column ? `${classes} own` : classes, "--level": at === undefined ? 0 : Math.min(1, Math.abs(at) / measure.end),
      "aria-label": `${says(rowTitle, columnTitle)}: ${measure.says} ${text || "not measured"}`,
      onpointerenter: () => tell(y, x), onfocus: event => { tell(y, x); roving(event.target); }}, text.split(" ")[0] || "-");
  }));
  function tell(y, x) {
    read.replaceChildren(h("b", {}, says(of.rows[y][1], of.columns[x][1])), h("dl", {}, [...(under ? under(of.rows[y][0], of.columns[x][0]) : []),
      ...of.measures.map(m => [m.says, m.cells[y][x] || "-"])].map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
  }
  function roving(target) {
    buttons.flat().forEach(button => { button.tabIndex = button === target ? 0 : -1; });
  }
  function move(event) {
    const by = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    const from = event.target.dataset;
    if (!by || from.row === undefined) return;
    event.preventDefault();
    const next = (buttons[Number(from.row) + by[0]] || [])[Number(from.column) + by[1]];
    if (next) next.focus();
  }
  return h("div", {class: "beside"}, box("Matrix", h("table", {class: `matrix${of.columns.length > 7 ? " many" : ""}`, onkeydown: move},
    h("thead", {}, h("tr", {}, h("td"), of.columns.map(([, title]) => h("th", {scope: "col"}, h("span", {}, title))))),
    h("tbody", {}, of.rows.map(([row, title], y) => h("tr", {}, h("th", {scope: "row"}, title, sub(row)),
      buttons[y].map(button => h("td", {}, button))))))), read);
}
function pairs() {
  const every = study().pairs, of = every[state.pairs], models = [...new Set(every.map(p => p.model))];
  const again = change => {
    Object.assign(state, change);
    const focused = document.activeElement.closest("#pairs .tools > *"), i = focused ? [...focused.parentNode.children].indexOf(focused) : -1;
    document.getElementById("pairs").replaceWith(pairs());
    const place = document.querySelector("#pairs .tools").children[i];
    if (place) place.querySelector("select, input:checked").focus();
  };
  const pick = (model, labels) => {
    const i = every.findIndex(p => p.model === model && p.labels === labels);
    return {pairs: i < 0 ? every.findIndex(p => p.model === model) : i};
  };
  const labels = every.filter(p => p.model === of.model).map(p => [p.labels, p.labels]);
  return section("pairs", "One task's labels, another task's skill",
    h("p", {class: "note"}, "A row is the task that is asked, a column the task whose labels were trained on. Framed: its own labels. ",
      "Red: lost; blue: won; italics: the interval includes 0."),
    h("div", {class: "tools"},
      models.length > 1 && choice("model", models.map(m => [m, m]), of.model, model => again(pick(model, of.labels))),
      choice("measure", of.measures.map(m => [m.name, m.says]), state.measure, measure => again({measure})),
      labels.length > 1 && radios("labels", labels, of.labels, kind => again(pick(of.model, kind)))),
    matrix(of, state.measure, {own: true, says: (row, column) => `${row}, after ${of.labels} labels of ${column}`,
      under: row => [["accuracy before", of.known[row]]]}));
}
function methods() {
  return section("methods", "Ways to forget", h("p", {class: "note"}, "What each method costs, from the questions that it was given to tasks "
    + "that it had nothing to do with. Red: lost; italics: the interval includes 0."),
  study().methods.map((of, i) => {
    const place = h("div");
    const draw = name => place.replaceChildren(
      h("h3", {}, of.skill),
      h("div", {class: "tools"}, choice("measure", of.measures.map(m => [m.name, m.says]), name, next => {
        draw(next);
        place.querySelector("select").focus();
      })),
      matrix(of, name, {says: (method, where) => `${method}, ${where}`, sub: method => {
        const about = of.about[method];
        return h("small", {style: "display:block"}, about.verdict && [verdict(about.verdict), ", "],
          [about.dose && `dose reached in ${about.dose}`, about.steps && about.steps !== "-" && `${about.steps} steps`,
            !about.dose && many(about.seeds, "seed", "seeds")].filter(Boolean).join(", "));
      }}));
    draw("auroc_lost");
    return place;
  }));
}

// --- models and studies beside each other, claims, pictures

function plain(label, head, body) {
  return box(label, h("table", {}, h("thead", {}, h("tr", {}, head.map(text => h("th", {scope: "col"}, text)))),
    h("tbody", {}, body.map(([first, ...rest]) => h("tr", {}, h("th", {scope: "row"}, first), rest.map(cell => h("td", {}, cell)))))));
}
function models() {
  const means = ["accuracy_lost", "auroc_lost", "nll_risen"];
  return section("models", "Models beside each other", h("p", {class: "note"}, "Means over tasks after their own labels, and over pairs after others'."),
    plain("Models", ["model", ...["own", "others'"].flatMap(whose => ["accuracy lost", "AUROC lost", "nats a token risen"].map(m => `${m}, ${whose} labels`))],
      study().compared.map(of => [of.model, ...["own", "others"].flatMap(whose => means.map(m => of[`${whose}_${m}`]))])));
}
function scaled() {
  const of = study().scaled, place = h("div");
  const draw = name => place.replaceChildren(
    h("div", {class: "tools"}, choice("measure", of.measures.map(m => [m.name, m.says]), name, next => {
      draw(next);
      place.querySelector("select").focus();
    })),
    matrix(of, name, {says: (task, model) => `${task}, ${model}`, under: (task, model) => of.beside[task][model] || []}));
  draw(of.measures[0].name);
  return section("models", "Models beside each other", h("p", {class: "note"}, "What random labels cost each model on new questions of the "
    + "task. Red: lost; blue: won; italics: the interval includes 0."), place);
}
function beside() {
  const there = data.studies.filter(of => of.tasks), by = new Map();
  there.forEach((of, i) => of.tasks.forEach(task => {
    if (!by.has(task.title)) by.set(task.title, []);
    by.get(task.title)[i] = task;
  }));
  const shared = [...by].filter(([, of]) => of.filter(Boolean).length > 1).sort(([one], [other]) => one < other ? -1 : 1);
  if (there.length < 2 || !shared.length) return null;
  return section("beside", "The same task in several studies", h("p", {class: "note"}, "Verdict, and AUROC fine-tuned, then after random labels."),
    plain("Studies", ["task", ...there.map(of => [of.name, h("small", {style: "display:block"}, of.models.join(", "))])],
      shared.map(([title, of]) => [title, ...there.map((_, i) => of[i] ? [verdict(of[i].verdict), h("small", {style: "display:block"},
        `${of[i].phases.tuned.auroc || "-"} → ${of[i].phases.random.auroc || "-"}`)] : "")])));
}
function claims() {
  return section("claims", "The paper's claims", h("p", {class: "note"}, "A claim becomes statistics with thresholds of ours. It holds where the "
    + "whole interval is on its side of the threshold, and does not hold where all of it is on the other."),
  h("div", {class: "claims"}, study().claims.map(of => {
    const counted = new Map();
    of.statistics.forEach(({verdict: word}) => counted.set(word, (counted.get(word) || 0) + 1));
    return h("details", {}, h("summary", {}, h("b", {}, of.says), ` (${of.figure}) `, h("div", {},
      [...counted].map(([word, n]) => h("span", {class: "verdict"}, h("span", {class: "dot", colour: colour(word)}),
        of.statistics.length > 1 ? `${n} of ${of.statistics.length}: ${word}` : word)))),
    plain(of.says, ["statistic", "value", "holds if", "verdict", "why", "paper"], of.statistics.map(row => [row.says, row.value,
      row.holds, verdict(row.verdict), [row.why, row.post_hoc && h("small", {}, " post hoc")], row.paper])),
    h("div", {}, of.pictures.length ? "See " : "", of.pictures.map((name, i) => [i ? ", " : "", h("a", {href: href(`${name}.png`)}, label(name))])));
  })));
}
const label = name => name.startsWith("fig") ? `Figure ${name.slice(3).split("_")[0]}` : name;
function pictures() {
  return section("pictures", "Pictures", h("p", {class: "note"}, `In ${study().link}, as PNG and PDF, with a table each.`),
    h("ul", {class: "pictures"}, study().pictures.map(of => h("li", {}, h("a", {href: href(`${of.name}.png`)}, of.name), ": ", sentence(of.says)))));
}

// --- all of it

function show() {
  const of = study();
  studies();
  const parts = [found(), of.tasks && tasks(), of.tasks && Object.keys(of.questions).length && questions(),
    of.pairs && of.pairs.length && pairs(), of.methods.length && methods(), of.compared && of.compared.length && models(), of.scaled && scaled(),
    of.claims && of.claims.length && claims(), of.tasks && beside(), of.pictures.length && pictures()].filter(Boolean);
  const places = h("nav", {class: "places", "aria-label": "On this page"}, parts.map(part =>
    h("a", {href: `#${part.id}`}, PLACES[part.id])));
  document.getElementById("main").replaceChildren(places, ...parts);
  if (of.tasks) rows();
}
for (const [phase, hex] of Object.entries(data.marks)) document.documentElement.style.setProperty(`--raw-${phase}`, hex);
document.getElementById("verdicts").append(...Object.entries(data.meanings).flatMap(([word, meaning]) => [h("dt", {}, verdict(word)), h("dd", {}, meaning)]));
if (data.texts) document.getElementById("licence").textContent = "It holds questions of benchmarks under licences of their own: keep it to yourself.";
function follow() {  // #study=embedded, #study=embedded&task=sst2
  const wanted = new URLSearchParams(location.hash.slice(1)), i = data.studies.findIndex(of => of.name === wanted.get("study"));
  if (i >= 0) choose(i);
  if (wanted.get("task") && (study().tasks || []).some(task => task.task === wanted.get("task"))) openTask(wanted.get("task"));
}
choose(0);
follow();
window.addEventListener("hashchange", follow);
