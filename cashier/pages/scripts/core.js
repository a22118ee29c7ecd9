// What the pages and the embedded cashier share: `improve` changes a `<main>` of the server in place.
// README.md says what it finds there.

const WAIT_FOR_FIRST_MS = 8000;
const WAIT_FOR_NEXT_MS = 40000; // the server sends a beat every 15 s
const SLOWEST_MS = 30000;
const BUSY_MS = 30000; // a page that has not come by then may be asked for again
const DAY_S = 86400;
const HOUR_S = 3600;
const COUNTED_S = 600; // the last minutes are counted by the second

// A field of the form may be called `method`, and would take the place of its property.
function isPost(form) {
  return form.getAttribute("method") === "post";
}

function addressOf(element) {
  return element.getAttribute(element.tagName === "FORM" ? "action" : "href");
}

// Followed without the payer's click.
function go(element) {
  if (element.tagName === "FORM") HTMLFormElement.prototype.requestSubmit.call(element); else element.click();
}

// `data-focus="still"`: without scrolling, as something above is to be seen as well.
function focusOn(element) {
  element?.focus({ preventScroll: element.dataset.focus === "still" });
}

// `root`: a document or a shadow root. `host`: what differs between the two.
//   open(address, { update, beat, end, trouble })  follows events; returns what has `close`
//   get(address, signal)                           asks for one update; returns a response
//   reload()                                       shows another kind of page
//   send(event), search(event)                     sends a form in its own way; optional
//   chose(address), updated(main, update)          optional
//   tag                                            of the element in place of `<main>`; optional
function improve(root, host) {
  let main = root.querySelector("[data-view]");

  // --- The status line ---

  function say(text) {
    const status = root.getElementById("status");
    if (status) write(status, text || "");
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  // --- HTML of the server to nodes, without a parser of the browser ---

  const TOKEN = /<(\/?)([a-z][a-z0-9-]*)((?:\s+[^\s"'<>\/=]+(?:="[^"]*")?)*)\s*(\/?)>|<!doctype[^>]*>|<!--[\s\S]*?-->|([^<]+)/giy;
  const ATTRIBUTE = /([^\s"=]+)(?:="([^"]*)")?/g;
  const VOID = /^(br|hr|img|input|wbr)$/;
  const REFUSED = /^(script|style|link|meta|base|iframe|frame|object|embed|template|noscript|foreignobject|animate|set)$/i;
  const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
  const SVG = "http://www.w3.org/2000/svg";

  function unescaped(text) {
    return text.replace(/&(?:#x([0-9a-f]+)|#([0-9]+)|([a-z]+));/gi, (whole, hex, decimal, name) =>
      hex || decimal ? String.fromCodePoint(hex ? parseInt(hex, 16) : +decimal) : (NAMED[name] ?? whole));
  }

  function setAttributes(element, text) {
    for (const [, name, value] of text.matchAll(ATTRIBUTE)) {
      const plain = unescaped(value ?? "");
      const leads = /^(href|src|action|formaction|xlink:href)$/i.test(name);
      if (/^(on|style$|srcdoc$)/i.test(name) || (leads && /^\s*(javascript|data|vbscript):/i.test(plain))) {
        throw new Error(name);
      }
      element.setAttribute(name, plain);
    }
  }

  // Throws for what the templates do not write: then the page stays as it is.
  function build(html) {
    const root = document.createDocumentFragment();
    const open = [root];
    let skipped = "";
    TOKEN.lastIndex = 0;
    while (TOKEN.lastIndex < html.length) {
      const token = TOKEN.exec(html);
      if (!token) throw new Error("not the HTML of a template");
      const [, closing, tag, attributes, selfClosing, text] = token;
      const parent = open[open.length - 1];
      if (skipped) {
        if (closing && tag === skipped) skipped = "";
      } else if (text !== undefined) {
        parent.append(unescaped(text));
      } else if (closing) {
        if (open.length < 2 || open.pop().localName !== tag) throw new Error(`unexpected </${tag}>`);
      } else if (tag === "noscript") {
        skipped = tag;
      } else if (tag) {
        if (REFUSED.test(tag)) throw new Error(tag);
        const isSvg = tag === "svg" || parent.namespaceURI === SVG;
        const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
        setAttributes(element, attributes);
        parent.append(element);
        if (!selfClosing && !VOID.test(tag)) open.push(element);
      }
    }
    if (open.length > 1) throw new Error("unclosed");
    return root;
  }

  // --- Changing only what differs ---

  // What the payer has done is in these: it is not the server's to change.
  // And what keeps rows in their places is ours.
  const OWN = {
    DETAILS: /^open$/, INPUT: /^checked$/, OPTION: /^selected$/, BUTTON: /^aria-busy$/,
    LI: /^(style|data-folded|data-late)$/, LABEL: /^style$/,
  };

  function morph(from, to) {
    if (from.isEqualNode(to)) return;
    // What a payer was told after a press stays until the next one.
    if (from.id === "notice" && to.hidden) return;
    morphAttributes(from, to);
    if (from.id === "methods") return morphRows(from, to);
    const later = [...to.childNodes];
    let next = from.firstChild;
    for (const wanted of later) {
      const found = counterpart(next, wanted);
      if (!found) {
        from.insertBefore(wanted, next);
        continue;
      }
      while (next !== found) next = removed(next);
      next = found.nextSibling;
      if (found.nodeType !== Node.ELEMENT_NODE) {
        if (found.data !== wanted.data) found.data = wanted.data;
      } else morph(found, wanted);
    }
    while (next) next = removed(next);
  }

  function removed(node) {
    const next = node.nextSibling;
    // What stands below it, such as the button to pay, does not move.
    const keepsPlace = node.id === "checking" || (node.id === "coupons" && !node.querySelector("form"));
    if (!keepsPlace) node.remove();
    else {
      node.dataset.over = "";
      const text = node.querySelector("[data-over-text]");
      if (text) write(text, text.dataset.overText);
    }
    return next;
  }

  // The node, from here on, that `wanted` is a later form of. Without an id it must come next.
  function counterpart(node, wanted) {
    if (wanted.id) {
      for (let each = node; each; each = each.nextSibling) if (each.id === wanted.id) return each;
      return null;
    }
    return node && !node.id && node.nodeName === wanted.nodeName ? node : null;
  }

  function morphAttributes(from, to) {
    const own = OWN[from.tagName];
    const lost = from === root.activeElement && to.hasAttribute("disabled") && !from.disabled;
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !own?.test(name)) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) === value || own?.test(name)) continue;
      // A disabled element would lose the focus: it is disabled when the payer leaves it.
      if (lost && name === "disabled") from.setAttribute("aria-disabled", "true");
      else from.setAttribute(name, value);
    }
    if (lost) from.addEventListener("blur", () => { from.disabled = from.hasAttribute("aria-disabled"); }, { once: true });
  }

  // --- Rows: they improve where they are ---

  function rowsOf(region) {
    return [...region.querySelectorAll("[data-rows] > [id]")];
  }

  let isRepriced = false; // by the payer, who expects rows to change

  function morphRows(from, to) {
    const rows = rowsOf(from);
    const lists = from.querySelectorAll("[data-rows]");
    const places = [...to.querySelectorAll("[data-rows]")];
    const wanted = new Map(rowsOf(to).map((row) => [row.id, row]));
    if (rows.every((row) => "placeholder" in row.dataset)) {
      // No order has been shown yet: the server's counts.
      to.querySelectorAll("[data-rows]").forEach((list, index) => lists[index].replaceChildren(...list.childNodes));
      return;
    }
    const gone = rows.filter((row) => !wanted.has(row.id));
    for (const [id, later] of wanted) {
      const row = rows.find((each) => each.id === id);
      const freed = row ? -1 : gone.findIndex((each) => each.dataset.kind === later.dataset.kind && !isInUse(each));
      if (row) (isRepriced ? morph : morphInPlace)(row, later);
      else if (freed >= 0) gone.splice(freed, 1)[0].replaceWith(later);
      else lists[Math.max(1, places.indexOf(later.parentNode))].append(later);
    }
    for (const row of gone) {
      // In the folded rest nothing moves; elsewhere the row keeps its place, and cannot be chosen.
      if ((row.closest("details") || "placeholder" in row.dataset) && !isInUse(row)) row.remove();
      else {
        row.dataset.gone = "";
        for (const input of row.querySelectorAll("input, button, select")) input.disabled = true;
      }
    }
  }

  // A row keeps its height. One that is being checked has room for what is known next.
  function morphInPlace(row, later) {
    if (row.isEqualNode(later) || later.matches(".checking")) return morph(row, later);
    const label = row.querySelector("label");
    const keeper = later.matches(".available") ? label : row;
    const heightOf = (element) => element.getBoundingClientRect().height;
    const height = heightOf(keeper);
    const whole = heightOf(row);
    const title = label.querySelector(".main");
    const above = title && title.getBoundingClientRect().top - label.getBoundingClientRect().top;
    // The parts of a price that has none yet open with the next touch.
    if (row.matches(".available") && !row.querySelector(".detail")) row.dataset.folded = "";
    morph(row, later);
    keeper.style.minBlockSize = `${height}px`;
    // Where it is narrow: without what only recommends it.
    if (heightOf(row) > whole) row.dataset.late = "";
    if (!title) return;
    // Its title stays where it is, not in the middle of what is there now, unless the row would grow.
    const kept = heightOf(row);
    Object.assign(label.style, { alignContent: "start", paddingBlockStart: `${above}px` });
    if (heightOf(row) > kept) Object.assign(label.style, { alignContent: "", paddingBlockStart: "" });
  }

  function isInUse(row) {
    return row.contains(root.activeElement) || row.querySelector("input:checked") !== null;
  }

  // --- The choice ---

  const chosenNames = new Set(); // the groups in which the payer has chosen
  const waiting = new Map(); // choices that are being checked, by the name of their group

  function radios() {
    return [...main.querySelectorAll("input[type=radio]")];
  }

  function showAmount() {
    // The last one counts: an option of the chosen method has a price of its own.
    const chosen = radios().filter((input) => input.checked && input.dataset.amount && isInForce(input)).pop();
    for (const each of main.querySelectorAll("[data-payable]")) {
      each.hidden = !chosen;
      if (chosen) write(each, chosen.dataset.amount);
    }
  }

  // An option counts only within the chosen method, whose radio button is the first of its row.
  function isInForce(input) {
    const method = input.closest("[data-rows] > *")?.querySelector("input[type=radio]");
    return !method || method === input || method.checked;
  }

  // `preferred`: ids by the name of their group. A choice that is being checked comes back with it.
  function keepChoice(preferred) {
    let lost = false;
    for (const input of radios()) {
      if (input.checked && (input.disabled || input.getAttribute("aria-disabled") === "true")) {
        input.checked = false;
        if (input.closest(".checking")) waiting.set(input.name, input.id); else lost = true;
      }
    }
    for (const [name, id] of waiting) {
      const input = root.getElementById(id);
      if (!input || radios().some((other) => other.checked && other.name === name)) waiting.delete(name);
      else if (!input.disabled) input.checked = waiting.delete(name);
    }
    if (lost) say(main.dataset.textGone);
    const taken = new Set(radios().filter((input) => input.checked).map((input) => input.name));
    for (const [name, id] of preferred) {
      const input = root.getElementById(id);
      if (!input || input.disabled || taken.has(name) || chosenNames.has(name)) continue;
      const row = input.closest("[data-rows] > *");
      // What has still to be chosen in it cannot stay folded, and nobody pays by what is not seen.
      if (row?.querySelector(".options") || row?.closest("details:not([open])")) continue;
      input.checked = true;
      // Its details would move the rows below from under a finger: they open once it is touched.
      if (row) row.dataset.folded = "";
    }
  }

  // --- Countdowns ---

  let ahead = 0; // the server's clock minus ours, in ms
  let warned = false;
  let running = new Set();

  function setClock(now, receivedAt) {
    if (now) ahead = Date.parse(now) - receivedAt;
  }

  function clockText(seconds) {
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }

  // As people say it. Days are in the text beside it.
  function leftText(seconds) {
    if (seconds < COUNTED_S) return clockText(Math.max(0, seconds));
    if (seconds >= DAY_S) return "";
    const { textHours, textMinutes } = main.dataset;
    const minutes = Math.floor(seconds / 60);
    const text = seconds < HOUR_S ? textMinutes : textHours;
    return text.replace("{hours}", Math.floor(minutes / 60)).replace("{minutes}", seconds < HOUR_S ? minutes : minutes % 60);
  }

  function tick() {
    const ends = new Set();
    let soonest = Infinity;
    for (const element of main.querySelectorAll("[data-expires-at]")) {
      const end = element.dataset.expiresAt;
      const seconds = Math.ceil((Date.parse(end) - Date.now() - ahead) / 1000);
      if (seconds > 0) {
        soonest = Math.min(soonest, seconds);
        ends.add(end);
      } else if (running.has(end)) {
        // What this means, the server says, once.
        if (!isSending()) {
          running.clear();
          return reload();
        }
        ends.add(end);
      }
      write(element, leftText(seconds));
    }
    running = ends;
    for (const warning of main.querySelectorAll("[data-warn-before]")) {
      warning.hidden = soonest > +warning.dataset.warnBefore;
      if (!warning.hidden && !warned) {
        warned = true;
        say(warning.textContent.trim());
      }
    }
    for (const button of main.querySelectorAll("[data-enable-after]")) wait(button);
  }

  // A code can be sent again after some seconds.
  function wait(button) {
    button.dataset.at ??= Date.now() + button.dataset.enableAfter * 1000;
    const seconds = Math.ceil((button.dataset.at - Date.now()) / 1000);
    const text = button.querySelector("[data-wait]");
    button.disabled = seconds > 0;
    if (text) write(text, seconds > 0 ? clockText(seconds) : "");
    if (seconds <= 0) button.removeAttribute("data-enable-after");
  }

  // --- Following: events, else a chain of timers ---

  let address = main?.dataset.live;
  let source = null;
  let timer = 0;
  let watchdog = 0;
  let pending = null;
  let troubles = 0;
  let answers = 0;
  let rounds = 0; // ended streams, one after the other
  let isOver = !address;

  function halt() {
    source?.close();
    pending?.abort();
    source = pending = null;
    clearTimeout(timer);
    clearTimeout(watchdog);
  }

  function later(milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(follow, milliseconds * (0.8 + 0.4 * Math.random()));
  }

  function follow() {
    halt();
    if (isOver || document.hidden || !main?.isConnected) return;
    if (troubles < 2) listen(); else ask();
  }

  function trouble() {
    troubles += 1;
    say(main.dataset.textChecking);
    halt();
    later(Math.min(SLOWEST_MS, 500 * 2 ** troubles));
  }

  function expect(milliseconds) {
    clearTimeout(watchdog);
    watchdog = setTimeout(trouble, milliseconds);
  }

  function listen() {
    expect(WAIT_FOR_FIRST_MS);
    source = host.open(address, {
      update(data) {
        troubles = 0;
        expect(WAIT_FOR_NEXT_MS);
        apply(JSON.parse(data));
      },
      beat() {
        expect(WAIT_FOR_NEXT_MS);
      },
      end(data) {
        const { retry_ms: retry } = JSON.parse(data);
        halt();
        rounds += 1;
        if (retry === null) isOver = true;
        else later(Math.min(SLOWEST_MS, retry * 1.5 ** (rounds - 1)));
      },
      trouble,
    });
  }

  async function ask() {
    const asked = (pending = new AbortController());
    expect(WAIT_FOR_FIRST_MS);
    try {
      const answer = await host.get(address, asked.signal);
      // The session is over: the page says how to go on.
      if (answer.status === 401 || answer.status === 403) return reload();
      if (!answer.ok) throw new Error(answer.status);
      const update = await answer.json();
      clearTimeout(watchdog);
      answers += 1;
      if (answers % 10 === 0) troubles = 1; // events may come again
      apply(update);
      if (update.poll_after_ms === null) isOver = true;
      // While events do not come, a slow chain is enough.
      else later(Math.max(1000, update.poll_after_ms));
    } catch {
      if (!asked.signal.aborted) trouble();
    }
  }

  // `<main>`, as the host has it: a shop's page has one of its own.
  function mainOf({ html }) {
    const built = build(html).querySelector("main");
    if (!host.tag) return built;
    const other = document.createElement(host.tag);
    for (const { name, value } of built.attributes) other.setAttribute(name, value);
    other.append(...built.childNodes);
    return other;
  }

  function reload() {
    halt();
    isOver = true;
    // A browser would show its own error in the place of what is still of use.
    if (navigator.onLine === false) addEventListener("online", host.reload, { ...listening, once: true });
    else host.reload();
  }

  // Where nothing is followed. Not all at once, not where nobody looks, and not in the place of an
  // answer to a form.
  let waited = 0;

  function reloadLater() {
    clearTimeout(waited);
    const seconds = +(main.dataset.reloadAfter || 0);
    if (!seconds) return;
    waited = setTimeout(() => {
      if (isSending()) reloadLater();
      else if (document.hidden) document.addEventListener("visibilitychange", reload, { ...listening, once: true });
      else reload();
    }, seconds * (1000 + 500 * Math.random()));
  }

  function apply(update) {
    if (isSending()) return;
    if (update.view !== main.dataset.view) return reload();
    setClock(update.now, Date.now());
    if (!update.html) return say("");
    const focused = root.activeElement;
    const heading = main.querySelector("h1")?.textContent;
    const region = mainOf(update);
    const preferred = new Map();
    for (const input of region.querySelectorAll("input[type=radio][checked]")) {
      preferred.set(input.name, input.id);
      // Else it would take the choice from another of its group where it is inserted.
      input.removeAttribute("checked");
    }
    morph(main, region);
    // What it knows now is in it.
    address = main.dataset.live ?? address;
    // A template may give an element another place: the focus follows its id. What is gone leaves it
    // to what a page of this state begins with.
    if (focused?.id && !focused.isConnected) {
      (root.getElementById(focused.id) ?? main.querySelector("[data-focus]"))?.focus({ preventScroll: true });
    }
    const news = main.querySelector("h1")?.textContent;
    say(news === heading ? "" : news);
    host.updated?.(main, update);
    enhance();
    keepChoice(preferred);
    showAmount();
  }

  // Shows another kind of page in the place of this one.
  function show(update) {
    halt();
    setClock(update.now, Date.now());
    const later = mainOf(update);
    const first = later.querySelector("[data-focus], [autofocus]");
    first?.removeAttribute("autofocus"); // a browser refuses it in a frame
    main.replaceWith(later);
    main = later;
    running = new Set();
    chosenNames.clear();
    warned = isRepriced = false;
    address = main.dataset.live;
    isOver = !address;
    troubles = rounds = 0;
    say(main.querySelector("h1")?.textContent);
    host.updated?.(main, update);
    enhance();
    showAmount();
    focusOn(first);
    follow();
  }

  // --- Elements of the page ---

  function enhance() {
    const others = root.getElementById("others");
    if (others) others.hidden = !rowsOf(others).length;
    for (const heading of main.querySelectorAll("[data-heads]")) {
      heading.hidden = !heading.nextElementSibling.querySelector(".unavailable");
    }
    for (const button of main.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
    for (const button of main.querySelectorAll("form[data-reprice] [data-apply]")) button.hidden = true;
    reloadLater();
    tick();
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      const field = document.createElement("textarea");
      field.value = button.dataset.copy;
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      button.focus({ preventScroll: true });
      if (!done) return;
    }
    const text = button.querySelector("[data-label]") || button;
    button.dataset.before ??= text.textContent;
    write(text, button.dataset.copiedText);
    say(button.dataset.copiedText);
    setTimeout(() => { write(text, button.dataset.before); say(""); }, 2500);
  }

  function plainCode(text) {
    return text.normalize("NFKC").replace(/[\s\-‐-―]/g, "").replace(/\p{Nd}/gu, (digit) => {
      let zero = digit.codePointAt(0);
      while (/\p{Nd}/u.test(String.fromCodePoint(zero - 1)) && digit.codePointAt(0) - zero < 9) zero -= 1;
      return String(digit.codePointAt(0) - zero);
    });
  }

  function isCode(target) {
    return target.matches?.("input[autocomplete=one-time-code]");
  }

  function send(event) {
    const form = event.target;
    if (event.defaultPrevented) return;
    if (!isPost(form)) return host.search?.(event);
    if (form.dataset.sent !== undefined) return event.preventDefault();
    if (navigator.onLine === false) {
      event.preventDefault();
      return say(main.dataset.textChecking);
    }
    form.dataset.sent = "";
    host.send?.(event);
    const button = event.submitter || form.querySelector("button:not([type=button])");
    // After the form's data are taken: a disabled button would send no value. It may have failed by then.
    setTimeout(() => {
      if (button && form.dataset.sent !== undefined) {
        button.setAttribute("aria-busy", "true");
        button.disabled = true;
      }
    });
    setTimeout(() => recover(form), BUSY_MS);
  }

  function isSending() {
    return main.querySelector("form[data-sent]") !== null;
  }

  function recover(form) {
    if (form.dataset.sent === undefined) return;
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("[aria-busy]")) {
      button.removeAttribute("aria-busy");
      button.disabled = false;
    }
  }

  function reprice(form) {
    const fields = new URLSearchParams([...new FormData(form)]);
    const query = form.querySelector("input:checked") ? fields : form.dataset.none;
    host.chose?.(`${form.getAttribute("action")}?${query}`);
    noteChoice(form, query);
    isRepriced = true;
    address = `${form.dataset.reprice}?${query}`;
    restart();
  }

  // A press before the new prices are here is about this choice too, and not about the one before:
  // the server answers with its price, to be agreed to.
  function noteChoice(form, query) {
    const pay = root.getElementById("pay");
    const names = new Set([...form.elements].map(({ name }) => name));
    for (const field of pay.querySelectorAll("[type=hidden]")) if (names.has(field.name)) field.remove();
    for (const [name, value] of new URLSearchParams(query)) {
      pay.prepend(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
    }
  }

  // Asks at once, also where nothing was expected any more: what is true now may be something else.
  function restart() {
    isOver = !address;
    troubles = rounds = 0;
    tick();
    follow();
  }

  function recoverAll() {
    for (const form of root.querySelectorAll("form[data-sent]")) recover(form);
  }

  const listeners = new AbortController();
  const listening = { signal: listeners.signal };
  root.addEventListener("submit", send, listening);
  root.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (button) copy(button);
    event.target.closest?.("[data-folded]")?.removeAttribute("data-folded");
  }, listening);
  root.addEventListener("input", (event) => {
    if (isCode(event.target) && !event.isComposing) {
      const code = plainCode(event.target.value);
      if (code !== event.target.value) event.target.value = code;
    }
  }, listening);
  // A press without a choice says so at a row, which may be folded.
  root.addEventListener("invalid", ({ target }) => {
    const folded = target.closest("details");
    if (folded) folded.open = true;
  }, { ...listening, capture: true });
  // Before `maxlength` cuts it.
  root.addEventListener("paste", (event) => {
    if (!isCode(event.target)) return;
    event.preventDefault();
    const { target } = event;
    const code = plainCode(event.clipboardData.getData("text"));
    target.setRangeText(code.slice(0, target.maxLength > 0 ? target.maxLength : undefined), 0, target.value.length, "end");
    target.dispatchEvent(new Event("input", { bubbles: true }));
  }, listening);
  root.addEventListener("change", (event) => {
    if (event.target.form?.dataset.reprice) reprice(event.target.form);
    if (event.target.type === "radio") {
      chosenNames.add(event.target.name);
      say("");
      showAmount();
    }
  }, listening);
  document.addEventListener("visibilitychange", () => (document.hidden ? halt() : restart()), listening);
  addEventListener("online", restart, listening);
  addEventListener("offline", () => say(address && !isOver ? main.dataset.textChecking : ""), listening);
  addEventListener("pagehide", halt, listening);
  addEventListener("pageshow", (event) => {
    recoverAll();
    if (event.persisted) restart();
  }, listening);
  const ticking = setInterval(() => main && tick(), 1000);

  function stop() {
    halt();
    clearTimeout(waited);
    clearInterval(ticking);
    listeners.abort();
  }

  return { enhance, follow, recoverAll, say, setClock, show, showAmount, stop };
}
