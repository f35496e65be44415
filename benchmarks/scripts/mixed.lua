-- GET /items and POST /items, decided by chance: wrk --script mixed.lua URL -- SHARE_OF_WRITES
local share, read, write

function init(arguments)
  share = tonumber(arguments[1])
  read = wrk.format("GET", "/items")
  write = wrk.format("POST", "/items", {["Content-Type"] = "application/json"}, '{"name":"x","description":"y"}')
end

function request()
  if math.random() < share then
    return write
  end
  return read
end
