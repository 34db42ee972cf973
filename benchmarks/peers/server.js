// Node's http, with response.write: https://nodejs.org/api/http.html#responsewritechunk-encoding-callback
//
// node server.js FD [--tls FILE] [--gzip]: serves on the listening socket FD until it is ended, under TLS with the
// certificate and the key in FILE, or with its paced streams compressed:
// https://nodejs.org/api/zlib.html#flushing
"use strict";
const { once } = require("events");
const fs = require("fs");
const http = require("http");
const https = require("https");
const { parseArgs } = require("util");
const zlib = require("zlib");

const [descriptor, ...rest] = process.argv.slice(2);
const options = parseArgs({ args: rest, options: { tls: { type: "string" }, gzip: { type: "boolean" } } }).values;
const EVENT_STREAM = { "Content-Type": "text/event-stream", "Cache-Control": "no-store" };
const INTERVAL_MS = 10;
const subscribers = new Set();
let late = null; // begun when it is first asked for

// One event, made now: hrtime is CLOCK_MONOTONIC.
function stamp() {
  return `data: ${String(process.hrtime.bigint()).padStart(18, "0")}\n\n`;
}

function paced(query, response) {
  const events = Number(query.get("events"));
  const intervalMs = Number(query.get("interval")) * 1000;
  response.writeHead(200, options.gzip ? { ...EVENT_STREAM, "Content-Encoding": "gzip" } : EVENT_STREAM);
  let out = response;
  if (options.gzip) {
    out = zlib.createGzip();
    out.pipe(response);
  }
  const begin = performance.now();
  let sent = 0;
  response.on("close", () => (sent = events));
  function step() {
    if (sent >= events) return;
    out.write(stamp());
    if (options.gzip) out.flush(zlib.constants.Z_SYNC_FLUSH);
    if (++sent === events) out.end();
    else setTimeout(step, Math.max(begin + sent * intervalMs - performance.now(), 0));
  }
  step();
}

async function burst(query, response) {
  response.writeHead(200, EVENT_STREAM);
  for (let left = Number(query.get("events")); left > 0; left--) {
    if (!response.write(stamp())) await once(response, "drain");
  }
  response.end();
}

function first(response) {
  response.writeHead(200, EVENT_STREAM);
  response.write(stamp());
  setTimeout(() => response.end(stamp()), 1);
}

function watchLag() {
  const due = performance.now() + INTERVAL_MS;
  setTimeout(() => {
    late.push(Math.round(Math.max(performance.now() - due, 0) * 1000));
    watchLag();
  }, INTERVAL_MS);
}

function publish(request, response) {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const event = `data: ${Buffer.concat(pieces)}\n\n`;
    for (const subscriber of subscribers) subscriber.write(event);
    response.writeHead(204).end();
  });
}

function subscribe(response) {
  response.writeHead(200, EVENT_STREAM);
  response.flushHeaders();
  subscribers.add(response);
  response.on("close", () => subscribers.delete(response));
}

function answer(response, text) {
  response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(text) }).end(text);
}

function lag(response) {
  if (late === null) watchLag();
  answer(response, (late ?? []).join(" "));
  late = [];
}

function serve(request, response) {
  const [path, query] = request.url.split("?");
  if (path === "/paced") paced(new URLSearchParams(query), response);
  else if (path === "/burst") burst(new URLSearchParams(query), response);
  else if (path === "/first") first(response);
  else if (path === "/fanout") subscribe(response);
  else if (path === "/publish") publish(request, response);
  else if (path === "/lag") lag(response);
  else answer(response, "ok");
}

const pem = options.tls && fs.readFileSync(options.tls);
const server = pem ? https.createServer({ cert: pem, key: pem }, serve) : http.createServer(serve);
server.listen({ fd: Number(descriptor) });
