// What the examples share: calls that are repeated safely, waiting, and downloads.
import { writeFile } from "node:fs/promises";

const base = process.env.CALOTYPE_BASE_URL ?? "http://127.0.0.1:8080";
const key = process.env.CALOTYPE_API_KEY;

export interface Task {
  task_id: string;
  state: "waiting" | "queuing" | "generating" | "success" | "fail";
  result: { data?: { url: string }[] };
  error?: { code: string; message: string };
}

export interface Refusal {
  error: { code: string; message: string };
}

/** A JSON call, tried again while the server cannot be reached or is busy. */
export async function call<T>(path: string, body?: unknown, idempotencyKey?: string): Promise<T> {
  for (let tries = 1; ; tries++) {
    const answer = await fetch(base + path, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        Authorization: `Bearer ${key}`,
        "Content-Type": "application/json",
        ...(idempotencyKey && { "Idempotency-Key": idempotencyKey }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    }).catch((error: unknown) => {
      if (tries === 5) throw error;
    });
    if (answer?.ok) return (await answer.json()) as T;
    if (tries === 5 || (answer && ![429, 502, 503, 504].includes(answer.status))) {
      throw new Error(`${answer?.status}: ${await answer?.text()}`);
    }
    const seconds = Number(answer?.headers.get("Retry-After") ?? tries);
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
}

/** The task once it is final; each answer comes then, or after 30 seconds. */
export async function finished(taskId: string): Promise<Task> {
  for (;;) {
    const task = await call<Task>(`/v1/tasks/${taskId}?wait=30`);
    if (task.state === "success" || task.state === "fail") return task;
  }
}

/** Write the first image of a task that succeeded; its URL is signed and needs no key. */
export async function save(task: Task, file: string): Promise<void> {
  const [image] = task.result.data ?? [];
  if (!image) throw new Error(`${task.error?.code}: ${task.error?.message}`);
  const answer = await fetch(image.url);
  if (!answer.ok || !answer.body) throw new Error(`The image answered ${answer.status}.`);
  await writeFile(file, answer.body);
  console.log(file);
}
