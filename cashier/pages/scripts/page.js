// The pages: what `improve` needs of a document.

const main = document.querySelector("main");
let leaving = false;
const SCANNED_MS = 300; // between two keys of a scanner, at most

// Storage may be blocked.
function recall(key) {
  try { return sessionStorage.getItem(key); } catch { return null; }
}

function remember(key, value) {
  try { sessionStorage.setItem(key, value); } catch { /* each time is then the first one */ }
}

function loadAgain() {
  if (leaving) return;
  leaving = true;
  // A page and a stream that disagree must not turn round and round.
  const pause = Math.max(0, 3000 + +(recall("cashier-reloaded") || 0) - Date.now());
  setTimeout(() => {
    remember("cashier-reloaded", Date.now());
    location.replace(location.pathname + location.search);
  }, pause);
}

// A code that is read twice goes to a page without a field, and ends with Enter: that presses nothing.
let typedAt = -Infinity;
addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  if (event.key.length === 1) typedAt = event.timeStamp;
  else if (event.key === "Enter" && event.timeStamp - typedAt < SCANNED_MS) event.preventDefault();
});

function openEvents(address, on) {
  const source = new EventSource(address);
  for (const name of ["update", "beat", "end"]) source.addEventListener(name, (event) => on[name](event.data));
  source.onerror = on.trouble;
  return source;
}

if (main) {
  const page = improve(document, {
    open: openEvents,
    get: (address, signal) => fetch(address, { headers: { Accept: "application/json" }, cache: "no-store", signal }),
    reload: loadAgain,
    // A choice is an address: it survives a reload.
    chose: (address) => history.replaceState(null, "", address),
    updated: (_, { title }) => { if (title) document.title = title; },
  });
  const opening = performance.getEntriesByType("navigation")[0];
  page.setClock(main.dataset.now, Date.now() - performance.now() + (opening?.responseStart || 0));
  page.enhance();
  page.showAmount();
  focusOn(main.querySelector("[data-focus]"));
  addEventListener("pageshow", (event) => { if (event.persisted) leaving = false; });
  const way = main.querySelector("[data-go]");
  if (way && opening?.type === "navigate" && recall("cashier-went") !== addressOf(way)) {
    remember("cashier-went", addressOf(way));
    go(way);
  }
  page.follow();
}
