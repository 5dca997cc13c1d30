// Prints fresh keys, one for each algorithm: the public part as a JWK, the private one as a JWK and in PEM.
//
//   node key.mjs ES256 RS256
import { exportJWK, exportPKCS8, generateKeyPair } from "jose";

const keys = {};
for (const alg of process.argv.slice(2)) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const more = { alg, use: "sig", kid: `e2e-${alg}` };
  keys[alg] = {
    public: { ...(await exportJWK(publicKey)), ...more },
    private: { ...(await exportJWK(privateKey)), ...more },
    pem: await exportPKCS8(privateKey),
  };
}
console.log(JSON.stringify(keys));
