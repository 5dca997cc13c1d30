// An upstream that believes nothing: it verifies each request's JWT against the provider's keys, without leeway, and answers
// with the hash of the body that it received.
//
//   node upstream.mjs ISSUER [PORT]
//
// `GET /stats` tells what it has seen. Prints `listening PORT`.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { createLocalJWKSet, jwtVerify } from "jose";

const issuer = process.argv[2];
const keys = createLocalJWKSet(await (await fetch(`${issuer}/jwks`)).json());
const seen = { requests: 0, unauthorized: 0, tokens: {}, reasons: [] };

const server = createServer({ keepAliveTimeout: 60_000 }, async (request, response) => {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of request) {
    hash.update(chunk);
    size += chunk.length;
  }
  if (request.url === "/stats") {
    response.setHeader("content-type", "application/json");
    return response.end(JSON.stringify(seen));
  }
  seen.requests += 1;
  const values = request.headersDistinct.authorization ?? [];
  try {
    if (values.length !== 1 || !values[0].startsWith("Bearer ")) throw new Error(`${values.length} authorization headers`);
    const token = values[0].slice(7);
    const { payload } = await jwtVerify(token, keys, { issuer, clockTolerance: 0, typ: "at+jwt" });
    seen.tokens[token] = (seen.tokens[token] ?? 0) + 1;
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ method: request.method, url: request.url, size, sha256: hash.digest("hex"), audience: payload.aud }));
  } catch (error) {
    seen.unauthorized += 1;
    seen.reasons.push(error.message);
    response.writeHead(401, { "www-authenticate": 'Bearer error="invalid_token"' });
    response.end("no");
  }
});
server.listen(Number(process.argv[3] ?? 0), "127.0.0.1", () => console.log(`listening ${server.address().port}`));
