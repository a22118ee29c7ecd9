// Live updates of the console: the server sends the parts of a page that have changed.
"use strict";

(() => {
  const url = document.body.dataset.events;
  const freshness = document.getElementById("freshness");
  const pause = document.getElementById("pause");
  const SILENT_MS = 10000; // the server sends parts every 2 s, also where nothing has changed
  let source = null;
  let spoken = "";
  let silence = 0;

  function say(text) {
    if (freshness && text !== spoken) {
      spoken = text;
      freshness.textContent = text;
    }
  }

  // Keeps what the reader has done: opened details, focus, and how far a table is scrolled.
  function replace(id, html) {
    const part = document.getElementById(id);
    if (!part) return;
    const open = new Map([...part.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
    const scrolled = [...part.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    const focused = document.activeElement && part.contains(document.activeElement) ? path(part, document.activeElement) : null;
    part.innerHTML = html;
    for (const [key, wasOpen] of open) {
      const details = document.getElementById(key);
      if (details) details.open = wasOpen;
    }
    part.querySelectorAll(".scroll").forEach((each, index) => { each.scrollLeft = scrolled[index] || 0; });
    if (focused) {
      const again = focused.reduce((node, index) => node && node.children[index], part);
      if (again) again.focus({ preventScroll: true });
    }
  }

  function path(part, element) {
    const steps = [];
    for (let node = element; node !== part; node = node.parentElement) {
      steps.unshift([...node.parentElement.children].indexOf(node));
    }
    return steps;
  }

  // A browser does not see that a network has dropped a connection.
  function expect() {
    clearTimeout(silence);
    silence = setTimeout(() => {
      say("Connection lost, trying again…");
      stop();
      listen();
    }, SILENT_MS);
  }

  function listen() {
    source = new EventSource(url);
    expect();
    source.addEventListener("parts", (event) => {
      expect();
      const parts = JSON.parse(event.data);
      for (const id of Object.keys(parts)) replace(id, parts[id]);
      document.body.dataset.updates = String(Number(document.body.dataset.updates || 0) + 1);
      say("Live");
    });
    source.onerror = () => {
      // The browser tries again by itself, unless the server has refused.
      if (source.readyState === EventSource.CLOSED) clearTimeout(silence);
      say(source.readyState === EventSource.CLOSED ? "Not live: reload the page" : "Connection lost, trying again…");
    };
  }

  function stop() {
    if (source) source.close();
    source = null;
    clearTimeout(silence);
  }

  function openTarget() {
    const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    if (target && target.tagName === "DETAILS") target.open = true;
  }

  addEventListener("hashchange", openTarget);
  openTarget();
  if (!url) return;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) { stop(); say("Paused"); } else { listen(); }
  });
  // A hidden page needs no updates.
  document.addEventListener("visibilitychange", () => {
    if (pause.getAttribute("aria-pressed") === "true") return;
    stop();
    if (!document.hidden) listen();
  });
  listen();
})();
