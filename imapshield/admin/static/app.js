// The status page: asks the server every few seconds, and shows what it answers. Texts of clients are only ever textContent.
import {Chart, StackedChart} from "/charts.js";

const STATE_SECONDS = 5, HOUR_SECONDS = 10, DAY_SECONDS = 60;
const SPANS = {hour: 3600, day: 86400};
const byId = (id) => document.getElementById(id);
const formToken = document.querySelector("meta[name=form-token]").content;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function scaled(value, units, base) {
  let unit = 0;
  while (Math.abs(value) >= base * 0.9995 && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : Number(value.toPrecision(2))}${units[unit]}`;
}
const count = (value) => scaled(value, ["", "k", "M", "G"], 1000);
const bytes = (value) => scaled(value, [" B", " kB", " MB", " GB", " TB"], 1000);
const seconds = (value) => (value >= 1 ? `${Number(value.toPrecision(2))} s` : `${Number((value * 1000).toPrecision(2))} ms`);
const percent = (value) => (value >= 0.0005 ? `${(100 * value).toFixed(value >= 0.1 ? 0 : 1)} %` : "–");

function age(value) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (value >= 2 * size) return `${Math.round(value / size)} ${unit}`;
  }
  return `${Math.round(value)} s`;
}

const CHARTS = [
  {title: "Connections", unit: "open", series: [["connections", "all"], ["without_login", "without login"]], format: count, floor: 4, step: 1, fill: true},
  {title: "Backlog", unit: "pending commands", series: [["pending", ""]], format: count, floor: 4, step: 1},
  {title: "Reactor delay", unit: "longest", series: [["delay", ""]], format: seconds, floor: 0.01},
  {title: "Commands", unit: "per second", series: [["commands", ""]], format: count, floor: 4},
  {title: "Traffic", unit: "per second", series: [["octets", ""]], format: bytes, floor: 1000},
  {title: "Memory", unit: "", series: [["process_memory", "process"], ["client_memory", "for clients"]], format: bytes, floor: 1e6, fill: true},
  {title: "Limits", unit: "per min", series: [["resets", "reset"], ["refused", "refused"], ["paused", "paused"]], format: count, floor: 4},
  {title: "Logins", unit: "per min", series: [["logins", "accepted"], ["failed", "failed"]], format: count, floor: 4},
  {title: "Bans", unit: "active", series: [["bans", ""]], format: count, floor: 4, step: 1},
];
const charts = CHARTS.map((spec) => new Chart(spec, byId("charts")));

const TALKER_MINUTES = 20;
// From here on it is worth a headline who causes the work: commands per second, a share of one processor, or resets.
const BUSY = {commands: 20, share: 0.1, resets: 10};
const MEASURES = {
  commands: {title: "Commands", format: count, floor: 4},
  octets: {title: "Octets", format: bytes, floor: 1000},
  busy: {title: "CPU time", format: seconds, floor: 0.01},
};
const OTHERS = "others", OTHERS_COLOUR = 5;
const talkersChart = new StackedChart({}, byId("talkers-chart"));

let range = "hour", subject = "address", measure = "commands", state = null, answered = 0, timer = null;

async function ask(path, options) {
  const response = await fetch(path, {credentials: "same-origin", signal: AbortSignal.timeout(10000), ...options});
  if (response.status === 403 && !options) location.assign("/login");
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function act(command, fields, done) {
  try {
    const body = new URLSearchParams(fields);
    const answer = await ask(`/api/${command}`, {method: "POST", body, headers: {"X-Form-Token": formToken}});
    say(done(answer.result), false);
    await refresh();
    return true;
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

function say(text, isBad) {
  const message = byId("message");
  message.textContent = text;
  message.className = isBad ? "bad" : "";
  message.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { message.hidden = true; }, 6000);
}

function confirmed(text) {
  const dialog = byId("confirm");
  dialog.querySelector("p").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), {once: true}));
}

const resetText = (number) => `${number} connection${number === 1 ? "" : "s"} reset`;
const ban = (network, time = "") => act("ban", {network, seconds: time}, (result) => `banned ${result.network} for ${age(result.seconds)}; ${resetText(result.reset)}`);
const unban = (network) => act("unban", {network}, (networks) => `unbanned ${networks.join(", ") || "nothing"}`);
const kick = (who) => act("kick", {who}, resetText);

function button(label, className, action) {
  const made = element("button", className, label);
  made.type = "button";
  made.addEventListener("click", () => {
    made.blur();
    action();
  });
  return made;
}
const banButton = (network) => button("Ban", "danger", async () => {
  if (await confirmed(`Ban ${network} and reset its connections?`)) ban(network);
});
const kickButton = (who, name) => button("Kick", "danger", async () => {
  if (await confirmed(`Reset the connections of ${name}?`)) kick(who);
});

// Heads that begin with > are of numbers, those that begin with ~ are left out on phones.
function table(parent, heads, rows, empty) {
  if (parent.contains(document.activeElement)) return;  // somebody is about to press a button in it
  if (!rows.length) {
    parent.replaceChildren(element("p", "empty", empty));
    return;
  }
  const classes = heads.map((head) => `${head.includes(">") ? "n " : ""}${head.includes("~") ? "wide" : ""}`);
  const cells = (tag, values) => element("tr", "", ...values.map((value, i) => element(tag, classes[i], value)));
  const head = element("thead", "", cells("th", heads.map((text) => text.replace(/[>~]/g, ""))));
  parent.replaceChildren(element("table", "", head, element("tbody", "", ...rows.map((row) => cells("td", row)))));
}

function tile(name, value, more, isAlarm) {
  const made = element("div", isAlarm ? "tile alarm" : "tile", element("h3", "", name), element("p", "", value), element("small", "", more));
  return made;
}

function showTiles(points) {
  const {status} = state;
  const last = (key) => points.series[key].at(-1) || 0;
  const limits = last("resets") + last("refused");
  byId("tiles").replaceChildren(
    tile("Connections", count(status.connections), `of ${count(status.max_connections)}, ${count(status.without_login)} without login`, status.connections > 0.9 * status.max_connections),
    tile("Backlog", count(status.pending_commands), "pending commands"),
    tile("Reactor delay", seconds(last("delay")), "longest in 10 s", last("delay") > 0.5),
    tile("Memory", bytes(status.process_memory), `${bytes(status.memory_of_connections)} of ${bytes(status.max_memory)} for clients`, status.memory_of_connections > 0.9 * status.max_memory),
    tile("Resets and refusals", count(limits), "per minute", limits > 0),
    tile("Bans", count(status.bans), "active"),
  );
}

function shareCell(value) {
  const meter = element("meter");
  meter.value = value;
  return element("span", "share", meter, percent(value));
}

// Who stays in the chart keeps a colour.
const colours = new Map();
function chooseColours(keys) {
  for (const key of colours.keys()) if (!keys.includes(key)) colours.delete(key);
  for (const key of keys) {
    const used = [...colours.values()];
    if (!colours.has(key)) colours.set(key, [0, 1, 2, 3, 4].find((colour) => !used.includes(colour)));
  }
}

function showTalkersChart(chart) {
  const keys = Object.keys(chart.series);
  chooseColours(keys);
  const series = [...keys.map((key) => [key, key, colours.get(key)]), [OTHERS, OTHERS, OTHERS_COLOUR]];
  talkersChart.spec = {...MEASURES[measure], unit: `per second, last ${TALKER_MINUTES} minutes`, series};
  talkersChart.show({...chart, series: {...chart.series, [OTHERS]: chart.others}}, 60 * TALKER_MINUTES);
}

function coloured(key) {
  return colours.has(key) ? element("span", `key k${colours.get(key)}`, key) : key;
}

function showTalkers(chart) {
  const {talkers} = state;
  byId("talkers-period").textContent = `last ${age(talkers.seconds)}: ${count(talkers.totals.commands)} commands, ${bytes(talkers.totals.octets)}, ${seconds(talkers.totals.busy)} of CPU time`;
  const action = (key) => (subject === "user" ? kickButton(key, key) : banButton(key));
  showTalkersChart(chart);
  const shares = (row) => ["commands", "octets", "busy"].map((name) => (name === measure ? shareCell(row[name]) : percent(row[name])));
  const heads = Object.entries({commands: "commands", octets: "octets", busy: "CPU"}).map(([name, head]) => (name === measure ? head : `~>${head}`));
  const rows = chart.rows.map((row) => [coloured(row.key), ...shares(row), percent(row.resets), action(row.key)]);
  table(byId("talkers"), [subject, ...heads, ">resets", ">"], rows, "Nobody does anything.");
  const {commands, busy, resets} = talkers.totals;
  const isBusy = commands >= BUSY.commands * talkers.seconds || busy >= BUSY.share * talkers.seconds || resets >= BUSY.resets;
  const headlines = isBusy ? talkers.headlines.map((line) => line.replace(/ cpu$/, " CPU time")) : [];
  byId("headlines").replaceChildren(...headlines.slice(0, 1).map((line) => element("p", "", line)), element("p", "", headlines.slice(1).join(" · ")));
  byId("headlines").hidden = !headlines.length;
}

function showTables() {
  byId("warnings").replaceChildren(...(state.status.warnings || []).map((line) => element("p", "", line)));
  byId("warnings").hidden = !byId("warnings").children.length;
  const nodes = state.status.nodes || [];
  const nodeState = (each) => (each.state === "failing" ? `failing (${each.consecutive_failures} of ${each.max_consecutive_failures})` : each.state);
  byId("nodes-card").hidden = !nodes.length;
  table(byId("nodes"), ["node", "state", ">users", ">connections", ">failures", ">latency"], nodes.map((each) => [each.node, nodeState(each), count(each.users), `${count(each.connections)} of ${count(each.max_connections)}`, count(each.failures), each.latency === null ? "-" : `${(1000 * each.latency).toFixed(1)} ms`]), "");
  byId("bans-number").textContent = !state.status.bans ? "" : state.status.bans > state.bans.length ? `${count(state.status.bans)} active, those that end last` : `${state.status.bans} active`;
  const bans = [...state.bans].reverse().map((each) => [each.network.replace(/\/(32|128)$/, ""), age(each.remaining), `${each.reason}${each.strangers_only ? ", strangers only" : ""}`, button("Unban", "", () => unban(each.network))]);
  table(byId("bans"), ["network", ">left", "~reason", ">"], bans, "Nobody is banned.");
  table(byId("limits"), ["limit", "action", ">times"], state.limits.map((each) => [each.limit, each.action, count(each.count)]), "No limit was reached.");
  const who = state.who.map((each) => [
    each.user || "–", each.peer, age(each.seconds), count(each.commands), `${each.pending}${each.paused ? " paused" : ""}`,
    bytes(each.octets_in), bytes(each.octets_out), `${each.busy.toFixed(1)} s`, kickButton(String(each.connection), `connection ${each.connection}`),
  ]);
  table(byId("who"), ["user", "address", "~>age", "~>commands", ">pending", "~>in", "~>out", ">CPU", ">"], who, "No connections.");
  byId("server").textContent = `${state.status.version}, up for ${age(state.status.seconds)}`;
}

let points = null;
async function refreshCharts() {
  points = await ask(`/api/history?range=${range}`);
  for (const chart of charts) chart.show(points, SPANS[range]);
}

async function refreshTalkers() {
  const asked = [subject, measure];
  const chart = await ask(`/api/talkers?${new URLSearchParams({subject, measure})}`);
  if (asked[0] === subject && asked[1] === measure) showTalkers(chart);
}

async function refresh() {
  state = await ask("/api/state");
  answered = Date.now();
  if (!points) await refreshCharts();
  showTiles(points);
  await refreshTalkers();
  showTables();
}

function choose(id, name, use) {
  for (const each of byId(id).children) {
    each.addEventListener("click", () => {
      for (const other of byId(id).children) other.setAttribute("aria-pressed", String(other === each));
      use(each.dataset[name]);
    });
  }
}

let nextState = 0, nextCharts = 0, isBusy = false;
async function tick() {
  const silent = (Date.now() - answered) / 1000;
  const isLost = silent > 3 * STATE_SECONDS;
  byId("live").classList.toggle("lost", isLost);
  byId("live").textContent = !answered ? "loading…" : isLost ? `no answer for ${age(silent)}` : "live";
  if (document.hidden || isBusy) return;
  isBusy = true;
  try {
    if (Date.now() >= nextCharts) {
      nextCharts = Date.now() + 1000 * (range === "hour" ? HOUR_SECONDS : DAY_SECONDS);
      await refreshCharts();
    }
    if (Date.now() >= nextState) {
      nextState = Date.now() + 1000 * STATE_SECONDS;
      await refresh();
    }
  } catch {
    // The next tick asks again; after a while, the page says that the server does not answer.
  } finally {
    isBusy = false;
  }
}

choose("range", "range", (name) => { range = name; nextCharts = 0; tick(); });
choose("subject", "subject", (name) => { subject = name; nextState = 0; tick(); });
choose("measure", "measure", (name) => { measure = name; nextState = 0; tick(); });
byId("ban").addEventListener("submit", async (event) => {
  event.preventDefault();
  const {network, seconds: time} = event.target.elements;
  if (await ban(network.value, time.value)) event.target.reset();
});
setInterval(tick, 1000);
tick();
