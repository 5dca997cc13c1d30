// Who gets whose answer? An upstream that breaks off at random, and callers that do, a nonce on every request.
//
//   node nonces.mjs upstream
//   node nonces.mjs callers PORT COUNT
//
// The upstream answers with the nonce of the request in a header and repeated in the body, and ends about one connection in
// 50 before, within or after an answer. A caller leaves about one request in 50 at a random moment. The callers print one JSON
// line: whole answers, broken ones, attaché's own answers, and mixed ones, which are those that hold anything but the own nonce.

import { Agent, createServer, request } from "node:http";

const [, , role, port, count] = process.argv;
const chance = (one, of) => Math.random() * of < one;

if (role === "upstream") {
  let served = 0;
  const server = createServer({ keepAliveTimeout: 60_000 }, async (incoming, response) => {
    served += 1;
    if (chance(1, 150)) return incoming.socket.destroy();
    const parts = [];
    try {
      for await (const chunk of incoming) parts.push(chunk);
    } catch {
      return;
    }
    const nonce = incoming.headers["x-nonce"];
    const right = parts.length === 0 || Buffer.concat(parts).toString() === nonce.repeat(50);
    const body = `${right ? nonce : "wrong body"},`.repeat(1 + Math.floor(Math.random() * 200));
    response.setHeader("x-nonce", nonce);
    if (chance(1, 2)) response.setHeader("content-length", body.length);
    if (chance(1, 150)) {
      response.write(body.slice(0, body.length / 2), () => incoming.socket.destroy());
    } else if (chance(1, 150)) {
      response.end(body, () => incoming.socket.destroy());
    } else {
      response.end(body);
    }
  });
  server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
  process.on("SIGTERM", () => {
    console.log(JSON.stringify({ served }));
    process.exit(0);
  });
} else {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const seen = { whole: 0, own: {}, broken: 0, left: 0, mixed: 0, examples: [] };
  let next = 0;

  const one = (number) =>
    new Promise((resolve) => {
      const nonce = `n${number}-${Math.random().toString(36).slice(2)}`;
      const post = chance(1, 3);
      let done = false;
      const finish = (how) => {
        if (done) return;
        done = true;
        how();
        resolve();
      };
      const outgoing = request(
        { agent, host: "127.0.0.1", port, method: post ? "POST" : "GET", path: `/${number}`, headers: { "x-nonce": nonce } },
        (response) => {
          let body = "";
          response.on("data", (chunk) => (body += chunk));
          response.on("error", () => finish(() => (seen.broken += 1)));
          response.on("aborted", () => finish(() => (seen.broken += 1)));
          response.on("end", () =>
            finish(() => {
              if (response.headers["content-type"] === "application/problem+json") {
                const { reason } = JSON.parse(body);
                seen.own[reason] = (seen.own[reason] ?? 0) + 1;
              } else if (response.headers["x-nonce"] === nonce && body.split(",").every((part) => part === nonce || part === "")) {
                seen.whole += 1;
              } else {
                seen.mixed += 1;
                if (seen.examples.length < 3) seen.examples.push({ nonce, got: response.headers["x-nonce"], body: body.slice(0, 60) });
              }
            }),
          );
        },
      );
      outgoing.on("error", () => finish(() => (seen.broken += 1)));
      outgoing.end(post ? nonce.repeat(50) : undefined);
      if (chance(1, 50)) {
        setTimeout(() => {
          finish(() => (seen.left += 1));
          outgoing.destroy();
        }, Math.random() * 10);
      }
    });

  const caller = async () => {
    while (next < Number(count)) await one(next++);
  };
  await Promise.all(Array.from({ length: 64 }, caller));
  console.log(JSON.stringify(seen));
  process.exit(0);
}
