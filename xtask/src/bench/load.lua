-- A load for wrk. If there is an argument, it is sent as JSON by POST.

function init(args)
  if args[1] then
    wrk.method = "POST"
    wrk.body = args[1]
    wrk.headers["Content-Type"] = "application/json"
  end
end

-- Prints: requests, microseconds, answers other than 2xx and 3xx, failed connections, the 99th percentile in microseconds.
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("load: %d %d %d %d %d\n",
    summary.requests, summary.duration, errors.status, failed, latency:percentile(99)))
end
