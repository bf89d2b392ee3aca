"use strict";
// Numbers of the nearest point under the pointer, of the next one with the arrow keys, and of all points in a table.
for (const figure of document.querySelectorAll("figure[data-plot]")) {
  const panels = JSON.parse(figure.querySelector("script").textContent);
  const xLabel = figure.dataset.x;
  const chart = figure.querySelector(".chart");
  const drawing = chart.querySelector(".drawing");
  const svg = drawing.querySelector("svg");
  const tip = chart.querySelector(".tip");
  const series = panels.flatMap((panel) => panel.series.map((each) => ({ ...each, label: panel.label })));
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("class", "here");
  let at = null; // [series, point]

  const withSpread = (value, spread) => (spread === null ? `${value}` : `${value} ± ${spread}`);

  function show(s, p) {
    at = [s, p];
    const [x, y, what, value, spread] = series[s].points[p];
    tip.textContent = `${series[s].name}\n${series[s].label}: ${withSpread(value, spread)}\n${xLabel}: ${what}`;
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("r", 5);
    svg.append(ring);
    const scale = svg.clientWidth / svg.viewBox.baseVal.width;
    tip.style.left = `${Math.max(0, Math.min(x * scale + 10, chart.clientWidth - tip.offsetWidth))}px`;
    const below = y * scale + 12;
    tip.style.top = `${below + tip.offsetHeight > svg.clientHeight ? Math.max(0, y * scale - tip.offsetHeight - 10) : below}px`;
  }

  function hide() {
    at = null;
    tip.textContent = "";
    ring.remove();
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = null;
    let least = 30 ** 2;
    series.forEach((each, s) => each.points.forEach((point, p) => {
      const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
      if (distance < least) [best, least] = [[s, p], distance];
    }));
    if (best) show(...best);
    else hide();
  }

  function move(event) {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") hide();
    if (!by || !series.length) return;
    event.preventDefault();
    if (!at) return show(0, 0);
    const s = (at[0] + by[0] + series.length) % series.length;
    show(s, Math.max(0, Math.min(at[1] + by[1], series[s].points.length - 1)));
  }

  drawing.addEventListener("pointermove", nearest);
  drawing.addEventListener("pointerdown", nearest);
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("keydown", move);
  drawing.addEventListener("blur", hide);

  const details = figure.querySelector("details");
  details.addEventListener("toggle", () => {
    const place = details.querySelector(".scroll");
    if (!details.open || place.childElementCount) return;
    const table = place.appendChild(document.createElement("table"));
    const header = table.createTHead().insertRow();
    const cell = (row, text, scope) => {
      const made = row.appendChild(document.createElement(scope ? "th" : "td"));
      made.textContent = text;
      if (scope) made.scope = scope;
    };
    ["series", xLabel, "quantity", "value"].forEach((text) => cell(header, text, "col"));
    const body = table.createTBody();
    series.forEach((each) => each.points.forEach(([, , what, value, spread]) => {
      const row = body.insertRow();
      cell(row, each.name, "row");
      [what, each.label, withSpread(value, spread)].forEach((text) => cell(row, text));
    }));
  });
}
