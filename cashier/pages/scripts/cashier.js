// <cashier-methods>: the embedded cashier. README.md says how a shop uses it.

const PARTS = {
  ".card": "card", ".row": "method", ".row > label": "label", ".tile": "icon", ".price": "price", ".badge": "badge",
  ".why": "reason", ".option": "option", ".notice": "notice", ".primary": "button", ".plain": "button-plain",
  ".quiet": "button-quiet", ".coupons": "coupons", h1: "heading", ".order": "order", ".facts": "facts", ".qr": "qr",
};
const MIN_FRAME_PX = 120;
const MAX_FRAME_PX = 1200;
const FRAME_MS = 10000;

class CashierMethods extends HTMLElement {
  #seen = "";
  #link = "";
  #stop = () => {};
  // A framework inserts the element before its link, and a shop renews a link that has run out.
  #links = new MutationObserver(() => this.#follow());

  connectedCallback() {
    this.#links.observe(this, { attributeFilter: ["href"], childList: true, subtree: true });
    this.#follow();
  }

  disconnectedCallback() {
    this.#links.disconnect();
    this.#stop();
    this.#link = this.#seen = "";
  }

  #follow() {
    const link = this.querySelector("a[href]")?.href;
    if (!link || link === this.#link) return;
    this.#link = link;
    this.#start(new URL(link)).catch((error) => this.#unavailable(error));
  }

  #unavailable(error) {
    this.#tell("cashier-error", { code: "UNAVAILABLE", message: String(error) });
  }

  #tell(type, detail) {
    return this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true, cancelable: true }));
  }

  async #start(link) {
    this.#stop();
    const [, prefix, order] = /^(.*)\/cashier\/([^/]+)$/.exec(link.pathname);
    const base = `${prefix}/cashier-embed/${order}`;
    const key = `cashier ${link.origin}${base}`;
    const token = link.searchParams.get("token");
    const tokens = { session: token, ...stored(key) };
    const client = remote(link.origin, tokens, () => store(key, tokens));
    const root = this.shadowRoot || this.attachShadow({ mode: "open" });
    const main = document.createElement("div");
    main.dataset.view = "";
    const status = document.createElement("p");
    status.id = "status";
    status.className = "sr";
    status.setAttribute("role", "status");
    // Until there is something better, and if there never is: the link of the shop.
    root.replaceChildren(document.createElement("slot"), main, status);

    const leaving = new AbortController();
    let again = 0;
    let shows = 0;
    let isGone = false;
    const page = improve(root, {
      tag: "div",
      open: client.open,
      get: (address, signal) => client.get(address, { signal }),
      reload: () => show(client.load(base)),
      search: (event) => show(client.send(event)),
      send: (event) => {
        const address = addressOf(event.target);
        if (!isOwnAddress(address)) return this.#redirect(address, event);
        this.#tell("cashier-submit", { method: root.querySelector("[name=method]:checked")?.value });
        show(client.send(event));
      },
      updated: (shown, update) => this.#updated(shown, update),
    });
    this.#stop = () => {
      isGone = true;
      clearTimeout(again);
      page.stop();
      leaving.abort();
    };

    // What was asked for last is shown: an answer that comes late is about what was before.
    const show = async (loading) => {
      const own = (shows += 1);
      clearTimeout(again);
      let update;
      try {
        update = await loading;
      } catch (error) {
        // Never a failure of the payment: only that nothing is known for now.
        if (isGone || own !== shows) return;
        page.recoverAll();
        page.say(root.querySelector("[data-view]").dataset.textChecking);
        this.#unavailable(error);
        again = setTimeout(() => show(client.load(base)), 4000 + 4000 * Math.random());
        return;
      }
      if (update.style) await style(root, new URL(update.style, link.origin));
      if (isGone || own !== shows) return;
      if (update.status === 403) {
        // A payment that runs is known by its own token, also with the next link.
        store(key, { payment: tokens.payment });
        this.#tell("cashier-error", { code: "SESSION_EXPIRED" });
      }
      root.querySelector("slot")?.remove();
      page.show(update.view === "challenge" ? { ...update, html: emptied(update.html) } : update);
      if (update.view === "challenge") this.#challenge(root, link.origin, base, tokens, leaving.signal, update, show, client);
    };

    root.addEventListener("click", (event) => {
      const anchor = event.target.closest("a[href]");
      if (!anchor || event.defaultPrevented) return;
      const address = anchor.getAttribute("href");
      if (isOwnAddress(address)) {
        event.preventDefault();
        show(client.load(address));
      } else if (anchor.target !== "_blank") this.#redirect(address, event);
    }, { signal: leaving.signal });
    root.addEventListener("change", (event) => {
      if (event.target.name === "method") this.#tell("cashier-choice", { method: event.target.value });
    }, { signal: leaving.signal });
    const first = async () => {
      const update = await client.load(base);
      const { session } = tokens;
      if (session === token || !isOver(update)) return update;
      // The session of an earlier link is over, or for another amount; this link's may not be.
      tokens.session = token;
      const renewed = await client.load(base);
      if (update.status === 403 || renewed.status !== 403) return renewed;
      tokens.session = session;
      store(key, tokens);
      return update;
    };
    await show(first());
  }

  // The shop may do it in its own way, in an app for example.
  #redirect(url, event) {
    if (!this.#tell("cashier-redirect", { url })) event.preventDefault();
  }

  #updated(main, update) {
    main.setAttribute("role", "group");
    this.shadowRoot.getElementById("status").lang = main.lang;
    main.setAttribute("aria-label", main.querySelector("h1")?.textContent || "");
    for (const [selector, part] of Object.entries(PARTS)) {
      for (const element of main.querySelectorAll(selector)) element.part.add(part);
    }
    const { view, outcome } = update;
    if (this.#seen === `${view} ${outcome}`) return;
    this.#seen = `${view} ${outcome}`;
    this.#tell("cashier-view", { view });
    if (outcome) this.#tell("cashier-result", { outcome, payment_id: update.payment_id });
    const way = main.querySelector("[data-go]");
    if (!way || stored("cashier-went").address === addressOf(way)) return;
    store("cashier-went", { address: addressOf(way) });
    go(way);
  }

  // A code or password is typed in a document of the cashier, which the shop's page cannot read.
  #challenge(root, origin, base, tokens, signal, { title }, show, client) {
    const frame = document.createElement("iframe");
    const main = root.querySelector("[data-view]");
    const query = new URLSearchParams({ origin: location.origin, locale: main.lang });
    frame.src = new URL(`${base}/frame?${query}`, origin);
    frame.title = title;
    frame.part.add("challenge");
    frame.className = "challenge";
    frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms allow-top-navigation-by-user-activation");
    addEventListener("message", (event) => {
      const { data } = event;
      if (event.origin !== origin || event.source !== frame.contentWindow || data?.cashier !== VERSION) return;
      if (data.type === "ready") {
        clearTimeout(silent);
        const { session, payment } = tokens;
        frame.contentWindow.postMessage({ cashier: VERSION, type: "open", session, payment }, origin);
      } else if (data.type === "size" && Number.isFinite(data.height)) {
        frame.style.blockSize = `${Math.min(Math.max(data.height, MIN_FRAME_PX), MAX_FRAME_PX)}px`;
      } else if (data.type === "moved" && frame.isConnected) {
        if (typeof data.payment === "string") tokens.payment = data.payment;
        frame.remove();
        show(client.load(base));
      }
    }, { signal });
    // A policy of the shop may keep the frame out: the page of the link has the challenge too.
    const silent = setTimeout(() => {
      if (!frame.isConnected) return;
      this.#unavailable("the frame of the challenge does not load");
      root.prepend(document.createElement("slot"));
    }, FRAME_MS);
    main.append(frame);
  }
}

// Neither the session nor its order lets anybody pay.
function isOver({ status, view, html }) {
  return status === 403 || (view === "checkout" && !html.includes(' data-live="'));
}

// Without its content, which the frame shows and follows.
function emptied(html) {
  return `${/<main[^>]*>/.exec(html)[0].replace(/ data-live="[^"]*"/, "")}</main>`;
}

async function style(root, url) {
  if (root.adoptedStyleSheets.length) return;
  const sheet = new CSSStyleSheet();
  try {
    sheet.replaceSync(await (await fetch(url, { credentials: "omit" })).text());
  } catch { return; /* it works without one */ }
  // A page that does not say that it can be dark is light, whatever the browser prefers.
  const scheme = getComputedStyle(root.host).colorScheme;
  if (!(scheme.includes("light") && scheme.includes("dark"))) {
    for (const { media } of sheet.cssRules) {
      if (media?.mediaText.includes("prefers-color-scheme")) media.mediaText = scheme.includes("dark") ? "all" : "not all";
    }
  }
  root.adoptedStyleSheets = [sheet];
}

// Storage may be blocked: a reload of the shop's page then starts anew.
function stored(key) {
  try { return JSON.parse(sessionStorage.getItem(key)) || {}; } catch { return {}; }
}

function store(key, value) {
  try { sessionStorage.setItem(key, JSON.stringify(value)); } catch { /* see above */ }
}

if (!customElements.get("cashier-methods")) customElements.define("cashier-methods", CashierMethods);
