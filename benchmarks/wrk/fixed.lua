-- One fixed request over and over; the figures as one line of JSON that benchmarks/load.py reads.
--
-- No `response` callback: it would hand every answer to Lua, and the load would be what is measured. wrk itself counts
-- statuses above 399 and faults of the socket; that a right answer is a 200 was checked before.
--
-- Arguments after `--`: the file with the body, then headers as "Name: value".

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   wrk.method = "POST"
   wrk.body = file:read("*a")
   file:close()
   for k = 2, #arguments do
      local name, value = arguments[k]:match("^([^:]+):%s*(.*)$")
      wrk.headers[name] = value
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\nFIGURES {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "connect": %d, "read": %d, '
         .. '"write": %d, "timeout": %d, "status": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status
   ))
end
