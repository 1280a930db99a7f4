#!/bin/sh
# One image: generate.sh PROMPT FILE
set -eu
base=${CALOTYPE_BASE_URL:-http://127.0.0.1:8080}
auth="Authorization: Bearer $CALOTYPE_API_KEY"

# The key of this order: curl sends it again under the same one, so it is never bought twice.
order="order-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
task=$(jq -n --arg prompt "$1" '{model: "gpt-image-2", prompt: $prompt}' |
  curl -fsS --retry 5 --retry-connrefused --retry-all-errors "$base/v1/images/generations" \
    -H "$auth" -H 'Content-Type: application/json' -H "Idempotency-Key: $order" --data @- |
  jq -r .task_id)

# Each answer comes when the task is final, or after 30 seconds.
while :; do
  document=$(curl -fsS --retry 5 --retry-connrefused "$base/v1/tasks/$task?wait=30" -H "$auth")
  case $(printf %s "$document" | jq -r .state) in
    success) break ;;
    fail) printf %s "$document" | jq -r '.error.code + ": " + .error.message' >&2; exit 1 ;;
  esac
done

# The URL is signed and needs no key.
url=$(printf %s "$document" | jq -r '.result.data[0].url')
curl -fsS --retry 5 "$url" -o "$2"
echo "$2"
