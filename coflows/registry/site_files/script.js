// Shows what the service answers as JSON. Nothing that others wrote becomes markup: elements are made one by one.
import { drawMap } from "./map.js";

const root = document.body.dataset.root;
const main = document.getElementById("main");
const PER_PAGE = 10;
const MOST = 40;
const ORDERS = [["", "by name"], ["name:d", "by name, from the end"], ["organization", "by organization"],
  ["author", "by author"], ["node", "by node"]];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "href" && !/^(https?:\/\/|\.\.\/|#|$)/.test(value)) continue;
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

async function ask(path) {
  const response = await fetch(root + path, { headers: { accept: "application/json" } });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const error = new Error(answer.error?.message ?? `The service answers ${response.status}.`);
  error.hint = answer.error?.hint ?? "";
  throw error;
}

const inQuotes = (text) => `"${text.replace(/[\\"]/g, "\\$&")}"`;
const toSearch = (said) => `${root}#/?${new URLSearchParams(Object.entries(said).filter(([, value]) => value))}`;
const toFlow = (id) => `${root}#/flow/${encodeURIComponent(id)}`;
const outside = (url) => make("a", { href: url, rel: "noopener noreferrer nofollow" }, url);
const status = (text) => make("span", { class: `status ${text === "online" ? "online" : ""}` }, text);
const tags = (names) => make("div", {}, ...names.map(
  (tag) => make("a", { class: "tag", href: toSearch({ q: `@tag(${inQuotes(tag)})` }) }, tag)));

// -- flows ----------------------------------------------------------------------------------------------------

async function showFlows(said) {
  const [q, by, p] = [said.get("q") ?? "", said.get("by") ?? "", Math.max(0, Number.parseInt(said.get("p")) || 0)];
  const search = new URLSearchParams(Object.entries({ q, by, p, pp: PER_PAGE }).filter(([, value]) => value));
  const input = make("input", { type: "search", name: "q", value: q, "aria-label": "Search",
    placeholder: 'words, or: name ~ "rev" and @tag("math")' });
  const order = make("select", { name: "by", "aria-label": "Order" }, ...ORDERS.map(
    ([value, text]) => make("option", { value, selected: value === by }, text)));
  const form = make("form", { role: "search" }, input, order, make("button", {}, "Search"));
  const go = () => { location.href = toSearch({ q: input.value, by: order.value }) || "#/"; };
  form.addEventListener("submit", (event) => { event.preventDefault(); go(); });
  order.addEventListener("change", go);
  const [found, counts] = await Promise.all([ask(`flows?${search}`).catch((error) => error), ask("counts")]);
  const list = found instanceof Error ? problem(found) : make("section", { "aria-label": "Flows" },
    make("ul", { class: "flows" }, ...found.items.map(flowInList)), pages(found, said));
  return [make("div", { class: "columns" }, make("div", {}, form, list), make("aside", {},
    ...countsOf("Organizations", counts.organizations, (name) => `organization = ${inQuotes(name)}`),
    ...countsOf("Tags", counts.tags, (name) => `@tag(${inQuotes(name)})`)))];
}

function flowInList(item) {
  return make("li", {},
    make("div", {}, make("a", { href: toFlow(item.id) }, item.name), " ", status(item.status)),
    make("div", { class: "soft" }, [item.organization, item.flow_endpoint, item.author].filter(Boolean).join(" · ")),
    make("p", {}, item.description), tags(item.tags));
}

function pages(found, said) {
  const first = found.p * found.pp;
  const to = (p) => {
    const button = make("button", { type: "button", disabled: p < 0 || p * found.pp >= found.filtered },
      p < found.p ? "Previous" : "Next");
    button.addEventListener("click", () => { location.href = toSearch({ ...Object.fromEntries(said), p }); });
    return button;
  };
  const shown = found.items.length ? `${first + 1} to ${first + found.items.length} of ${found.filtered}` : "No flows";
  const among = found.filtered < found.total ? ` (${found.total} in all)` : "";
  return make("div", { class: "pages" }, to(found.p - 1), make("span", { id: "shown" }, shown + among),
    to(found.p + 1));
}

function countsOf(title, counts, query) {
  const all = Object.entries(counts).sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1));
  if (!all.length) return [];
  const more = all.length > MOST ? [make("li", { class: "soft" }, `and ${all.length - MOST} more`)] : [];
  return [make("h2", {}, title), make("ul", { "aria-label": title }, ...all.slice(0, MOST).map(([name, number]) =>
    make("li", {}, make("a", { href: toSearch({ q: query(name) }) }, name || "(none)"), String(number))), ...more)];
}

// -- a flow ---------------------------------------------------------------------------------------------------

async function showFlow(id) {
  const item = await ask(`flows/${encodeURIComponent(id)}`);
  document.title = `${item.name} · CoFlows`;
  const rows = [["Organization", item.organization && make("a",
    { href: toSearch({ q: `organization = ${inQuotes(item.organization)}` }) }, item.organization)],
  ["Author", item.author], ["Endpoint", item.flow_endpoint ?? "(only described, not served)"],
  ["User", make("code", {}, item.user_id)], ["Broker", item.broker], ["Node", outside(item.node)],
  ["More", outside(item.url)]];
  return [make("h1", {}, item.name, " ", status(item.status)), make("p", { class: "text" }, item.description),
    tags(item.tags),
    make("table", {}, make("tbody", {}, ...rows.filter(([, value]) => value).map(
      ([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))))),
    ...(item.flow_endpoint ? [make("h2", {}, "Fetch it"), make("pre", { id: "fetch" }, howToFetch(item))] : []),
    ...schemaOf("Input", item.input_schema), ...schemaOf("Output", item.output_schema)];
}

const howToFetch = (item) => `get_flow_instance(cl, ${JSON.stringify(item.flow_endpoint)}, user_id=${
  JSON.stringify(item.user_id)})`;

function schemaOf(title, schema) {
  const properties = schema.properties && typeof schema.properties === "object" ? schema.properties : {};
  const required = Array.isArray(schema.required) ? schema.required : [];
  const rows = Object.entries(properties).map(([name, value]) => make("tr", {},
    make("td", {}, make("code", {}, name)), make("td", {}, typeOf(value)),
    make("td", {}, required.includes(name) ? "yes" : ""), make("td", {}, String(value?.description ?? ""))));
  const heads = ["Key", "Type", "Required", "Meaning"].map((text) => make("th", { scope: "col" }, text));
  const table = rows.length ? [make("table", {}, make("thead", {}, make("tr", {}, ...heads)),
    make("tbody", {}, ...rows))] : [];
  const whole = Object.keys(schema).length ? [make("details", { open: !rows.length }, make("summary", {}, "JSON Schema"),
    make("pre", {}, JSON.stringify(schema, null, 2)))] : [make("p", { class: "soft" }, "Not described.")];
  return [make("section", { "aria-label": title }, make("h2", {}, title), ...table, ...whole)];
}

function typeOf(value) {
  const kind = value?.type ?? (value?.enum ? "enum" : "any");
  return Array.isArray(kind) ? kind.join(" or ") : String(kind);
}

// -- the map --------------------------------------------------------------------------------------------------

async function showMap() {
  const { nodes, connections } = await ask("map");
  const heads = ["Organization", "Role", "Status", "Flows", "URL", "Connected to"];
  const rows = nodes.map((node) => make("tr", {}, make("td", {}, node.organization), make("td", {}, node.role),
    make("td", {}, status(node.status)),
    make("td", {}, make("a", { href: toSearch({ q: `node = ${inQuotes(node.url)}` }) }, String(node.flows))),
    make("td", {}, outside(node.url)), make("td", {}, node.connect.join(", "))));
  return [make("h1", {}, "Who is connected to whom"), drawMap(nodes, connections), make("table", { id: "nodes" },
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows))];
}

// -- which view -----------------------------------------------------------------------------------------------

const problem = (error) => make("div", { class: "problem", role: "alert" }, make("strong", {}, error.message), " ",
  error.hint ?? "");

let shows = 0;
async function show() {
  const number = ++shows;
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const own = /\/flows\/([0-9a-f]{32})$/.exec(location.pathname);
  const flow = path.startsWith("flow/") ? decodeURIComponent(path.slice(5)) : own && !location.hash ? own[1] : null;
  document.title = "CoFlows";
  const view = flow ? showFlow(flow) : path === "map" ? showMap() : showFlows(new URLSearchParams(search ?? ""));
  const shown = await view.catch((error) => [problem(error)]);
  if (number !== shows) return; // Somebody went on in the meantime.
  main.replaceChildren(...shown);
  const current = flow ? "" : path === "map" ? "to-map" : "to-flows";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.id === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

window.addEventListener("hashchange", show);
show();
ask("").then((info) => {
  document.getElementById("who").textContent = info.organization || info.url;
  document.getElementById("what").textContent = `${info.role} · ${info.total} flows · ${info.url}`;
}).catch(() => {});
