-- GET of the paths of a file in turn, for wrk with one thread: wrk --threads 1 --script each.lua URL -- FILE START
local requests = {}
local position

function init(arguments)
  for path in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  position = tonumber(arguments[2])
end

function request()
  position = position % #requests + 1
  return requests[position]
end
