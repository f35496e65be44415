-- GET of paths drawn uniformly from a file: wrk --script uniform.lua URL -- FILE
local requests = {}
local thread = 0

function setup(worker)
  thread = thread + 1
  worker:set("seed", thread)
end

function init(arguments)
  for path in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  math.randomseed(os.time() + seed)
end

function request()
  return requests[math.random(#requests)]
end
