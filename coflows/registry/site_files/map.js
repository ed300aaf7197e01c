// Draws the nodes of a federation: registries and providers on an inner ring, nodes on an outer one beside theirs.
const SPACE = "http://www.w3.org/2000/svg";
const MOST = 200;
const SIZE = 600;
const CROWD = 40;

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function onRing(found, radius, start, places) {
  found.forEach((node, index) => {
    const angle = (2 * Math.PI * index) / found.length + start;
    places.set(node.url, { x: SIZE / 2 + radius * 1.5 * Math.cos(angle), y: SIZE / 2 + radius * Math.sin(angle) });
  });
}

export function placed(nodes) {
  const inner = nodes.filter((node) => node.role !== "node");
  const rank = new Map(inner.map((node, index) => [node.url, index]));
  const beside = (node) => Math.min(...node.connect.map((url) => rank.get(url) ?? inner.length), inner.length);
  const outer = nodes.filter((node) => node.role === "node").sort((one, other) => beside(one) - beside(other));
  const places = new Map();
  onRing(inner, inner.length > 1 ? SIZE / 5 : 0, 0, places);
  onRing(outer, inner.length ? SIZE * 0.42 : SIZE / 4, -Math.PI / 2, places);
  return places;
}

export function drawMap(nodes, connections) {
  const there = new Set(nodes.map((node) => node.url));
  const unknown = [...new Set(connections.map((one) => one.target))].filter((url) => !there.has(url))
    .map((url) => ({ url, role: "registry", status: "unknown", organization: "", flows: 0, connect: [] }));
  const shown = [...nodes, ...unknown].slice(0, MOST);
  const places = placed(shown);
  const lines = connections.filter((one) => places.has(one.source) && places.has(one.target)).map((one) => {
    const [from, to] = [places.get(one.source), places.get(one.target)];
    return draw("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
  });
  const [small, large] = shown.length > CROWD ? [5, 8] : [9, 14];
  const circles = shown.map((node) => {
    const { x, y } = places.get(node.url);
    const name = (node.organization || node.url).slice(0, 32);
    return draw("g", { class: `${node.role} ${node.status}` },
      draw("title", {}, `${node.organization} ${node.url}: ${node.role}, ${node.status}, ${node.flows} flows`),
      draw("circle", { cx: x, cy: y, r: node.role === "node" ? small : large }),
      draw("text", { x, y: y + large + 16 }, `${name} (${node.flows})`));
  });
  return draw("svg", { class: shown.length > CROWD ? "crowd" : "", viewBox: `${-SIZE / 4} 0 ${SIZE * 1.5} ${SIZE + 20}`, role: "img",
    "aria-label": `${nodes.length} nodes and ${connections.length} connections` }, ...lines, ...circles);
}
