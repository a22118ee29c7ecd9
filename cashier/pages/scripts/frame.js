// The challenge of an embedded cashier, in a document of the cashier inside the shop's page.

const RETRY_MS = 3000;
const holder = document.querySelector("main");
const shop = holder.dataset.shop; // the only origin that may frame this document
const base = location.pathname.replace(/\/frame$/, "");

function tell(type, more) {
  parent.postMessage({ cashier: VERSION, type, ...more }, shop);
}

function start(tokens) {
  const client = remote(location.origin, tokens);
  const page = improve(document, {
    open: client.open,
    get: (address, signal) => client.get(address, { signal }),
    reload: () => show(client.load(`${base}/payment`)),
    send: (event) => show(client.send(event)),
    search: (event) => show(client.send(event)),
    updated: (main) => {
      for (const link of main.querySelectorAll("a[href]")) link.target = "_top";
    },
  });
  async function show(loading) {
    let update;
    try {
      update = await loading;
    } catch {
      const { view, textChecking } = document.querySelector("main").dataset;
      page.recoverAll();
      page.say(textChecking);
      // Nothing is shown yet; later the payer sends the form again.
      if (view === "frame") setTimeout(() => show(client.load(`${base}/payment`)), RETRY_MS);
      return;
    }
    if (update.view === "challenge") page.show(update);
    else {
      page.stop();
      tell("moved", { payment: tokens.payment });
    }
  }
  show(client.load(`${base}/payment`));
  new ResizeObserver(() => tell("size", { height: Math.ceil(document.body.scrollHeight) })).observe(document.body);
}

let isStarted = false;
addEventListener("message", ({ origin, source, data }) => {
  if (isStarted || origin !== shop || source !== parent || data?.cashier !== VERSION || data.type !== "open") return;
  isStarted = true;
  start({ session: String(data.session), payment: String(data.payment) });
});
tell("ready");
