-- Sends GETs of paths drawn uniformly from a file, and prints what was measured as one line of JSON.
-- wrk --script wrk.lua URL -- FILE CONNECTIONS_OF_A_THREAD SECONDS_OF_AN_INTERVAL QUANTILES
local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long seconds; long nanoseconds; } loadtest_time;
  int clock_gettime(int clock, loadtest_time *time);
]])
local REALTIME = 0
local time = ffi.new("loadtest_time")

local function now()
  ffi.C.clock_gettime(REALTIME, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local requests = {}
local opening
local began
-- Global, because done() asks each thread for it.
counts = {}

function init(arguments)
  for path in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  opening = tonumber(arguments[2])
  interval = tonumber(arguments[3])
  quantiles = tonumber(arguments[4])
  now()
  math.randomseed(tonumber(time.nanoseconds))
end

-- A connection asks for its next request when an answer came, so this counts answers. A response() would count them
-- too, and would cost much more: wrk then hands every header and body to Lua.
function request()
  local moment = now()
  began = began or moment
  if opening > 0 then
    opening = opening - 1
  else
    local number = math.floor((moment - began) / interval) + 1
    counts[number] = (counts[number] or 0) + 1
  end
  return requests[math.random(#requests)]
end

local function list(length, value)
  local values = {}
  for number = 1, length do
    values[number] = string.format("%.0f", value(number))
  end
  return "[" .. table.concat(values, ",") .. "]"
end

function done(summary, latency)
  local all = {}
  for _, thread in ipairs(threads) do
    for number, count in pairs(thread:get("counts")) do
      all[number] = (all[number] or 0) + count
    end
  end
  local quantiles = threads[1]:get("quantiles")
  local complete = math.floor(summary.duration / 1e6 / threads[1]:get("interval"))
  local errors = summary.errors
  io.write(
    string.format(
      '{"microseconds":%d,"requests":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,',
      summary.duration, summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout
    ),
    string.format(
      '"p50":%d,"p90":%d,"p99":%d,"p99.9":%d,"slowest":%d,',
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max
    ),
    '"counts":', list(complete, function(number) return all[number] or 0 end),
    ',"quantiles":', list(quantiles, function(number) return latency:percentile((number - 0.5) * 100 / quantiles) end),
    "}\n"
  )
end
