// What the page does beyond plain forms and links: searches while you type, shows an answer as it is written, and can
// be used from the keyboard. HTML comes from this server alone, made of elements there; text is set as text.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("form"), box = byId("q"), results = byId("results"), tally = byId("tally");
  const view = form ? form.dataset.view : "";
  const SHARED = ["q", "mode", "top_k", "path", "type", "modified", "page", "heading"];
  const PAUSE_MS = 180; // after the last letter
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // -- the address

  function parameters() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value.trim() && name !== "whole") query.set(name, value.trim());
    return query;
  }

  function addressOf(query) {
    return query.size || query.toString() ? `/?${query}` : "/";
  }

  // Other views, the other language and other collections are asked the same.
  function carry(query) {
    for (const link of document.querySelectorAll("nav a[data-tab], .lang, .menu a")) {
      const url = new URL(link.href);
      if (url.pathname !== "/") continue;
      const own = link.closest(".menu") ? ["q", "mode", "top_k"] : SHARED;
      for (const name of own) query.get(name) ? url.searchParams.set(name, query.get(name)) : url.searchParams.delete(name);
      link.href = url.pathname + url.search;
    }
    const chosen = byId("chosen");
    if (chosen) {
      const count = [...form.querySelectorAll(".grid input, .grid select")].filter((field) => field.value.trim()).length;
      chosen.textContent = count ? ` (${count})` : "";
    }
  }

  let here = location.search;
  function remember(address, push) {
    if (address !== location.pathname + location.search) history[push ? "pushState" : "replaceState"](null, "", address);
    here = location.search;
  }
  addEventListener("popstate", () => {
    if (form && location.search !== here) location.reload(); // not for a mere #source-2
  });

  // -- what comes back

  let under = null; // the request that is under way; a newer one ends it
  function begin() {
    if (under) under.abort();
    under = new AbortController();
    results.setAttribute("aria-busy", "true");
    return under;
  }
  function end(request) {
    if (under !== request) return;
    under = null;
    results.removeAttribute("aria-busy");
  }

  function show(nodes) {
    results.replaceChildren(...nodes);
  }
  function showRefusal(page) {
    const panel = page.querySelector(".panel");
    show(panel ? [panel] : []);
    if (tally) tally.textContent = "";
  }
  function showBroken() {
    if (tally) tally.textContent = results.dataset.brokenOff;
  }
  const parsed = (html) => new DOMParser().parseFromString(html, "text/html");

  // -- search at once

  let settled = Boolean(box && box.value.trim()); // what is shown was asked for with Enter, or came with the page
  let timer = 0;

  async function search(entered) {
    clearTimeout(timer);
    const query = parameters(), address = addressOf(query), request = begin();
    query.set("part", "results");
    try {
      const reply = await fetch(`/?${query}`, { headers: { Accept: "text/html" }, signal: request.signal });
      if (reply.redirected) return location.assign(address); // the session is over
      const page = parsed(await reply.text());
      const found = page.getElementById("results");
      if (!found) return showRefusal(page);
      show(found.children);
      tally.textContent = found.dataset.tally || "";
      document.title = found.dataset.title || document.title;
      remember(address, settled);
      settled = entered;
      carry(parameters());
    } catch (error) {
      if (error.name !== "AbortError") showBroken();
    } finally {
      end(request);
    }
  }
  function later() {
    clearTimeout(timer);
    timer = setTimeout(search, PAUSE_MS, false);
  }

  // -- an answer as it is written

  const go = byId("go"), stop = byId("stop");
  function writing(on) {
    if (document.activeElement === (on ? go : stop)) (on ? box : go).focus();
    go.hidden = on;
    stop.hidden = !on;
  }

  function addText(target, text) {
    const parts = text.split(/\[(\d{1,4})\]/); // every second one is a number; the server leaves those that exist
    parts.forEach((part, at) => {
      if (at % 2 === 0) return target.append(part);
      const link = document.createElement("a");
      link.href = `#source-${part}`;
      link.className = "cite";
      link.textContent = `[${part}]`;
      link.setAttribute("aria-label", results.dataset.cite.replace("{n}", part));
      target.append(link);
    });
  }

  async function* lines(reply) {
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      rest += value;
      const whole = rest.split("\n");
      rest = whole.pop();
      yield* whole.filter(Boolean).map((line) => JSON.parse(line));
    }
  }

  async function ask(push) {
    const query = parameters(), question = query.get("q");
    if (!question) return box.focus();
    remember(addressOf(query), push);
    carry(query);
    query.delete("q");
    const answer = document.createElement("div"), sources = document.createElement("div");
    answer.className = "answer writing";
    answer.dir = "auto";
    document.title = `${question} · ${results.dataset.title}`;
    const request = begin();
    tally.classList.remove("hidden");
    show([answer, sources]);
    writing(true);
    try {
      const headers = { Accept: "application/x-ndjson, text/html" };
      const sent = { method: "POST", body: new URLSearchParams({ q: question }), headers, signal: request.signal };
      const reply = await fetch(`/ask?${query}`, sent);
      if (reply.status === 401) return location.assign(addressOf(parameters())); // signs in, and comes back
      if (!reply.ok) return showRefusal(parsed(await reply.text()));
      await written(reply, answer, sources);
    } catch (error) {
      if (error.name !== "AbortError") showBroken();
      else if (under === request) tally.textContent = results.dataset.stopped;
    } finally {
      answer.classList.remove("writing");
      if (under === request) writing(false);
      end(request);
    }
  }

  async function written(reply, answer, sources) {
    for await (const event of lines(reply)) {
      if (event.state !== undefined) tally.textContent = event.state;
      if (event.sources !== undefined) sources.innerHTML = event.sources;
      if (event.text !== undefined) addText(answer, event.text);
      const last = event.done !== undefined ? event.done : event.error;
      if (last === undefined) continue;
      results.innerHTML = last;
      tally.textContent = event.said || "";
      tally.classList.toggle("hidden", Boolean(results.querySelector(".panel"))); // it says the same
      return;
    }
    showBroken();
  }

  // -- what the reader does

  let cited = null; // the [n] that was followed: Escape leads back to it
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.cite");
    const card = link && byId(link.hash.slice(1));
    if (card) {
      event.preventDefault();
      cited = link;
      for (const lit of document.querySelectorAll(".card.lit")) lit.classList.remove("lit");
      card.classList.add("lit");
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
    }
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });

  if (form && box && results) {
    form.addEventListener("submit", (event) => {
      if (view === "trial") return;
      event.preventDefault();
      view === "ask" ? ask(true) : search(true);
    });
    if (view === "search") {
      box.addEventListener("input", (event) => event.isComposing || later()); // a half-typed Chinese word is no question
      box.addEventListener("compositionend", later);
      form.addEventListener("change", (event) => event.target !== box && search(true));
    }
    if (view === "ask") {
      box.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
        event.preventDefault();
        form.requestSubmit();
      });
      stop.addEventListener("click", () => under && under.abort());
      if (results.dataset.ask) ask(false);
    }
    if (byId("keys")) byId("keys").hidden = false;
  }

  const cards = () => [...document.querySelectorAll(".cards .card a.open")].filter((link) => link.checkVisibility?.() ?? true);
  function move(step) {
    const all = cards(), at = all.findIndex((link) => link.closest(".card").contains(document.activeElement));
    const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.closest(".card").scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  }

  function leave(event) {
    const menu = document.querySelector(".menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    } else if (cited && cited.isConnected && event.target.closest(".card")) {
      cited.focus();
      cited = null;
    } else if (event.target === box) {
      event.preventDefault(); // a browser would empty the box
      box.blur();
    } else if (box && event.target.closest(".card")) {
      box.focus();
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return leave(event);
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (typing) {
      if (event.key !== "ArrowDown" || typing !== box || view === "ask" || !cards().length) return;
      event.preventDefault();
      return move(1);
    }
    const inCard = Boolean(event.target.closest(".card"));
    if (event.key === "/" && box) {
      event.preventDefault();
      box.focus();
      box.select();
    } else if (event.key === "j" || (event.key === "ArrowDown" && inCard)) {
      event.preventDefault();
      move(1);
    } else if (event.key === "k" || (event.key === "ArrowUp" && inCard)) {
      event.preventDefault();
      move(-1);
    }
  });
})();
