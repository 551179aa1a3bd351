-- Requests that are made beforehand, in turn, and one line of JSON at the end. REQUESTS names a file: a path in each line,
-- and a token behind it where there is one.
local requests, turn = {}, 0

function init()
  for line in io.lines(os.getenv("REQUESTS")) do
    local path, token = line:match("^(%S+) ?(%S*)$")
    local headers = { ["Host"] = "localhost" }
    if token ~= "" then headers["Authorization"] = "Bearer " .. token end
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "errors": %d, "seconds": %f, "bytes": %d, "p50": %d, "p99": %d, "p999": %d}\n',
    summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.duration / 1e6, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
