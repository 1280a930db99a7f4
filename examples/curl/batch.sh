#!/bin/sh
# One image for each line of a file, up to 100 lines: batch.sh PROMPTS FOLDER
set -eu
base=${CALOTYPE_BASE_URL:-http://127.0.0.1:8080}
auth="Authorization: Bearer $CALOTYPE_API_KEY"

# Each request has a key of its own, of what it asks for: the same file sent again buys nothing twice.
requests=$(while IFS= read -r prompt || [ -n "$prompt" ]; do  # the last line may have no end
  key="batch-$(printf %s "$prompt" | sha256sum | cut -c 1-32)"
  jq -n --arg prompt "$prompt" --arg key "$key" \
    '{model: "gpt-image-2", prompt: $prompt, idempotency_key: $key}'
done <"$1" | jq -s '{requests: .}')
answer=$(printf %s "$requests" |
  curl -fsS --retry 5 --retry-connrefused --retry-all-errors "$base/v1/images/generations/batch" \
    -H "$auth" -H 'Content-Type: application/json' --data @-)

# Each is accepted or refused on its own.
printf %s "$answer" | jq -r '.data[] | select(.error) | .error.code + ": " + .error.message' >&2
for task in $(printf %s "$answer" | jq -r '.data[] | select(.task_id) | .task_id'); do
  state=waiting
  until [ "$state" = success ] || [ "$state" = fail ]; do
    document=$(curl -fsS --retry 5 --retry-connrefused "$base/v1/tasks/$task?wait=30" -H "$auth")
    state=$(printf %s "$document" | jq -r .state)
  done
  if [ "$state" = fail ]; then
    printf %s "$document" | jq -r '.task_id + ": " + .error.code' >&2
  else
    curl -fsS --retry 5 "$(printf %s "$document" | jq -r '.result.data[0].url')" -o "$2/$task.png"
    echo "$2/$task.png"
  fi
done
