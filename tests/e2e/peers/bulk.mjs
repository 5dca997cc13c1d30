// An upstream for large, slow and broken bodies. Prints `listening PORT`.
//
//   GET  /down/BYTES      so many bytes, with a length;  /down-chunked/BYTES without
//   POST /up              answers with the size and the hash of what came;  /up/slowly takes its time over it
//   GET  /cut/N           promises more than it sends, with a length or (odd N) chunked, then resets or closes
//   POST /swallow         reads; says on standard output whether the body came to its end
//   POST /ignore          never reads the body, never answers
//   GET  /events/N        N server-sent events, one every 100 ms, each with the time at which it was written

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { setTimeout } from "node:timers/promises";

const block = Buffer.alloc(1 << 16, "attache ");

const routes = {
  down(request, response, bytes) {
    response.setHeader("content-length", bytes);
    pour(response, Number(bytes));
  },
  "down-chunked"(request, response, bytes) {
    pour(response, Number(bytes));
  },
  async up(request, response, slowly) {
    const hash = createHash("sha256");
    let size = 0;
    for await (const chunk of request) {
      hash.update(chunk);
      size += chunk.length;
      if (slowly) await setTimeout(2);
    }
    response.end(`${size} ${hash.digest("hex")}`);
  },
  cut(request, response, number) {
    const sent = 1 + ((number * 7919) % 300_000);
    if (number % 2 === 0) response.setHeader("content-length", sent + 1);
    response.write(Buffer.alloc(sent), () => (number % 3 === 0 ? request.socket.resetAndDestroy() : request.socket.destroy()));
  },
  swallow(request, response, number) {
    request.on("data", () => {});
    request.on("end", () => {
      console.log(`upload ${number} whole`);
      response.end("whole");
    });
    request.on("close", () => request.complete || console.log(`upload ${number} cut`));
    request.on("error", () => {});
  },
  ignore() {},
  events(request, response, count) {
    response.setHeader("content-type", "text/event-stream");
    let number = 0;
    const timer = setInterval(() => {
      response.write(`id: ${number}\ndata: ${Date.now() / 1000}\n\n`);
      if (++number === Number(count)) {
        clearInterval(timer);
        response.end();
      }
    }, 100);
    request.on("close", () => clearInterval(timer));
  },
};

function pour(response, left) {
  const more = () => {
    while (left > 0) {
      const part = left < block.length ? block.subarray(0, left) : block;
      left -= part.length;
      if (!response.write(part)) return response.once("drain", more);
    }
    response.end();
  };
  more();
}

const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 0 }, (request, response) => {
  if (!request.headers.authorization?.startsWith("Bearer ")) return response.writeHead(401).end();
  const [, route, argument] = request.url.split("/");
  routes[route](request, response, argument);
});
server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
