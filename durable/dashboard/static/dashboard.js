/* Reloads a page's content while it changes, lets durations grow, and keeps what a reader has selected and opened. */
"use strict";

(() => {
  const main = document.getElementById("content");
  const every = Number(main.dataset.refresh || 0) * 1000;
  let etag = main.dataset.etag || null;
  let isBusy = false;

  const hasSelectedText = () => Boolean(window.getSelection && String(window.getSelection()).length);

  const isInUse = () => {
    const active = document.activeElement;
    const isForm = active && main.contains(active) && active.matches("input:not([type=checkbox]), textarea, select");
    return isForm || hasSelectedText();
  };

  /* The server's time in microseconds when it made the content, and the browser's in milliseconds when it came. */
  let made = Number(main.dataset.now || 0);
  let came = Date.now();

  /* A length of time in microseconds as text, as formats.py writes it. */
  const took = (micros) => {
    const secs = Math.max(0, micros) / 1e6;
    if (secs < 1) return `${(secs * 1000).toFixed(0)} ms`;
    if (secs < 60) return `${secs.toFixed(secs < 10 ? 1 : 0)} s`;
    if (secs < 3600) return `${Math.floor(secs / 60)} min ${Math.floor(secs % 60)} s`;
    if (secs < 86400) return `${Math.floor(secs / 3600)} h ${Math.floor((secs % 3600) / 60)} min`;
    return `${Math.floor(secs / 86400)} d ${Math.floor((secs % 86400) / 3600)} h`;
  };

  const grow = () => {
    if (document.hidden || hasSelectedText()) return;
    const now = made + (Date.now() - came) * 1000;
    for (const each of main.querySelectorAll("[data-since]")) {
      const text = took(now - Number(each.dataset.since));
      if (each.textContent !== text) each.textContent = text;
    }
  };

  const opened = () =>
    new Set([...main.querySelectorAll("details[id][open]")].map((each) => each.id));

  /* The boxes of forms, and what tells them apart: those of the list's runs have no id. */
  const named = () => [...main.querySelectorAll("input[type=checkbox][name]")];
  const keyOf = (box) => box.id || box.value;

  const keepState = (before, checked, focused) => {
    for (const id of before) {
      const each = document.getElementById(id);
      if (each) each.open = true;
    }
    for (const box of named()) box.checked = checked.has(keyOf(box));
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    showSelection();
  };

  const refresh = async () => {
    if (isBusy || document.hidden || isInUse()) return;
    isBusy = true;
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const response = await fetch(location.href, { headers, credentials: "same-origin", redirect: "error" });
      if (response.status === 200 && !isInUse()) {
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        const content = page.getElementById("content");
        if (content) {
          const checked = new Set(named().filter((box) => box.checked).map(keyOf));
          const before = opened();
          const focused = document.activeElement && main.contains(document.activeElement) ? document.activeElement.id : "";
          main.replaceChildren(...content.childNodes);
          made = Number(content.dataset.now || 0);
          came = Date.now();
          keepState(before, checked, focused);
          etag = response.headers.get("ETag");
        }
      }
      main.classList.toggle("is-stale", response.status >= 400);
    } catch {
      main.classList.add("is-stale");
    } finally {
      isBusy = false;
    }
  };

  const showSelection = () => {
    const boxes = [...main.querySelectorAll("input[name=run]")];
    const all = main.querySelector("#pick-all");
    const count = boxes.filter((box) => box.checked).length;
    if (all) {
      all.hidden = false;
      all.checked = boxes.length > 0 && count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
    const label = main.querySelector("#picked");
    if (label) label.textContent = count ? `${count} selected` : "";
  };

  main.addEventListener("change", (event) => {
    if (event.target.id === "pick-all") {
      for (const box of main.querySelectorAll("input[name=run]")) box.checked = event.target.checked;
    }
    if (event.target.matches("#pick-all, input[name=run]")) showSelection();
  });

  showSelection();
  if (every) setInterval(refresh, every);
  if (made) setInterval(grow, 1000);
})();
