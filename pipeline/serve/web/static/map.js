// The map of a collection: points on a canvas, drawn by writing pixels, so that 50,000 pan without a graphics card.
// Text of documents only ever becomes text (textContent); addresses come from the server.
"use strict";
(() => {
  const root = document.getElementById("map");
  if (!root) return;
  const words = JSON.parse(root.dataset.words);
  const say = (key, n) => words[key].replace("{n}", typeof n === "number" ? n.toLocaleString(document.documentElement.lang) : n);
  const canvas = root.querySelector("canvas"), tip = root.querySelector(".map-tip"), state = root.querySelector(".map-state");
  const legend = root.querySelector(".map-legend"), list = root.querySelector(".map-hits"), form = root.querySelector("form");
  const context = canvas.getContext("2d", {alpha: false});
  const MOST_ZOOM = 400, REACH = 14, CELLS = 128, FEW = 4000;  // pixels around the pointer; cells of the grid, each way; points
  const still = matchMedia("(prefers-color-scheme: dark)");

  let map = null, by = "group", chosen = new Set(), matching = null, hits = [], over = -1, pinned = false;
  let scale = 1, centreX = .5, centreY = .5, pixels = null, image = null, queued = false, colours = null, grid = null;

  // -- data

  const unpacked = (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    return new Kind(bytes.buffer);
  };

  async function load() {
    const inside = root.dataset.inside;
    const read = inside ? JSON.parse(document.getElementById(inside).textContent) : await fetched(root.dataset.columns);
    map = {...read, x: unpacked(read.x, Uint16Array), y: unpacked(read.y, Uint16Array),
      group: unpacked(read.group, Uint8Array), file: unpacked(read.file, Uint32Array),
      page: unpacked(read.page, Uint32Array)};
    map.texts = new Map((read.texts || []).map((text, i) => [i, {heading: text[0], text: text[1]}]));
    map.inside = Boolean(inside);
    map.names = map.files.map((file, i) => `${file}\n${map.titles[i]}`.normalize("NFKC").toLowerCase());
    map.labels = map.groups.map(group => group.words.join(" · ") || say("map_no_name", ""));
    grid = gridOf(map.x, map.y);
  }

  async function fetched(address) {
    const reply = await fetch(address, {headers: {Accept: "application/json"}});
    if (!reply.ok) throw new Error(String(reply.status));
    return reply.json();
  }

  // Points by cell, so that the nearest to the pointer is found among a few.
  function gridOf(x, y) {
    const starts = new Uint32Array(CELLS * CELLS + 1), order = new Uint32Array(x.length);
    const cell = i => (y[i] * CELLS >> 16) * CELLS + (x[i] * CELLS >> 16);
    for (let i = 0; i < x.length; i++) starts[cell(i) + 1]++;
    for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
    const next = starts.slice();
    for (let i = 0; i < x.length; i++) order[next[cell(i)]++] = i;
    return {starts, order};
  }

  const kind = i => by === "group" ? map.group[i] : map.folder[map.file[i]];
  const visible = i => !chosen.size || chosen.has(kind(i));  // none is chosen: all

  // -- the picture

  const wide = () => canvas.width * .92 * scale, high = () => canvas.height * .9 * scale;  // pixels of the whole map
  const screenX = i => (map.x[i] / 65535 - centreX) * wide() + canvas.width / 2;
  const screenY = i => (centreY - map.y[i] / 65535) * high() + canvas.height / 2;  // upwards

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const number = text => {
      const value = parseInt(text.trim().slice(1), 16);
      return 0xff000000 | (value & 255) << 16 | (value >> 8 & 255) << 8 | value >> 16;
    };
    const whole = text => text.trim().length === 4 ? `#${[...text.trim().slice(1)].map(c => c + c).join("")}` : text;
    const of = name => number(whole(style.getPropertyValue(name)));
    colours = {points: Array.from({length: 16}, (_, i) => of(`--map-${i}`)), ground: of("--card"), dim: of("--line"),
      text: style.getPropertyValue("--text"), card: style.getPropertyValue("--card"), ring: style.getPropertyValue("--accent")};
  }

  function resize() {
    const ratio = Math.min(devicePixelRatio || 1, 2), box = canvas.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    if (canvas.width !== width || canvas.height !== height || !image) {
      canvas.width = width;
      canvas.height = height;
      image = context.createImageData(width, height);
      pixels = new Uint32Array(image.data.buffer);
    }
    if (over >= 0) place(over);
    paint();  // at once: a canvas of a new size is black
  }

  function draw() {
    if (!queued) requestAnimationFrame(() => { queued = false; if (map) paint(); });
    queued = true;
  }

  function paint() {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const few = Math.sqrt(20000 / Math.max(map.count, 200));
    const radius = Math.max(1, Math.min(6, few * Math.sqrt(scale) * .7)) * ratio;
    const smooth = map.count <= FEW, lit = i => visible(i) && (!matching || matching.has(i));
    const put = smooth ? discs : dots;
    pixels.fill(colours.ground);
    if (smooth) context.putImageData(image, 0, 0);
    if (matching || chosen.size) put(i => !lit(i), () => colours.dim, radius);
    put(lit, i => colours.points[kind(i)], matching ? radius * 1.3 : radius);
    if (!smooth) context.putImageData(image, 0, 0);
    if (by === "group" && !matching) names(ratio, radius);
    for (let place = hits.length - 1; place >= 0; place--) {  // the best above the others
      if (hits[place].i !== null && visible(hits[place].i)) ring(hits[place].i, radius, ratio, String(place + 1));
    }
    if (over >= 0) ring(over, radius, ratio, "");
  }

  // Few are drawn as smooth discs after the ground, many into the pixels.
  function dots(wanted, colour, radius) {
    const width = canvas.width, height = canvas.height, r = Math.ceil(radius), within = radius * radius;
    const left = width / 2 - centreX * wide(), top = height / 2 + centreY * high();
    const across = wide() / 65535, up = high() / 65535;
    const rows = [];  // half widths of a disc
    for (let dy = -r; dy <= r; dy++) rows.push(dy * dy > within ? -1 : Math.floor(Math.sqrt(within - dy * dy)));
    for (let i = 0; i < map.count; i++) {
      const x = Math.round(left + map.x[i] * across), y = Math.round(top - map.y[i] * up);
      if (x < -r || y < -r || x >= width + r || y >= height + r || !wanted(i)) continue;
      const value = colour(i);
      for (let dy = -r; dy <= r; dy++) {
        const row = y + dy, half = rows[dy + r];
        if (half < 0 || row < 0 || row >= height) continue;
        pixels.fill(value, row * width + Math.max(0, x - half), row * width + Math.min(width, x + half + 1));
      }
    }
  }

  function discs(wanted, colour, radius) {
    const hex = value => `#${[value & 255, value >> 8 & 255, value >> 16 & 255].map(n => n.toString(16).padStart(2, "0")).join("")}`;
    context.strokeStyle = colours.card;
    context.lineWidth = Math.max(1, radius / 5);
    for (let i = 0; i < map.count; i++) {
      const x = screenX(i), y = screenY(i);
      if (x < -radius || y < -radius || x > canvas.width + radius || y > canvas.height + radius || !wanted(i)) continue;
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fillStyle = hex(colour(i));
      context.fill();
      context.stroke();
    }
  }

  function ring(i, radius, ratio, text) {
    context.beginPath();
    context.arc(screenX(i), screenY(i), radius + 3 * ratio, 0, 7);
    context.lineWidth = 2 * ratio;
    context.strokeStyle = colours.ring;
    context.stroke();
    if (text) inscribe(text, screenX(i), screenY(i) - radius - 10 * ratio, 11 * ratio);
  }

  function inscribe(text, x, y, size) {
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = size / 3;
    context.lineJoin = "round";
    context.strokeStyle = colours.card;
    context.strokeText(text, x, y);
    context.fillStyle = colours.text;
    context.fillText(text, x, y);
  }

  // The names of the groups above the point that stands in their middle, the largest first; one that would cover another
  // is left out until there is room.
  function names(ratio, radius) {
    map.middles ??= middles();
    const size = 12 * ratio, taken = [];
    map.groups.forEach((group, g) => {
      if (chosen.size && !chosen.has(g) || map.middles[g] < 0 || !group.words.length) return;
      const text = group.words.slice(0, 2).join(" · "), x = screenX(map.middles[g]), y = screenY(map.middles[g]) - radius - 9 * ratio;
      context.font = `600 ${size}px system-ui, sans-serif`;
      const half = context.measureText(text).width / 2 + 4;
      if (x < 0 || y < 0 || x > canvas.width || y > canvas.height) return;
      const at = Math.min(Math.max(x, half), canvas.width - half), line = Math.min(Math.max(y, size), canvas.height - size);
      if (taken.some(one => Math.abs(one.x - at) < one.half + half && Math.abs(one.y - line) < size * 1.4)) return;
      taken.push({x: at, y: line, half});
      inscribe(text, at, line, size);
    });
  }

  function middles() {
    const members = map.groups.map(() => []);
    for (let i = 0; i < map.count; i++) members[map.group[i]].push(i);
    const middle = values => values.slice().sort((a, b) => a - b)[values.length >> 1];
    return members.map(rows => {
      if (!rows.length) return -1;
      const x = middle(rows.map(i => map.x[i])), y = middle(rows.map(i => map.y[i]));
      const far = i => (map.x[i] - x) ** 2 + (map.y[i] - y) ** 2;
      return rows.reduce((best, i) => far(i) < far(best) ? i : best);
    });
  }

  // -- looking around

  function zoom(factor, x = canvas.width / 2, y = canvas.height / 2) {
    const mapX = centreX + (x - canvas.width / 2) / wide(), mapY = centreY - (y - canvas.height / 2) / high();
    scale = Math.min(MOST_ZOOM, Math.max(.5, scale * factor));
    centreX = mapX - (x - canvas.width / 2) / wide();
    centreY = mapY + (y - canvas.height / 2) / high();
    moved();
  }

  function pan(dx, dy) {
    centreX = Math.min(1.2, Math.max(-.2, centreX - dx / wide()));
    centreY = Math.min(1.2, Math.max(-.2, centreY + dy / high()));
    moved();
  }

  function whole() {
    [scale, centreX, centreY] = [1, .5, .5];
    moved();
  }

  let remembered = 0;
  function moved() {
    hide();
    draw();
    clearTimeout(remembered);  // browsers refuse a hundred changes of the address in a few seconds
    remembered = setTimeout(() => {
      try { history.replaceState(null, "", `#${[scale, centreX, centreY].map(n => n.toFixed(4)).join(",")}`); } catch {}
    }, 400);
  }

  function recall() {
    const found = location.hash.slice(1).split(",").map(Number);
    if (found.length !== 3 || !found.every(Number.isFinite) || found[0] <= 0) return;
    [scale, centreX, centreY] = [Math.min(found[0], MOST_ZOOM), found[1], found[2]];
  }

  function nearest(x, y) {
    const reach = REACH * Math.min(devicePixelRatio || 1, 2);
    const mapX = centreX + (x - canvas.width / 2) / wide(), mapY = centreY - (y - canvas.height / 2) / high();
    const far = Math.max(reach / wide(), reach / high());
    const cell = value => Math.min(CELLS - 1, Math.max(0, Math.floor(value * CELLS)));
    let best = -1, least = reach * reach;
    for (let row = cell(mapY - far); row <= cell(mapY + far); row++) {
      for (let i = grid.starts[row * CELLS + cell(mapX - far)]; i < grid.starts[row * CELLS + cell(mapX + far) + 1]; i++) {
        const point = grid.order[i], d = (screenX(point) - x) ** 2 + (screenY(point) - y) ** 2;
        if (d <= least && visible(point)) [best, least] = [point, d];
      }
    }
    return best;
  }

  // -- a passage

  const asked = new Map();
  async function passage(i) {
    if (map.texts.has(i)) return map.texts.get(i);
    if (map.inside) return {heading: "", text: ""};
    if (!asked.has(i)) {
      asked.set(i, fetched(`${root.dataset.passages}?i=${i}`).then(read => {
        map.texts.set(i, read.passages[0]);
        return read.passages[0];
      }).finally(() => asked.delete(i)));
    }
    return asked.get(i);
  }

  const part = (tag, text, name = "") => Object.assign(document.createElement(tag), {textContent: text, className: name});

  function show(i, pin) {
    if (i === over && pin === pinned) return;
    over = i;
    pinned = pin;
    draw();
    const file = map.file[i], page = map.page[i] ? ` · ${say("map_page", map.page[i])}` : "";
    const title = part("p", (map.titles[file] || map.files[file].split("/").pop()) + page);
    title.style.fontWeight = "600";
    tip.replaceChildren(title, part("p", map.files[file], "quiet"));
    tip.classList.toggle("pinned", pin);
    tip.hidden = false;
    place(i);
    setTimeout(async () => {  // not for every point that the pointer crosses
      if (over !== i) return;
      let found;
      try { found = await passage(i); } catch { found = {heading: "", text: null, failed: true}; }
      if (over === i) tell(i, found);
    }, pin || map.texts.has(i) ? 0 : 80);
  }

  function tell(i, found) {
    while (tip.children.length > 2) tip.lastChild.remove();
    if (found.heading) tip.append(part("p", found.heading, "quiet"));
    tip.append(part("p", found.text ?? say(found.failed ? "map_failed" : "map_gone", ""), "map-text"));
    if (pinned && found.href && found.text !== null) {
      const link = part("a", say("map_open", ""));
      link.href = source(found.href);
      tip.append(link);
    }
    place(i);
  }

  function place(i) {
    const ratio = canvas.width / canvas.clientWidth, x = screenX(i) / ratio, y = screenY(i) / ratio;
    const left = Math.min(Math.max(8, x + 14), canvas.clientWidth - tip.offsetWidth - 8);
    const below = y + 14 + tip.offsetHeight < canvas.clientHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? y + 14 : Math.max(8, y - 14 - tip.offsetHeight)}px`;
  }

  function hide() {
    if (over < 0) return;
    over = -1;
    pinned = false;
    tip.hidden = true;
    draw();
  }

  function source(address) {
    const language = new URLSearchParams(location.search).get("lang");
    return language ? `${address}?lang=${encodeURIComponent(language)}` : address;
  }

  async function open(i, other) {
    if (map.inside) return show(i, true);
    try {
      const found = await passage(i);
      if (found.text === null) return show(i, true);
      if (other) window.open(source(found.href), "_blank", "noopener");
      else location.assign(source(found.href));
    } catch { show(i, true); }
  }

  // -- pointer and keys

  const pointers = new Map();
  let travelled = 0;
  const point = event => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    return {x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio};
  };
  const apart = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y) || 1; };

  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point(event));
    if (pointers.size === 1) travelled = 0;
  });
  canvas.addEventListener("pointermove", event => {
    if (!map) return;
    const now = point(event), before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "mouse" || pinned) return;
      const found = nearest(now.x, now.y);
      canvas.classList.toggle("over", found >= 0);
      return found >= 0 ? show(found, false) : hide();
    }
    const distance = pointers.size === 2 ? apart() : 0;
    pointers.set(event.pointerId, now);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (travelled < 5) return;
    canvas.classList.add("held");
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      pan((now.x - before.x) / 2, (now.y - before.y) / 2);
      zoom(apart() / distance, (a.x + b.x) / 2, (a.y + b.y) / 2);
    } else if (pointers.size === 1) pan(now.x - before.x, now.y - before.y);
  });
  canvas.addEventListener("pointerup", event => {
    const there = pointers.delete(event.pointerId);
    canvas.classList.remove("held");
    if (!map || !there || travelled >= 5 || event.button > 1) return;
    const at = point(event), found = nearest(at.x, at.y);
    if (found < 0) return hide();
    if (event.pointerType === "mouse") return open(found, event.button === 1 || event.ctrlKey || event.metaKey);
    show(found, true);
  });
  canvas.addEventListener("pointercancel", event => {  // the browser scrolls the page with this finger
    pointers.delete(event.pointerId);
    canvas.classList.remove("held");
  });
  let tapped = 0;
  canvas.addEventListener("touchend", event => {
    if (event.touches.length || travelled >= 5) return;
    const now = event.timeStamp, touch = event.changedTouches[0];
    if (now - tapped < 350) {
      const at = point(touch);
      zoom(2, at.x, at.y);
      event.preventDefault();
    }
    tapped = now;
  }, {passive: false});
  canvas.addEventListener("pointerleave", () => { if (!pinned) hide(); });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const at = point(event), lines = event.deltaMode === 1 ? 20 : 1;
    zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) / 400), at.x, at.y);
  }, {passive: false});
  canvas.addEventListener("keydown", event => {
    const step = canvas.width / 8;
    const act = {ArrowLeft: () => pan(step, 0), ArrowRight: () => pan(-step, 0), ArrowUp: () => pan(0, step),
      ArrowDown: () => pan(0, -step), "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(.625), 0: whole,
      Escape: release}[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  root.querySelectorAll("[data-zoom]").forEach(button => button.addEventListener("click", () => {
    const factor = Number(button.dataset.zoom);
    factor ? zoom(factor) : whole();
  }));

  // Takes back what was pointed at, else what was chosen in the legend.
  function release() {
    if (over >= 0 || !chosen.size) return hide();
    chosen = new Set();
    fillLegend();
    tellShown();
    draw();
  }
  legend.addEventListener("keydown", event => { if (event.key === "Escape") release(); });

  // -- legend and search

  function entries() {
    const counts = new Map();
    for (let i = 0; i < map.count; i++) counts.set(kind(i), (counts.get(kind(i)) || 0) + 1);
    const name = k => by === "group" ? map.labels[k] : map.folders[k] ?? say("map_other", "");
    return [...counts.keys()].sort((a, b) => a - b).map(k => ({k, name: name(k), count: counts.get(k)}));
  }

  function fillLegend() {
    legend.replaceChildren(...entries().map(({k, name, count}) => {
      const button = part("button", "");
      button.type = "button";
      button.setAttribute("aria-pressed", String(chosen.has(k)));
      button.append(part("span", "", `map-dot c${k}`), part("span", name), part("span", count.toLocaleString(), "quiet number"));
      button.addEventListener("click", () => {
        chosen.has(k) ? chosen.delete(k) : chosen.add(k);
        button.setAttribute("aria-pressed", String(chosen.has(k)));
        hide();
        tellShown();
        draw();
      });
      return button;
    }));
  }

  function tellShown() {
    let shown = 0;
    for (let i = 0; i < map.count; i++) shown += visible(i);
    const told = chosen.size ? [say("map_shown", shown)] : [];
    if (matching) told.push(say(hits.length ? "map_top" : "map_found", matching.size));
    state.textContent = told.join(" · ");
  }

  function match(text) {
    const parts = text.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean);
    clearHits();
    matching = null;
    if (parts.length) {
      const fits = map.names.map(name => parts.every(one => name.includes(one)));
      matching = new Set();
      for (let i = 0; i < map.count; i++) if (fits[map.file[i]]) matching.add(i);
    }
    tellShown();
    draw();
  }

  function clearHits() {
    hits = [];
    list.replaceChildren();
  }

  let question = 0;
  async function ask(text) {
    const mine = ++question;
    state.textContent = say("map_asking", "");
    let found;
    try { found = (await fetched(`${root.dataset.hits}?q=${encodeURIComponent(text)}`)).hits; }
    catch { if (mine === question) state.textContent = say("map_failed", ""); return; }
    if (mine !== question) return;
    hits = found;
    matching = new Set(hits.filter(hit => hit.i !== null).map(hit => hit.i));
    list.replaceChildren(...hits.map(hit => {
      const item = part("li", ""), link = part("a", hit.title || hit.path.split("/").pop());
      link.href = source(hit.href);
      const page = hit.page ? ` · ${say("map_page", hit.page)}` : "";
      item.append(link, `${page} `, part("span", hit.i === null ? say("map_outside", "") : hit.path, "quiet"));
      return item;
    }));
    tellShown();
    draw();
  }

  let typing = 0;
  form.q.addEventListener("input", () => {
    clearTimeout(typing);
    question++;
    typing = setTimeout(() => map && match(form.q.value), 120);
  });
  form.addEventListener("submit", event => {
    event.preventDefault();
    clearTimeout(typing);
    const text = form.q.value.trim();
    if (!map) return;
    text && root.dataset.hits ? ask(text) : match(text);
  });
  form.querySelectorAll("[name=colour]").forEach(input => input.addEventListener("change", () => {
    by = input.value;
    chosen = new Set();
    fillLegend();
    tellShown();
    draw();
  }));

  // -- begin

  root.hidden = false;
  readColours();
  recall();
  still.addEventListener("change", () => { readColours(); draw(); });
  load().then(() => {
    by = form.querySelector("[name=colour]:checked").value;  // a browser that goes back keeps what was chosen
    fillLegend();
    new ResizeObserver(resize).observe(canvas);
    resize();
    form.q.value.trim() ? match(form.q.value) : tellShown();
    root.dataset.ready = "1";
  }).catch(() => { state.textContent = say("map_failed", ""); });
})();
