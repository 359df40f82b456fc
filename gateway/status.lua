-- The first hand on a request, and the last on a response.
--
-- Requests: the query of a proxy path is the provider's, and may hold its key. The transcoder would bind some of it to fields and drop
-- the rest, so it goes to the server whole, as a header, and the path goes on without it.
--
-- The transcoder knows no HEAD. It is told GET, and what then comes as a body is dropped here: Envoy would write it to an HTTP/1.1
-- caller, who takes it for the next response. The proxies take POST alone.
--
-- The transcoder would take the name of a path under /api/v1/chat for the id of a chat where the path knows no such method: it is told
-- here that there is nothing, which the listener's local replies turn into the dialect's 405.
--
-- Responses: gRPC has no status for 201, 402, 422 or 502, so a server that wants one says it in the metadata
-- `x-http-status`; and what only concerns gRPC has no place in a response to a REST caller. Responses to gRPC callers pass
-- untouched. This filter stands before the transcoder in the list, so that it sees responses after it.

local GRPC_ONLY = {
  "grpc-status",
  "grpc-message",
  "grpc-status-details-bin",
  "grpc-encoding",
  "grpc-accept-encoding",
  "grpc-internal-encoding-request",
}

local PROXY = "/api/v1/proxy/"
local QUERY = "x-antiphon-query"

local HEAD = "antiphon.head"

local CHAT = "/api/v1/chat/"
local NAMES = {completions = true, generate = true, new = true, fork = true, history = true}

-- Whether it is one of the names, with a method that only chats have.
local function is_no_chat(method, path)
  if (method ~= "DELETE" and method ~= "PATCH") or path:sub(1, #CHAT) ~= CHAT then
    return false
  end
  return NAMES[path:match("^[^?]*", #CHAT + 1)] == true
end

-- Headers of a REST caller that the gRPC server would refuse, or take for its own.
local function drop_odd(headers)
  local odd = {}
  for name, _ in pairs(headers) do
    if name:find("^grpc%-[^t]") or name:find("%-bin$") or name:find("[^a-z0-9_.:-]") then
      odd[#odd + 1] = name
    end
  end
  for _, name in ipairs(odd) do
    headers:remove(name)
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local timeout = headers:get("grpc-timeout")
  if headers:get("content-type") ~= "application/grpc" then
    drop_odd(headers)
  end
  if timeout ~= nil and not timeout:match("^0*[1-9]%d*[HMSmun]$") and headers:get("content-type") ~= "application/grpc" then
    -- A REST caller's deadline, as gRPC writes it: 30S. The server would answer in words that no dialect has.
    handle:respond({[":status"] = "400"}, "The header grpc-timeout must be a whole number and a unit, as in 30S.")
    return
  end
  local path = headers:get(":path")
  if path == nil then
    return
  end
  if headers:get(":method") == "HEAD" and path:sub(1, #PROXY) ~= PROXY then
    headers:replace(":method", "GET")
    handle:streamInfo():dynamicMetadata():set(HEAD, "is", true)
  end
  if is_no_chat(headers:get(":method"), path) then
    handle:respond({[":status"] = "404"}, "")
    return
  end
  if path:sub(1, #PROXY) ~= PROXY then
    return
  end
  headers:remove(QUERY)
  local mark = path:find("?", 1, true)
  if mark ~= nil then
    headers:replace(QUERY, path:sub(mark + 1))
    headers:replace(":path", path:sub(1, mark - 1))
  end
end

local function strip(fields)
  for _, name in ipairs(GRPC_ONLY) do
    fields:remove(name)
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type")
  if content_type ~= nil and content_type:sub(1, 16) == "application/grpc" then
    return
  end
  local status = headers:get("x-http-status")
  if status ~= nil then
    headers:remove("x-http-status")
    if status:match("^[2-5]%d%d$") then
      headers:replace(":status", status)
    end
  end
  strip(headers)
  if content_type ~= nil and (content_type:sub(1, 17) == "text/event-stream" or content_type:sub(1, 10) == "text/plain") then
    -- What stands between must neither keep nor gather a stream.
    headers:replace("cache-control", "no-cache")
    headers:replace("x-accel-buffering", "no")
  end
  -- From here on the headers are on their way.
  if handle:streamInfo():dynamicMetadata():get(HEAD) ~= nil then
    for chunk in handle:bodyChunks() do
      chunk:setBytes("")
    end
  end
  -- HTTP/1 callers get no trailers from Envoy; HTTP/2 callers would get the gRPC ones.
  if handle:streamInfo():protocol():sub(1, 6) ~= "HTTP/1" then
    local trailers = handle:trailers()
    if trailers ~= nil then
      strip(trailers)
    end
  end
end
