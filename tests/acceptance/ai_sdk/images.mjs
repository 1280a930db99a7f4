// One call of the AI SDK: options as JSON on stdin, what came of it as JSON on stdout.
import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";
import { text } from "node:stream/consumers";

const { baseURL, apiKey, model, references, prompt, ...options } = JSON.parse(
  await text(process.stdin),
);
const openai = createOpenAI({ baseURL, apiKey });

function told(error) {
  const last = error.lastError ?? error;
  return {
    name: error.name,
    message: last.message,
    status: last.statusCode,
    retryable: last.isRetryable,
    body: last.responseBody,
  };
}

let outcome;
try {
  const { images, warnings, providerMetadata } = await generateImage({
    model: openai.image(model),
    prompt: references ? { text: prompt, images: references } : prompt,
    ...options,
  });
  outcome = {
    images: images.map(({ base64, mediaType }) => ({ base64, mediaType })),
    warnings,
    metadata: providerMetadata.openai.images,
  };
} catch (error) {
  outcome = { error: told(error) };
}
process.stdout.write(JSON.stringify(outcome));
