-- What wrk sends, from the environment: one body to one path, or GETs of the paths in a file in turn.
local key, body, file = os.getenv("BENCH_KEY"), os.getenv("BENCH_BODY"), os.getenv("BENCH_PATHS")
wrk.headers["Authorization"] = "Bearer " .. key
if body then
  wrk.method, wrk.path, wrk.body = "POST", os.getenv("BENCH_PATH"), body
  wrk.headers["Content-Type"] = "application/json"
else
  local requests, at = {}, 0
  init = function()
    for path in io.lines(file) do requests[#requests + 1] = wrk.format("GET", path) end
  end
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end
done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'JSON {"per_second":%.3f,"p50_ms":%.4f,"p99_ms":%.4f,"finished":%d,"bad":%d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.requests,     errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
