// One image: node generate.ts PROMPT FILE
import { randomUUID } from "node:crypto";
import { call, finished, save, type Task } from "./client.ts";

const [prompt, file] = process.argv.slice(2);
// The key of this order: it is sent again under the same one, so it is never bought twice.
const request = { model: "gpt-image-2", prompt };
const accepted = await call<Task>("/v1/images/generations", request, randomUUID());
await save(await finished(accepted.task_id), file);
