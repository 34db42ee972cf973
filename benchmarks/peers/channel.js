// Node's http, with response.write to each subscriber: https://nodejs.org/api/http.html#responsewritechunk-encoding-callback
//
// node channel.js FD: serves on the listening socket FD until it is ended.
"use strict";
const http = require("http");

const EVENT_STREAM = { "Content-Type": "text/event-stream", "Cache-Control": "no-store" };
const INTERVAL_MS = 10;
const subscribers = new Set();
let late = null; // begun when it is first asked for

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

function subscribe(request, response) {
  response.writeHead(200, EVENT_STREAM);
  response.flushHeaders();
  subscribers.add(response);
  response.on("close", () => subscribers.delete(response));
}

function answer(response, text) {
  response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(text) }).end(text);
}

const server = http.createServer((request, response) => {
  if (request.url === "/fanout") subscribe(request, response);
  else if (request.url === "/publish") publish(request, response);
  else if (request.url === "/lag") {
    if (late === null) watchLag();
    answer(response, (late ?? []).join(" "));
    late = [];
  } else answer(response, "ok");
});
server.listen({ fd: Number(process.argv[2]) });
