"use strict";
(() => {
  const all = (root, what) => Array.from(root.querySelectorAll(what));

  // Tables: a button in each head sorts within the sections; a third press brings the first order back.
  const said = document.getElementById("said");
  const key = (cell) => {
    const text = cell.textContent.trim();
    const number = cell.tagName === "TD" || /^\D{0,2}\d/.test(text) ? text.match(/[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i) : null;
    return { text, number: number ? Number(number[0]) : null };
  };
  const compare = (one, other, down) => {
    const known = (cell) => cell.number !== null || /[a-z]/i.test(cell.text);
    if (known(one) !== known(other)) return known(one) ? -1 : 1;
    const order = one.number !== null && other.number !== null ? one.number - other.number : one.text.localeCompare(other.text);
    return down ? -order : order;
  };
  const sort = (table, place, order) => {
    for (const body of table.tBodies) {
      const rows = all(body, "tr").sort((a, b) => a.dataset.place - b.dataset.place);
      if (order !== "none") rows.sort((a, b) => compare(key(a.cells[place]), key(b.cells[place]), order === "descending"));
      body.append(...rows);
    }
  };
  for (const table of all(document, "table")) {
    for (const body of table.tBodies) all(body, "tr").forEach((row, place) => { row.dataset.place = place; });
    const heads = all(table, "thead th");
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      const first = place === 0 || head.className === "name" ? "ascending" : "descending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === first ? second : now === second ? "none" : first;
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next !== "none") head.setAttribute("aria-sort", next);
        sort(table, place, next);
        said.textContent = next === "none" ? "First order" : `Sorted by ${button.textContent}, ${next}`;
      });
    });
  }

  // Figures: what a point says, under the pointer or, with the arrow keys, one after the other.
  const tip = document.getElementById("tip");
  let lit = null;
  const show = (point) => {
    if (lit) lit.classList.remove("on");
    lit = point;
    tip.textContent = point ? point.dataset.tip : "";
    if (!point) return;
    point.classList.add("on");
    const box = point.getBoundingClientRect();
    const left = Math.min(box.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left)}px`;
    const above = box.top - tip.offsetHeight - 6;
    tip.style.top = `${above < 4 ? box.bottom + 6 : above}px`;
  };
  const nearest = (points, x, y) => {
    let best = null;
    let least = 24;
    for (const point of points) {
      const box = point.getBoundingClientRect();
      const gap = Math.hypot((box.left + box.right) / 2 - x, (box.top + box.bottom) / 2 - y);
      if (gap < least) { least = gap; best = point; }
    }
    return best;
  };
  for (const panel of all(document, ".panel")) {
    const points = all(panel, ".pt");
    if (!points.length) continue;
    for (const point of points) {
      const title = point.querySelector("title");
      point.dataset.tip = title.textContent;
      title.remove();
    }
    panel.tabIndex = 0;
    panel.setAttribute("role", "group");
    panel.setAttribute("aria-label", `Plot of ${points.length} points; left and right read them`);
    panel.addEventListener("pointermove", (event) => show(nearest(points, event.clientX, event.clientY)));
    panel.addEventListener("pointerdown", (event) => show(nearest(points, event.clientX, event.clientY)));
    panel.addEventListener("pointerleave", () => show(null));
    panel.addEventListener("blur", () => show(null));
    panel.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1 };
      if (event.key === "Escape") { show(null); return; }
      if (!(event.key in steps)) return;
      event.preventDefault();
      const place = points.indexOf(lit);
      const next = place < 0 && steps[event.key] < 0 ? points.length - 1 : place + steps[event.key];
      show(points[(next + points.length) % points.length]);
    });
  }
  addEventListener("scroll", () => show(null), { passive: true });
})();
