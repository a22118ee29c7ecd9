// The pages in another document: they come by `fetch`, with tokens in headers instead of cookies.

const VERSION = 1; // of the messages between element and frame

// `tokens`: `session` and `payment`, kept up to date; `changed` is called then.
function remote(origin, tokens, changed) {
  async function get(address, { accept = "application/json", ...options } = {}) {
    const headers = { Accept: accept, Authorization: `Bearer ${tokens.session}` };
    if (tokens.payment) headers["X-Cashier-Payment"] = tokens.payment;
    const answer = await fetch(new URL(address, origin), {
      ...options, headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer",
    });
    for (const name of ["session", "payment"]) {
      const value = answer.headers.get(`X-Cashier-${name}`);
      if (value !== null) tokens[name] = value;
    }
    changed?.();
    return answer;
  }

  // What is shown at this address, or where it leads.
  async function load(address, options) {
    const signal = AbortSignal.timeout(BUSY_MS);
    for (let steps = 0; steps < 6; steps += 1) {
      const answer = await get(address, { ...options, signal });
      const update = await answer.json();
      if (!update.location) return { ...update, status: answer.status };
      address = update.location;
      options = undefined;
    }
    throw new Error("too many steps");
  }

  function open(address, on) {
    const reading = new AbortController();
    read(address, on, reading.signal).catch(() => {}).then(() => {
      if (!reading.signal.aborted) on.trouble();
    });
    return { close: () => reading.abort() };
  }

  async function read(address, on, signal) {
    const answer = await get(address, { accept: "text/event-stream", signal });
    if (!answer.ok) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const fields = {};
        for (const line of event.split("\n")) {
          const colon = line.indexOf(":");
          fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
        }
        on[fields.event]?.(fields.data);
      }
    }
  }

  // A form of the pages as a request.
  function send(event) {
    const form = event.target;
    const fields = new URLSearchParams([...new FormData(form, event.submitter)]);
    event.preventDefault();
    const address = addressOf(form);
    if (isPost(form)) return load(address, { method: "POST", body: fields });
    return load(`${address.split("?")[0]}?${fields}`);
  }

  return { get, load, open, send };
}

// Ours, and not a bank's.
function isOwnAddress(address) {
  return address.startsWith("/");
}
