"""oidc-provider behind TLS with a client for each way of authentication (peers/issuer.mjs), and its certificates."""

import json
import subprocess
from pathlib import Path

from . import tools
from .http import get
from .process import Process
from .report import Check

# For Basic it holds what has to be encoded; for HS256 it is long enough.
SECRET = "p a b+c%d:e&f=g?h~j k%20l+0123456789"
# There is a client with a key for each, beside those for each way of authentication: `alg-RS256`, and `alg-HS384` with the secret.
ALGS = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
SHARED = ["HS256", "HS384", "HS512"]


def openssl(folder: Path, *arguments) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder: Path, name: str, host: str, signed: bool = True) -> None:
    """NAME.pem and NAME.key, of the authority or signed by itself."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n")
    by = ["-CA", "ca.pem", "-CAkey", "ca.key"] if signed else ["-signkey", f"{name}.key"]
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", *by, "-CAcreateserial", "-days", "2",
        "-extfile", f"{name}.ext", "-out", f"{name}.pem",
    )  # fmt: skip
    (folder / f"{name}.key").chmod(0o600)


class Issuer:
    """The provider, and what a suite wants of it."""

    def __init__(self, check: Check, rotating: int = 0):
        self.check, self.rotating = check, rotating
        self.folder = check.folder / "pki"

    async def start(self) -> "Issuer":
        self.folder.mkdir()
        openssl(
            self.folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        certificate(self.folder, "server", "localhost")
        certificate(self.folder, "client", "checkout.example")
        certificate(self.folder, "self", "self.example", signed=False)
        made = subprocess.run(["node", tools.PEERS / "key.mjs", *ALGS], check=True, capture_output=True, text=True).stdout
        keys = json.loads(made)
        for alg, key in keys.items():
            self._keep(f"{alg}.jwk", json.dumps(key["private"]))
            self._keep(f"{alg}.pem", key["pem"])
            self.check.secret(f"private part of the {alg} key", key["private"]["d"])
        public = {alg: key["public"] for alg, key in keys.items()}
        given = {"folder": str(self.folder), "secret": SECRET, "keys": public, "rotating": self.rotating}
        process = await Process(self.check, "issuer").start(
            "node", "--no-warnings", tools.PEERS / "issuer.mjs", json.dumps(given)
        )
        port, _, control = (await process.line(r"^listening (\d+) (\d+) (\d+)")).groups()
        self.url, self.control = f"https://localhost:{port}", ("127.0.0.1", int(control))
        return self

    def _keep(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o600)

    async def seen(self) -> list[dict]:
        """Every token request, as peers/issuer.mjs notes it."""
        return (await get(self.control, "/seen")).json()

    async def revoke(self, token: str) -> None:
        await get(self.control, f"/revoke?{token}")

    async def refresh_token(self, client: str) -> str:
        token = (await get(self.control, f"/refresh-token?{client}")).body.decode()
        return self.check.secret("refresh token", token)

    def credential(self, name: str, client: str, lines: str, kind: str = "client_credentials") -> str:
        return f"""
[credentials.{name}]
type = "{kind}"
issuer = "{self.url}"
client_id = "{client}"
ca_file = "{self.folder}/ca.pem"
{lines}
"""
