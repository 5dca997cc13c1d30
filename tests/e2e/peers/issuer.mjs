// oidc-provider behind TLS, with a client for each way of authentication, and what a suite wants to do to it.
//
//   node issuer.mjs '{"folder": "/pki", "secret": "...", "keys": {"ES256": {public JWK}, ...}, "rotating": 1}'
//
// The folder holds ca.pem, server.pem, server.key and self.pem. Prints `listening PORT MUTUAL CONTROL`: the issuer, the same
// behind a listener that asks for certificates, and plain HTTP for the suite:
//
//   GET /seen                    every token request: when, client, method, jti and algorithm of the assertion, grant, the
//                                refresh token's family and number in it, outcome
//   GET /refresh-token?CLIENT    a new refresh token of this client
//   GET /revoke?TOKEN            takes an opaque access token back

import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const given = JSON.parse(process.argv[2]);
const read = (name) => readFileSync(`${given.folder}/${name}`);
const identity = { key: read("server.key"), cert: read("server.pem") };
const servers = [
  createTlsServer(identity),
  createTlsServer({ ...identity, ca: read("ca.pem"), requestCert: true, rejectUnauthorized: false }),
  createServer(),
];
const ports = [];
for (const server of servers) {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ports.push(server.address().port);
}

const own = new X509Certificate(read("self.pem"));
const selfSigned = {
  ...own.publicKey.export({ format: "jwk" }),
  use: "sig",
  kid: "self",
  x5c: [own.raw.toString("base64")],
};
const signing = { ...(await exportJWK((await generateKeyPair("ES256", { extractable: true })).privateKey)), alg: "ES256", use: "sig" };

const common = { client_secret: given.secret, redirect_uris: [], response_types: [], id_token_signed_response_alg: "ES256" };
const client = (method, more = {}) => ({
  ...common,
  client_id: method.replaceAll("_", "-"),
  token_endpoint_auth_method: method,
  grant_types: ["client_credentials"],
  ...more,
});
const SHARED = ["HS256", "HS384", "HS512"];
const signs = (method, alg, more) => client(method, { client_id: `alg-${alg}`, token_endpoint_auth_signing_alg: alg, ...more });
const bound = { tls_client_certificate_bound_access_tokens: true };
const clients = [
  client("client_secret_basic"),
  client("client_secret_post"),
  client("client_secret_jwt", { token_endpoint_auth_signing_alg: "HS256" }),
  client("private_key_jwt", { jwks: { keys: [given.keys.ES256] } }),
  client("tls_client_auth", { tls_client_auth_san_dns: "checkout.example", ...bound }),
  client("self_signed_tls_client_auth", { jwks: { keys: [selfSigned] }, ...bound }),
  ...Object.entries(given.keys).map(([alg, key]) => signs("private_key_jwt", alg, { jwks: { keys: [key] } })),
  ...SHARED.map((alg) => signs("client_secret_jwt", alg)),
  ...Array.from({ length: given.rotating ?? 0 }, (_, number) => ({
    ...client("client_secret_basic"),
    client_id: `rotating-${number}`,
    grant_types: ["refresh_token", "authorization_code"],
    response_types: ["code"],
    redirect_uris: ["https://localhost/callback"],
  })),
];

const resources = {
  "https://a.example": { accessTokenFormat: "jwt", accessTokenTTL: 2 },
  "https://b.example": { accessTokenFormat: "jwt", accessTokenTTL: 2 },
  "https://long.example": { accessTokenFormat: "jwt", accessTokenTTL: 3600 },
  "https://opaque.example": { accessTokenFormat: "opaque", accessTokenTTL: 3600 },
};
const mutual = `https://localhost:${ports[1]}`;
const provider = new Provider(`https://localhost:${ports[0]}`, {
  clients,
  clientAuthMethods: [...new Set(clients.map((client) => client.token_endpoint_auth_method))],
  enabledJWA: { clientAuthSigningAlgValues: [...Object.keys(given.keys), ...SHARED] },
  jwks: { keys: [signing] },
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  rotateRefreshToken: true,
  ttl: { AccessToken: 2, ClientCredentials: (_ctx, token) => token.resourceServer.accessTokenTTL, RefreshToken: 86400, Grant: 86400, IdToken: 60 },
  discovery: {
    mtls_endpoint_aliases: {
      token_endpoint: `${mutual}/token`,
      introspection_endpoint: `${mutual}/token/introspection`,
    },
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => ctx.req.socket.getPeerX509Certificate?.(),
      certificateAuthorized: (ctx) => ctx.req.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === "tls_client_auth_san_dns" &&
        ctx.req.socket.getPeerX509Certificate().subjectAltName === `DNS:${expected}`,
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: "orders.read",
        audience: resource,
        ...(resources[resource].accessTokenFormat === "jwt" && { jwt: { sign: { alg: "ES256" } } }),
        ...resources[resource],
      }),
    },
  },
});

const seen = [];
const note = (ctx, error) => {
  const { client, params } = ctx.oidc;
  const assertion = params?.client_assertion;
  const certificate = ctx.req.socket.getPeerX509Certificate?.();
  const shown = ctx.oidc.entities.RotatedRefreshToken ?? ctx.oidc.entities.RefreshToken;
  seen.push({
    at: Date.now(),
    client: client?.clientId,
    method: client?.clientAuthMethod,
    jti: assertion && decodeJwt(assertion).jti,
    thumbprint: certificate && createHash("sha256").update(certificate.raw).digest("base64url"),
    alg: assertion && decodeProtectedHeader(assertion).alg,
    grant: params?.grant_type,
    family: shown?.grantId,
    rotation: shown && (shown.rotations ?? 0),
    error: error && `${error.error}: ${error.error_detail ?? error.error_description}`,
  });
};
provider.on("grant.success", (ctx) => note(ctx));
provider.on("grant.error", note);

const handle = provider.callback();
servers[0].on("request", handle);
servers[1].on("request", handle);

async function refreshToken(id) {
  const scope = "openid offline_access";
  const grant = new provider.Grant({ accountId: "somebody", clientId: id });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const client = await provider.Client.find(id);
  const values = { client, grantId, scope, accountId: "somebody", gty: "authorization_code" };
  return await new provider.RefreshToken(values).save();
}

servers[2].on("request", async (request, response) => {
  const [path, value] = request.url.split("?");
  let told = "";
  if (path === "/seen") {
    told = JSON.stringify(seen);
  } else if (path === "/refresh-token") {
    told = await refreshToken(value);
  } else if (path === "/revoke") {
    await (await provider.ClientCredentials.find(value))?.destroy();
  }
  response.end(told);
});
console.log(`listening ${ports.join(" ")}`);
