"use strict";
// Reading values under the pointer: one cursor for all charts of a run, because they share the updates.
for (const group of document.querySelectorAll(".charts")) {
  const readable = [...group.querySelectorAll("figure.chart")].filter((figure) => figure.querySelector("svg[data-chart]"));
  const charts = readable.map((figure) => {
    const svg = figure.querySelector("svg");
    const cells = [...figure.querySelectorAll("[data-series]")];
    return { svg, data: JSON.parse(svg.dataset.chart), cursor: svg.querySelector(".cursor"), cells,
             at: figure.querySelector("output.at"), initial: cells.map((cell) => cell.textContent) };
  });
  const format = (value) => {
    if (value === null) return "–";
    const size = Math.abs(value);
    if (size >= 999500 || (size > 0 && size < 1e-3)) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return size >= 1e4 ? `${+(value / 1000).toPrecision(3)}k` : size >= 100 ? value.toFixed(0) : `${+value.toPrecision(3)}`;
  };
  const show = (x) => {
    for (const { data, cursor, cells, at } of charts) {
      let nearest = 0;
      data.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(data.x[nearest] - x)) nearest = i; });
      const [low, high] = data.domain, [left, right] = data.plot;
      const place = left + ((data.x[nearest] - low) / (high - low || 1)) * (right - left);
      cursor.setAttribute("x1", place);
      cursor.setAttribute("x2", place);
      cells.forEach((cell, i) => { cell.textContent = format(data.y[i][nearest]); });
      if (at) at.textContent = ` Update ${data.x[nearest]}.`;
    }
  };
  const reset = () => {
    for (const { cursor, cells, at, initial } of charts) {
      cursor.setAttribute("x1", -9);
      cursor.setAttribute("x2", -9);
      cells.forEach((cell, i) => { cell.textContent = initial[i]; });
      if (at) at.textContent = "";
    }
  };
  for (const { svg, data } of charts) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), [left, right] = data.plot, [low, high] = data.domain;
      const place = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(low + ((place - left) / (right - left)) * (high - low));
    });
    svg.addEventListener("pointerleave", reset);
  }
}

// Samples: two answers beside each other, filtered by category, winner and text, ten at a time.
for (const section of document.querySelectorAll("section.samples")) {
  const pairs = [...section.querySelectorAll(".pair")], more = section.querySelector(".more");
  const form = section.querySelector(".filters"), holder = section.querySelector(".pairs");
  const field = (name) => (form ? form.querySelector(`[data-filter=${name}]`) : null);
  const names = holder ? JSON.parse(holder.dataset.names) : [];
  const wins = new Map(pairs.map((pair) => [pair, JSON.parse(pair.dataset.wins || "{}")]));
  const TIE = 1e-9;
  let limit = 10;

  // P(right beats left) by the chosen judge, from whichever side's figure there is.
  const rateOf = (pair, left, right) => {
    const judged = wins.get(pair)[field("judge") ? field("judge").value : "0"] || {};
    const given = (judged[right] || {})[left], other = (judged[left] || {})[right];
    return given !== undefined && given !== null ? given : other !== undefined && other !== null ? 1 - other : null;
  };
  const winnerOf = (rate) => (rate === null ? null : Math.abs(rate - 0.5) <= TIE ? "tie" : rate > 0.5 ? "right" : "left");

  const draw = () => {
    const left = field("left") ? field("left").value : holder ? holder.dataset.left : "";
    const right = field("right") ? field("right").value : holder ? holder.dataset.right : "";
    const value = (name) => (field(name) ? field(name).value : "");
    const category = value("category"), winner = value("winner"), text = value("text").trim().toLowerCase();
    const found = [];
    for (const pair of pairs) {
      pair.hidden = true;
      const sides = [...pair.querySelectorAll(".side[data-name]")];
      for (const side of sides) {
        side.hidden = side.dataset.name !== left && side.dataset.name !== right;
        side.classList.toggle("right", side.dataset.name === right);
        side.style.order = side.dataset.name === left ? 0 : 1;
      }
      const rate = holder ? rateOf(pair, left, right) : null;
      const chip = pair.querySelector(".chip.verdict");
      if (chip) {
        chip.hidden = rate === null && sides.length > 2;
        chip.textContent = rate === null ? "–" : `${Math.round(100 * rate)}%`;
        chip.classList.toggle("up", winnerOf(rate) === "right");
        chip.classList.toggle("down", winnerOf(rate) === "left");
      }
      if (category && pair.dataset.category !== category) continue;
      if (winner && winnerOf(rate) !== winner) continue;
      if (text) {
        const prompt = pair.querySelector(".prompt").textContent;
        const said = [prompt, ...sides.filter((side) => !side.hidden).map((side) => side.textContent)];
        if (!said.some((words) => words.toLowerCase().includes(text))) continue;
      }
      found.push(pair);
    }
    found.slice(0, limit).forEach((pair) => { pair.hidden = false; });
    more.hidden = found.length <= limit;
    more.textContent = `Show more (${found.length - limit} left)`;
    const nothing = section.querySelector(".nothing");
    if (nothing) nothing.hidden = found.length > 0;
    if (form) {
      form.querySelector(".count").textContent = `${found.length} of ${pairs.length}`;
      const choice = field("winner");
      if (choice) {
        choice.querySelector("[value=left]").textContent = `${names[left]} wins`;
        choice.querySelector("[value=right]").textContent = `${names[right]} wins`;
      }
    }
  };
  if (form) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => { limit = 10; draw(); });
  }
  more.addEventListener("click", () => {
    const before = limit;
    limit += 20;
    draw();
    // Whoever uses the keyboard goes on reading where the new ones begin.
    const next = pairs.filter((pair) => !pair.hidden)[before];
    if (next) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
  });
  draw();
}

// Folds and hidden samples are opened for printing.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details.fold:not([open])")) { fold.open = true; fold.dataset.printed = ""; }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-printed]")) { fold.open = false; delete fold.dataset.printed; }
});
