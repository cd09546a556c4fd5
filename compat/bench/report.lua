-- wrk script: one machine-readable line at the end; requests stay wrk's static ones.
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    "\nBENCH %d %d %.1f %.1f %d %d\n",
    summary.requests, summary.duration,
    latency:percentile(50.0), latency:percentile(99.0),
    e.connect + e.read + e.write + e.timeout, e.status))
end
