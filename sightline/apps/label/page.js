// The page of `sightline label`, run by Gradio with `element` (ours) and `server` (page.py, over HTTP).
// All texts from data and people are inserted as textContent, never as markup.
const root = element.querySelector(".desk");
const NAME = "sightline-rater";
const SIDES = ["A", "B"];
const NO_SERVER = "The server does not respond; nothing was saved. Restart it, then press the key again.";
let view = null;
let rater = "";
let forms = new Map(); // unsaved annotations, by item
let active = null; // the side being annotated by keyboard, or null
let cursor = 0;
let since = 0;
let busy = false;
let note = null; // [text, kind] under the header

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const key = (name) => h("kbd", {}, name);

async function ask(name, request) {
  if (busy) return null;
  busy = true;
  try {
    const answer = await server[name](request);
    if (answer === undefined || answer === null) {
      say(NO_SERVER, "bad");
      return null;
    }
    if (answer.error) {
      say(answer.error, "bad");
      return null;
    }
    return answer;
  } catch (error) {
    say(NO_SERVER, "bad");
    return null;
  } finally {
    busy = false;
  }
}

function say(text, kind) {
  note = text ? [text, kind] : null;
  const place = root.querySelector(".note");
  if (!place) return;
  place.className = "note " + (kind || "");
  place.textContent = text || "";
}

function show(answer) {
  if (!answer) return;
  view = answer;
  rater = answer.rater;
  active = null;
  cursor = 0;
  since = performance.now();
  note = answer.notice ? [answer.notice, ""] : null;
  draw();
  window.scrollTo({ top: 0 });
}

function form() {
  const item = view.item;
  if (!forms.has(item.id)) {
    const noted = (side) => ({
      marks: new Set(side.marks),
      correction: side.correction,
      grades: { ...side.grades },
      open: Boolean(side.correction),
    });
    forms.set(item.id, item.sides.map(noted));
  }
  return forms.get(item.id);
}

async function keep(verdict) {
  if (!view || !view.item) return;
  const item = view.item;
  const sides = form().map((side) => ({
    marks: [...side.marks].sort((a, b) => a - b),
    correction: side.open ? side.correction : null,
    grades: side.grades,
  }));
  const seconds = (performance.now() - since) / 1000;
  const answer = await ask("keep", { rater, item: item.id, verdict, sides, seconds });
  if (!answer) return;
  forms.delete(item.id);
  show(answer);
}

async function go(place) {
  show(await ask("turn_to", { rater, place }));
}

async function enter(name) {
  const answer = await ask("enter", { rater: name });
  if (!answer) return;
  localStorage.setItem(NAME, answer.rater);
  show(answer);
}

function leave() {
  localStorage.removeItem(NAME);
  view = null;
  forms = new Map();
  draw();
}

function draw() {
  if (!view) root.replaceChildren(gate());
  else if (!view.item) root.replaceChildren(head(), rest(), finished());
  else root.replaceChildren(head(), rest(), work(), bar());
}

const rest = () => h("p", { class: "note " + ((note && note[1]) || ""), role: "status", "aria-live": "polite" }, (note && note[0]) || "");

function gate() {
  const field = h("input", { id: "rater", maxlength: 40, autocomplete: "off", spellcheck: "false", placeholder: "for example: ann" });
  field.value = localStorage.getItem(NAME) || "";
  const start = (event) => {
    event.preventDefault();
    enter(field.value);
  };
  queueMicrotask(() => field.focus());
  return h(
    "form",
    { class: "gate card", onsubmit: start },
    h("h1", {}, "Which answer is better?"),
    h("p", {}, "You see a picture, a question and two answers in random order. Every choice is saved at once; return under the same name to continue."),
    h("label", { for: "rater" }, "Your name"),
    field,
    h("button", { class: "main", type: "submit" }, "Start ", key("Enter")),
    rest(),
  );
}

function head() {
  const share = view.count ? (100 * view.done) / view.count : 0;
  const meter = h("div", { class: "meter", role: "progressbar", "aria-valuenow": view.done, "aria-valuemax": view.count, "aria-label": "items done" }, h("i", {}));
  meter.firstChild.style.width = share + "%";
  const where = view.item ? `item ${view.item.place + 1} of ${view.count}` : "all items";
  return h(
    "header",
    {},
    h("div", { class: "where" }, h("b", {}, where), h("span", {}, ` ${view.done} done`)),
    meter,
    h("div", { class: "who" }, h("span", {}, view.rater), h("button", { class: "link", type: "button", onclick: leave }, "change")),
  );
}

function work() {
  const item = view.item;
  const pictures = item.images.map((uri, place) =>
    uri ? h("img", { src: uri, alt: `picture ${place + 1}` }) : h("p", { class: "missing" }, "This picture cannot be opened."),
  );
  const turns = item.history.map((turn) => h("p", { class: "turn" }, h("b", {}, turn.role + ": "), turn.text));
  return h(
    "main",
    { class: pictures.length ? "" : "bare" },
    pictures.length ? h("figure", {}, pictures) : null,
    h("section", {}, h("div", { class: "prompt" }, turns, h("p", {}, item.prompt)), h("div", { class: "answers" }, item.sides.map(card))),
  );
}

function card(side, number) {
  const noted = form()[number];
  const config = view.config;
  let word = -1;
  const parts = side.pieces.map(([text, isWord]) => {
    if (!isWord) return document.createTextNode(text);
    word += 1;
    return wordOf(text, number, word);
  });
  const chosen = view.item.verdict === (number ? "right" : "left");
  const classes = ["card", "answer", active === number ? "active" : "", chosen ? "chosen" : ""].join(" ");
  return h(
    "article",
    { class: classes, "aria-label": "answer " + SIDES[number] },
    h("h2", {}, h("span", { class: "badge" }, SIDES[number]), chosen ? h("small", {}, "your choice") : null, h("span", { class: "keys" }, key(SIDES[number].toLowerCase()), " to annotate")),
    h("p", { class: "text" }, parts),
    config.criteria.map((name) => grading(name, number)),
    config.corrections ? correcting(side, noted, number) : null,
  );
}

function wordOf(text, number, word) {
  if (!view.config.marks) return document.createTextNode(text);
  const marked = form()[number].marks.has(word);
  const at = active === number && cursor === word;
  const classes = "word" + (marked ? " marked" : "") + (at ? " cursor" : "");
  return h("span", { class: classes, title: "click: not in the picture", onclick: () => toggle(number, word) }, text);
}

function toggle(number, word) {
  const marks = form()[number].marks;
  if (!marks.delete(word)) marks.add(word);
  active = number;
  cursor = word;
  draw();
}

function grading(name, number) {
  const config = view.config;
  const noted = form()[number];
  const buttons = [];
  for (let grade = config.lowest; grade <= config.highest; grade += 1) {
    const pressed = noted.grades[name] === grade;
    const press = () => {
      if (pressed) delete noted.grades[name];
      else noted.grades[name] = grade;
      draw();
    };
    buttons.push(h("button", { type: "button", "aria-pressed": String(pressed), "aria-label": `${name}: ${grade}`, onclick: press }, String(grade)));
  }
  const next = active === number && nextCriterion(number) === name;
  return h("div", { class: "grades" + (next ? " next" : "") }, h("span", {}, name), h("div", {}, buttons));
}

const nextCriterion = (number) => view.config.criteria.find((name) => form()[number].grades[name] === undefined);

function correcting(side, noted, number) {
  if (!noted.open) {
    const open = () => openCorrection(number);
    return h("button", { class: "link", type: "button", onclick: open }, "correct it ", active === number ? key("c") : null);
  }
  const area = h("textarea", { rows: 3, maxlength: 20000, "aria-label": "correction of answer " + SIDES[number], "data-side": number });
  area.value = noted.correction === null ? side.text : noted.correction;
  noted.correction = area.value;
  area.addEventListener("input", () => {
    noted.correction = area.value;
  });
  const close = () => {
    noted.open = false;
    noted.correction = null;
    draw();
  };
  return h("div", { class: "correction" }, area, h("button", { class: "link", type: "button", onclick: close }, "discard correction"));
}

function openCorrection(number) {
  active = number;
  form()[number].open = true;
  draw();
  const area = root.querySelector(`textarea[data-side="${number}"]`);
  if (area) area.focus();
}

function bar() {
  const item = view.item;
  const verdict = (name, text, hint, extra) =>
    h("button", { type: "button", class: "verdict " + (extra || "") + (item.verdict === name ? " chosen" : ""), "aria-keyshortcuts": hint, onclick: () => keep(name) }, h("span", {}, text), key(hint));
  const move = (text, hint, place, off) =>
    h("button", { type: "button", class: "move", disabled: off, "aria-label": hint, onclick: () => go(place) }, text);
  const rows = [
    h(
      "div",
      { class: "verdicts" },
      move("←", "previous item", item.place - 1, item.place === 0),
      verdict("left", "A is better", "1", "main"),
      verdict("right", "B is better", "2", "main"),
      verdict("tie", "tie", "t"),
      verdict("skip", "skip", "s"),
      move("→", "next item", item.place + 1, item.place + 1 >= view.count),
    ),
    h("p", { class: "help" }, help()),
  ];
  return h("footer", {}, rows);
}

function help() {
  if (active === null) return [key("←"), key("→"), " items  ", key("n"), " next unrated  ", key("a"), key("b"), " annotate an answer"];
  const parts = [];
  if (view.config.marks) parts.push(key("←"), key("→"), " word  ", key("space"), " not in the picture  ");
  if (view.config.criteria.length) parts.push(key(`${view.config.lowest}–${view.config.highest}`), " grade  ");
  if (view.config.corrections) parts.push(key("c"), " correct  ");
  return [...parts, key("Esc"), " done"];
}

function finished() {
  return h(
    "section",
    { class: "gate card" },
    h("h1", {}, "All done, thank you."),
    h("p", {}, `All ${view.count} items are rated and saved; you can close this window.`),
    h("button", { type: "button", class: "main", onclick: () => go(view.count - 1) }, "Review ", key("←")),
  );
}

function onAnswer(event) {
  const words = root.querySelectorAll("article")[active].querySelectorAll(".word").length;
  const name = nextCriterion(active);
  const digit = Number.parseInt(event.key, 10);
  if (event.key === "Escape") active = null;
  else if (event.key === "a" || event.key === "b") activate(event.key === "b" ? 1 : 0);
  else if (event.key === "ArrowLeft" && words) cursor = (cursor + words - 1) % words;
  else if (event.key === "ArrowRight" && words) cursor = (cursor + 1) % words;
  else if (event.key === " " && words) return toggle(active, cursor), true;
  else if (event.key === "c" && view.config.corrections) return openCorrection(active), true;
  else if (name !== undefined && digit >= view.config.lowest && digit <= view.config.highest) form()[active].grades[name] = digit;
  // An extra digit must not choose an answer by mistake.
  else return !Number.isNaN(digit) && view.config.criteria.length > 0;
  draw();
  return true;
}

function activate(number) {
  if (active !== number) cursor = 0;
  active = number;
}

const VERDICTS = { 1: "left", 2: "right", t: "tie", s: "skip" };

function onKey(event) {
  if (!root.isConnected) {
    document.removeEventListener("keydown", onKey);
    return;
  }
  if (!view || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("textarea, input")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  let taken = true;
  if (!view.item) taken = event.key === "ArrowLeft" && Boolean(view.count) && (go(view.count - 1), true);
  else if (active !== null && onAnswer(event)) taken = true;
  else if (event.key in VERDICTS && !event.repeat) keep(VERDICTS[event.key]);
  else if (event.key === "ArrowLeft" && view.item.place > 0) go(view.item.place - 1);
  else if (event.key === "ArrowRight" && view.item.place + 1 < view.count) go(view.item.place + 1);
  else if (event.key === "n") ask("next_open", { rater, place: view.item.place + 1 }).then(show);
  else if (event.key === "a" || event.key === "b") {
    activate(event.key === "b" ? 1 : 0);
    draw();
  } else taken = false;
  if (taken) event.preventDefault();
}

document.addEventListener("keydown", onKey);
draw();
