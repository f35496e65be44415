-- GET of paths drawn uniformly from a file, with POST /items or PATCH of one of the paths among them:
-- wrk --threads 1 --script mixed_items.lua URL -- FILE POST|PATCH SHARE_OF_WRITES [count]
-- With count it prints the share of hits among the answers that say hit or miss.
local reads, writes = {}, {}
local json = {["Content-Type"] = "application/json"}
local counting

function setup(thread)
  counting = thread
end

function init(arguments)
  local method, share = arguments[2], tonumber(arguments[3])
  for path in io.lines(arguments[1]) do
    reads[#reads + 1] = wrk.format("GET", path)
    if method == "PATCH" then
      writes[#writes + 1] = wrk.format(method, path, json, '{"description":"z"}')
    end
  end
  if method == "POST" then
    writes[1] = wrk.format(method, "/items", json, '{"name":"x","description":"y"}')
  end

  function request()
    if math.random() < share then
      return writes[math.random(#writes)]
    end
    return reads[math.random(#reads)]
  end

  if arguments[4] == "count" then
    hits, misses = 0, 0

    function response(status, headers)
      local cache = headers["x-cache"]
      if cache == "hit" then
        hits = hits + 1
      elseif cache == "miss" then
        misses = misses + 1
      end
    end
  end
end

function done()
  local found = counting:get("hits")
  if found then
    print("Hits: " .. found / (found + counting:get("misses")))
  end
end
