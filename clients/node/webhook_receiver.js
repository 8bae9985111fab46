// Fulfils orders: verifies the signature of each webhook and answers.
//
// The secret is taken from MINISHOP_WEBHOOK_SECRET. Each fulfilled order is one line of JSON on stdout.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.MINISHOP_WEBHOOK_SECRET);
const seen = new Set(); // a real receiver keeps the ids with its own data: an event may come more than once

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  let envelope;
  try {
    envelope = webhook.verify(Buffer.concat(parts).toString(), request.headers);
  } catch {
    return response.writeHead(401).end();
  }
  const webhookId = request.headers["webhook-id"];
  if (!seen.has(webhookId)) {
    seen.add(webhookId);
    console.log(JSON.stringify({ webhookId, orderId: envelope.data.orderId }));
  }
  response.writeHead(204).end();
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => {
  console.log(`ready http://127.0.0.1:${server.address().port}/orders`);
});
