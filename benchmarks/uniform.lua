-- GET /items/{id} for ids drawn uniformly from a file: wrk --script uniform.lua URL -- FILE
local ids = {}

function init(arguments)
  for id in io.lines(arguments[1]) do
    ids[#ids + 1] = "/items/" .. id
  end
  math.randomseed(os.time() + tonumber(tostring({}):match("0x(%x+)"), 16) % 100000)
end

function request()
  return wrk.format("GET", ids[math.random(#ids)])
end
