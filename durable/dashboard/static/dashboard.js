/* Reloads a page's content while it changes, remembers selections, and keeps what a reader has opened. */
"use strict";

(() => {
  const main = document.getElementById("content");
  const every = Number(main.dataset.refresh || 0) * 1000;
  let etag = main.dataset.etag || null;
  let isBusy = false;

  const isInUse = () => {
    const active = document.activeElement;
    const isForm = active && main.contains(active) && active.matches("input:not([type=checkbox]), textarea, select");
    return isForm || Boolean(window.getSelection && String(window.getSelection()).length);
  };

  const opened = () =>
    new Set([...main.querySelectorAll("details[id][open]")].map((each) => each.id));

  const keepState = (before, checked, focused) => {
    for (const id of before) {
      const each = document.getElementById(id);
      if (each) each.open = true;
    }
    for (const box of main.querySelectorAll("input[name=run]")) box.checked = checked.has(box.value);
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
          const checked = new Set([...main.querySelectorAll("input[name=run]:checked")].map((box) => box.value));
          const before = opened();
          const focused = document.activeElement && main.contains(document.activeElement) ? document.activeElement.id : "";
          main.replaceChildren(...content.childNodes);
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
})();
