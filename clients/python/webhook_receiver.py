"""Fulfils orders: verifies the signature of each webhook and answers. Run it by clients/python/run.

The secret is taken from MINISHOP_WEBHOOK_SECRET. Each fulfilled order is one line of JSON on stdout.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(os.environ["MINISHOP_WEBHOOK_SECRET"])
SEEN: set[str] = set()  # a real receiver keeps the ids with its own data: an event may come more than once


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            envelope = WEBHOOK.verify(body, dict(self.headers))
        except WebhookVerificationError:
            return self.answer(401)
        event_id = self.headers["webhook-id"]
        if event_id not in SEEN:
            SEEN.add(event_id)
            print(json.dumps({"webhookId": event_id, "orderId": envelope["data"]["orderId"]}), flush=True)
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keeps stdout and stderr for what was fulfilled."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Receiver)
    print(f"ready http://127.0.0.1:{server.server_port}/orders", flush=True)
    server.serve_forever()
