// One image for each line of a file, up to 100 lines: node batch.ts PROMPTS FOLDER
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { call, finished, save, type Refusal, type Task } from "./client.ts";

const [prompts, folder] = process.argv.slice(2);
const lines = (await readFile(prompts, "utf8")).split("\n").filter((line) => line !== "");
const requests = lines.map((prompt) => ({
  model: "gpt-image-2",
  prompt,
  // Of what is asked for: the same file sent again buys nothing twice.
  idempotency_key: `batch-${createHash("sha256").update(prompt).digest("hex").slice(0, 32)}`,
}));
const { data } = await call<{ data: (Task | Refusal)[] }>("/v1/images/generations/batch", { requests });
for (const each of data) {
  // Each is accepted or refused on its own, and may still fail.
  if (!("task_id" in each)) {
    console.error(`${each.error.code}: ${each.error.message}`);
    continue;
  }
  const task = await finished(each.task_id);
  await save(task, `${folder}/${task.task_id}.png`).catch((error: Error) => console.error(error.message));
}
