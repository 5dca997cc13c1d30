// A real identity provider: oidc-provider, certified by the OpenID Foundation. JWT access tokens by RFC 8707 resource.
//
//   node provider.mjs '{"port": 0, "id": "...", "secret": "...", "jwk": {...}, "resources": {"https://a": 5}}'
//
// Prints `listening PORT`, then one JSON line a token request. A key that is given lets it be killed and come back the same.

import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const given = JSON.parse(process.argv[2]);
given.jwk ??= {
  ...(await exportJWK((await generateKeyPair("ES256", { extractable: true })).privateKey)),
  alg: "ES256",
  use: "sig",
};
const server = createServer();
await new Promise((resolve) => server.listen(given.port, "127.0.0.1", resolve));
const port = server.address().port;

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: given.id,
      client_secret: given.secret,
      token_endpoint_auth_method: "client_secret_basic",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: given.jwk.alg,
    },
  ],
  clientAuthMethods: ["client_secret_basic"],
  jwks: { keys: [given.jwk] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: "orders.read",
        audience: resource,
        accessTokenFormat: "jwt",
        accessTokenTTL: given.resources[resource],
        jwt: { sign: { alg: given.jwk.alg } },
      }),
    },
  },
});

const handle = provider.callback();
server.on("request", (request, response) => {
  if (request.url === "/token") {
    const received = Date.now() / 1000;
    response.on("close", () =>
      console.log(
        JSON.stringify({
          received,
          answered: Date.now() / 1000,
          status: response.statusCode,
          whole: response.writableFinished,
          resource: request.granted,
        }),
      ),
    );
  }
  handle(request, response);
});
provider.on("grant.success", (ctx) => {
  ctx.req.granted = ctx.oidc.params.resource;
});
provider.on("grant.error", (_ctx, error) => console.log(JSON.stringify({ refused: error.message })));
console.log(`listening ${port}`);
