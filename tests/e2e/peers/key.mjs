// Prints a fresh private key as a JWK.
import { exportJWK, generateKeyPair } from "jose";

const { privateKey } = await generateKeyPair("ES256", { extractable: true });
console.log(JSON.stringify({ ...(await exportJWK(privateKey)), alg: "ES256", use: "sig", kid: "e2e" }));
