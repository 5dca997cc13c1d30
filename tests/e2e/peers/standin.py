"""A provider, an upstream and a DNS server on the fixed ports of a network namespace of their own (for the Docker suite).

Names under `dns.test` are 127.0.0.1 in DNS. Prints `listening`, then one line a request.
"""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "standin-access-token-5f1d7c"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        print(f"token request to {self.headers['host']}", flush=True)
        body = f'{{"access_token": "{TOKEN}", "token_type": "Bearer", "expires_in": 600}}'
        self.answer(200, body.encode(), "application/json")

    def do_GET(self):
        right = self.headers.get_all("authorization") == [f"Bearer {TOKEN}"]
        print(f"request to {self.headers['host']}, token {'right' if right else 'wrong'}", flush=True)
        self.answer(200 if right else 401, b"hello from the upstream\n", "text/plain")

    def log_message(self, *_):
        pass


def names():
    """Answers A questions for *.dns.test, says that nothing else exists."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        question, caller = server.recvfrom(512)
        end, labels = 12, []
        while length := question[end]:
            labels.append(question[end + 1 : end + 1 + length].decode())
            end += length + 1
        end += 5
        kind = int.from_bytes(question[end - 4 : end - 2], "big")
        known = ".".join(labels).lower().endswith("dns.test")
        found = known and kind == 1
        print(f"DNS question {kind} for {'.'.join(labels)}", flush=True)
        head = question[:2] + (b"\x85\x80" if known else b"\x85\x83") + b"\0\1" + (b"\0\1" if found else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if found else b""
        server.sendto(head + question[12:end] + record, caller)


threading.Thread(target=names, daemon=True).start()
http = ThreadingHTTPServer(("127.0.0.1", 8080), Handler)
print("listening", flush=True)
http.serve_forever()
