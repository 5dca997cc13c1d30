// An upstream that tells what it received, and whose answers have everything an answer can have. Prints `listening PORT`.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";

const hop = ["connection", "keep-alive", "host", "via", "transfer-encoding", "content-length", "te", "expect"];

const server = createServer({ keepAliveTimeout: 60_000 }, async (request, response) => {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of request) {
    hash.update(chunk);
    size += chunk.length;
  }
  const headers = Object.entries(request.headersDistinct).filter(([name]) => !hop.includes(name));
  const told = JSON.stringify({
    method: request.method,
    url: request.url,
    headers: Object.fromEntries(headers.sort()),
    size,
    sha256: hash.digest("hex"),
    trailers: request.trailers,
  });
  const [, kind, argument] = request.url.split("?")[0].split("/");
  response.setHeader("x-twice", ["one", "two"]);
  switch (kind) {
    case "status":
      response.statusCode = Number(argument);
      return [204, 304].includes(response.statusCode) ? response.end() : response.end(told);
    case "redirect":
      response.writeHead(302, { location: "https://elsewhere.example/there?a=b#c" });
      return response.end();
    case "cookies":
      response.setHeader("set-cookie", ["a=1; HttpOnly", "b=2; Path=/x"]);
      return response.end(told);
    case "gzip":
      response.writeHead(200, { "content-encoding": "gzip", "content-type": "application/json" });
      return response.end(gzipSync(told));
    case "large-header":
      response.setHeader("x-large", "x".repeat(Number(argument)));
      return response.end(told);
    case "trailers":
      response.writeHead(200, { trailer: "x-checksum" });
      response.write(told);
      response.addTrailers({ "x-checksum": "42" });
      return response.end();
    case "hints":
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      return response.end(told);
    case "close":
      response.setHeader("connection", "close");
      return response.end(told);
    case "length":
      response.setHeader("content-length", Buffer.byteLength(told));
      return response.end(told);
    default:
      return response.end(told);
  }
});
server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
