// A gateway in Node's http: an agent with kept connections, Promise.all, bodies joined undecoded.
//
// node node.js PORT '{"order": "http://127.0.0.1:1234", ...}'
"use strict";

const http = require("node:http");

const SOURCES = ["order", "merchant", "member", "card", "balance", "channel", "quota", "marketing"];

// One character per byte, both ways: cheaper than buffers and than UTF-8.
const BYTES = "latin1";

const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 4096 });
const ports = Object.entries(JSON.parse(process.argv[3])).map(([name, url]) => [name, Number(new URL(url).port)]);
const upstreams = Object.fromEntries(ports);

function targets({ order_id, user_id, merchant_id, country, amount: { currency, value } }) {
  const member = `/members/${user_id}`;
  return [
    `/orders/${order_id}`,
    `/merchants/${merchant_id}`,
    member,
    `${member}/cards`,
    `${member}/balances`,
    `/channels?currency=${currency}&country=${country}`,
    `${member}/quotas?currency=${currency}`,
    `${member}/promotions?merchant_id=${merchant_id}&currency=${currency}&value=${value}`,
  ];
}

function read(stream, encoding) {
  return new Promise((resolve, reject) => {
    let text = "";
    stream.setEncoding(encoding);
    stream.on("data", (part) => (text += part));
    stream.on("end", () => resolve(text));
    stream.on("error", reject);
  });
}

function get(source, path) {
  return new Promise((resolve, reject) => {
    http
      .get({ agent, host: "127.0.0.1", port: upstreams[source], path }, (answer) => {
        read(answer, BYTES).then((body) => resolve(answer.statusCode === 200 ? body : "null"), reject);
      })
      .on("error", reject);
  });
}

async function consult(request, response) {
  const asked = JSON.parse(await read(request, "utf8"));
  const bodies = await Promise.all(targets(asked).map((path, at) => get(SOURCES[at], path)));
  const merged = `{${bodies.map((body, at) => `"${SOURCES[at]}":${body}`).join(",")}}`;
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": merged.length });
  response.end(merged, BYTES);
}

const server = http.createServer((request, response) => {
  consult(request, response).catch((error) => {
    response.writeHead(502, { "Content-Type": "text/plain" });
    response.end(String(error));
  });
});
server.keepAliveTimeout = 3_600_000;
server.listen(Number(process.argv[2]), "127.0.0.1", 1024);
