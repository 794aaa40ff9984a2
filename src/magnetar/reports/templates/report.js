"use strict";
// Reading values under the pointer: one cursor for all charts, because they share the updates.
(() => {
  const readable = [...document.querySelectorAll("figure.chart")].filter((figure) => figure.querySelector("svg[data-chart]"));
  const charts = readable.map((figure) => {
    const svg = figure.querySelector("svg");
    return { svg, data: JSON.parse(svg.dataset.chart), cursor: svg.querySelector(".cursor"),
             cells: [...figure.querySelectorAll("[data-series]")] };
  });
  if (!charts.length) return;
  const at = document.querySelector("output.at");
  const initial = charts.map((chart) => chart.cells.map((cell) => cell.textContent));
  const format = (value) => {
    if (value === null) return "–";
    const size = Math.abs(value);
    if (size >= 999500 || (size > 0 && size < 1e-3)) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return size >= 1e4 ? `${+(value / 1000).toPrecision(3)}k` : size >= 100 ? value.toFixed(0) : `${+value.toPrecision(3)}`;
  };
  const show = (x) => {
    for (const { data, cursor, cells } of charts) {
      let nearest = 0;
      data.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(data.x[nearest] - x)) nearest = i; });
      const [low, high] = data.domain, [left, right] = data.plot;
      const place = left + ((data.x[nearest] - low) / (high - low || 1)) * (right - left);
      cursor.setAttribute("x1", place);
      cursor.setAttribute("x2", place);
      cells.forEach((cell, i) => { cell.textContent = format(data.y[i][nearest]); });
      at.textContent = `: update ${data.x[nearest]}`;
    }
  };
  const reset = () => {
    charts.forEach(({ cursor, cells }, c) => {
      cursor.setAttribute("x1", -9);
      cursor.setAttribute("x2", -9);
      cells.forEach((cell, i) => { cell.textContent = initial[c][i]; });
    });
    at.textContent = "";
  };
  for (const { svg, data } of charts) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), [left, right] = data.plot, [low, high] = data.domain;
      const place = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(low + ((place - left) / (right - left)) * (high - low));
    });
    svg.addEventListener("pointerleave", reset);
  }
})();

// Samples: a filter by category, ten at a time.
for (const section of document.querySelectorAll("section.samples")) {
  const pairs = [...section.querySelectorAll(".pair")], more = section.querySelector(".more");
  const filter = section.querySelector(".filter"), select = filter && filter.querySelector("select");
  let limit = 10;
  const draw = () => {
    const wanted = pairs.filter((pair) => !select || !select.value || pair.dataset.category === select.value);
    for (const pair of pairs) pair.hidden = true;
    wanted.slice(0, limit).forEach((pair) => { pair.hidden = false; });
    more.hidden = wanted.length <= limit;
    more.textContent = `Show more (${wanted.length - limit} left)`;
  };
  if (filter) {
    filter.hidden = false;
    select.addEventListener("change", () => { limit = 10; draw(); });
  }
  more.addEventListener("click", () => { limit += 20; draw(); });
  draw();
}
