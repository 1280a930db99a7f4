// A receiver of webhooks: WEBHOOK_SECRET=whsec_… node receiver.ts PORT
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

const secret = Buffer.from(process.env.WEBHOOK_SECRET!.replace("whsec_", ""), "base64");
const seen = new Set<string>(); // in a real receiver: a table

/** Whether one of the signatures is ours, of these very bytes, and of just now. */
function isGenuine(body: Buffer, headers: IncomingHttpHeaders): boolean {
  const [id, time] = [`${headers["webhook-id"]}`, `${headers["webhook-timestamp"]}`];
  if (!(Math.abs(Date.now() / 1000 - Number(time)) < 300)) return false;
  const ours = createHmac("sha256", secret).update(`${id}.${time}.`).update(body).digest();
  return `${headers["webhook-signature"]}`.split(" ").some((signature) => {
    const theirs = Buffer.from(signature.replace("v1,", ""), "base64");
    return signature.startsWith("v1,") && theirs.length === ours.length && timingSafeEqual(theirs, ours);
  });
}

const server = createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray());
  if (!isGenuine(body, request.headers)) {
    response.writeHead(401).end();
    return;
  }
  const id = `${request.headers["webhook-id"]}`;
  if (!seen.has(id)) {
    seen.add(id);
    const task = JSON.parse(body.toString());
    const urls = (task.result?.data ?? []).map((image: { url: string }) => image.url);
    console.log(task.event, task.task_id, ...urls);
  }
  response.writeHead(204).end();
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
});
