-- The first hand on a request, and the last on a response.
--
-- Requests: what is no good for any dialect ends here, in the shape of the dialect, which the listener's local replies give it: too
-- many headers, a path that can be read in two ways, two hosts, a body that is compressed.
--
-- The query of a proxy path is the provider's, and may hold its key. The transcoder would bind some of it to fields and drop
-- the rest, so it goes to the server whole, as a header, and the path goes on without it. All other paths go on without theirs, but
-- for those that have a query of their own: the transcoder would bind it after what stands in the path, and have it win.
--
-- GET, HEAD and DELETE have no body: the transcoder would read one as fields of the request, and have them win, too.
--
-- The transcoder knows no HEAD. It is told GET, and what then comes as a body is dropped here: Envoy would write it to an HTTP/1.1
-- caller, who takes it for the next response. The proxies take POST alone.
--
-- The transcoder would take a path such as /api/v1/chat/history for a chat whose id is `history` where the path knows no such method: it
-- is told here that there is nothing, which the listener's local replies turn into the dialect's 405.
--
-- The transcoder sends the head of a call on at once, and the server judges the key by it, before there is a body to hold. Only the
-- engine's chats may have their key in the body: without one in the headers, the body has to be small, and is awaited here.
--
-- Responses: gRPC has no status for 201, 402, 422 or 502, so a server that wants one says it in the metadata
-- `x-http-status`; and what only concerns gRPC has no place in a response to a REST caller. Responses to gRPC callers pass
-- untouched. This filter stands before the transcoder in the list, so that it sees responses after it.
--
-- Where Envoy has no server to send a call to, others may have one: the listener's local replies mark such a 503, and the connection
-- on which it goes out takes no more calls (`connection: close`, or GOAWAY), so that the caller's next one may come to another Envoy.

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

local LEAVE = "x-antiphon-leave"

local HEAD = "antiphon.head"
local REFUSED = "antiphon.refused"

-- The server knows by it that the message will come as a whole, and that nothing of it is held there before.
local WHOLE = "x-antiphon-whole"

local ENGINE_CHAT = "/api/engine/chat/"
-- The most bytes of a body that holds its key itself: MAX_KEYLESS_BYTES of the server, and the listener's buffer limit.
local WITH_KEY = 256 * 1024
local NO_KEY = 'A request of more than 256 KiB, or of unknown length, needs its key as "Authorization: Bearer <key>".'

-- By method, the paths that do not have it, but that the transcoder would take for a path with a variable which has it.
local NAMES = {
  -- >>> names of the dialects: made by `make proto` of server/antiphon/rest/registry.py, not by hand
  DELETE = {
    ["/api/v1/chat/completions"] = true,
    ["/api/v1/chat/fork"] = true,
    ["/api/v1/chat/generate"] = true,
    ["/api/v1/chat/history"] = true,
    ["/api/v1/chat/new"] = true,
  },
  PATCH = {
    ["/api/v1/chat/completions"] = true,
    ["/api/v1/chat/fork"] = true,
    ["/api/v1/chat/generate"] = true,
    ["/api/v1/chat/history"] = true,
    ["/api/v1/chat/new"] = true,
  },
  -- <<<
}

-- The paths that have a query of their own. None of them has a variable, which the query could override.
local QUERIED = {
  -- >>> queries of the dialects: made by `make proto` of server/antiphon/rest/registry.py, not by hand
  ["/api/v1/chat/generate"] = true,
  ["/api/v1/chat/generate/stream"] = true,
  ["/api/v1/chat/history"] = true,
  ["/api/engine/models"] = true,
  ["/api/engine/parameters"] = true,
  -- <<<
}

-- The media types of answers that come piece by piece.
local STREAMS = {
  -- >>> streams of the dialects: made by `make proto` of server/antiphon/rest/registry.py, not by hand
  ["text/event-stream"] = true,
  ["text/plain"] = true,
  -- <<<
}

local BODILESS = {GET = true, HEAD = true, DELETE = true}

-- A caller may have 100 headers of 60 KiB. Eight come beside them: four that are the request line, and x-request-id,
-- x-forwarded-for, x-forwarded-proto and x-envoy-external-address, which Envoy makes. Envoy itself takes more of both (see
-- listeners.yaml), as what goes beyond its own bounds is refused in no dialect's shape.
local MOST_HEADERS = 100 + 8
local MOST_BYTES = 60 * 1024

-- The status for headers that are refused, if they are. Drops headers of a REST caller that the gRPC server would refuse, or take
-- for its own.
local function check(headers, rest)
  local count, bytes, odd, encoded = 0, 0, nil, false
  for name, value in pairs(headers) do
    count = count + 1
    bytes = bytes + #name + #value
    if rest then
      if name:find("^grpc%-[^t]") or name:find("%-bin$") or name:find("[^a-z0-9_.:-]") then
        odd = odd or {}
        odd[#odd + 1] = name
      elseif name == "content-encoding" and value:lower():gsub("identity", ""):find("[^%s,]") then
        encoded = true
      end
    end
  end
  if count > MOST_HEADERS or bytes > MOST_BYTES then
    return "431"
  end
  for _, name in ipairs(odd or {}) do
    headers:remove(name)
  end
  if encoded and not BODILESS[headers:get(":method")] then
    return "415"
  end
end

-- Whether others on the way could take the path for another one: a backslash, a dot segment, a NUL. `path` is without its query.
local function is_ambiguous(path)
  if path:find("\\", 1, true) or path:find("%00", 1, true) then
    return true
  end
  if not path:find("/[.%%]") then
    return false
  end
  for segment in path:gmatch("[^/]+") do
    segment = segment:gsub("%%2[eE]", ".")
    if segment == "." or segment == ".." then
      return true
    end
  end
  return false
end

-- As the gRPC protocol has it: with or without the name of a message format. Its servers take parameters too, which Envoy does not
-- know: they go. `application/grpc-web` is another protocol.
local function is_grpc(headers)
  local content_type = headers:get("content-type")
  if content_type == nil or content_type:sub(1, 16) ~= "application/grpc" then
    return false
  end
  local after = content_type:sub(17, 17)
  if after == ";" then
    headers:replace("content-type", "application/grpc")
  end
  return after == "" or after == "+" or after == ";"
end

-- Ends a request that is at fault; the listener's local replies find the reason.
local function refuse(handle, reason, status)
  handle:streamInfo():dynamicMetadata():set(REFUSED, "reason", reason)
  handle:respond({[":status"] = status or "400"}, reason)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local rest = not is_grpc(headers)
  local status = check(headers, rest)
  if status == "431" then
    -- A gRPC caller is told RESOURCE_EXHAUSTED.
    handle:respond({[":status"] = "431", ["grpc-status"] = not rest and "8" or nil}, "")
    return
  end
  if status ~= nil then
    handle:respond({[":status"] = status, ["accept-encoding"] = "identity"}, "")
    return
  end
  local timeout = headers:get("grpc-timeout")
  if timeout ~= nil and rest and not timeout:match("^0*[1-9]%d*[HMSmun]$") then
    -- A REST caller's deadline, as gRPC writes it: 30S. The server would answer in words that no dialect has.
    refuse(handle, "The header grpc-timeout must be a whole number and a unit, as in 30S.")
    return
  end
  local path = headers:get(":path")
  if path == nil then
    return
  end
  if path == "/healthz" then
    -- Envoy is alive: the listener's local replies say so. /readyz is the health check filter's.
    handle:respond({[":status"] = "200"}, "")
    return
  end
  local query
  local mark = path:find("?", 1, true)
  if mark ~= nil then
    path, query = path:sub(1, mark - 1), path:sub(mark + 1)
  end
  if is_ambiguous(path) then
    refuse(handle, "The path must have no backslash, dot segment or NUL.")
    return
  end
  -- Two of them, which Envoy joins.
  if (headers:get(":authority") or ""):find(",", 1, true) then
    refuse(handle, "There must be one host.")
    return
  end
  if not rest then
    headers:remove(WHOLE)
    return
  end
  headers:replace(WHOLE, "1")
  local method = headers:get(":method")
  local names = NAMES[method]
  if names ~= nil and names[path] then
    handle:respond({[":status"] = "404"}, "")
    return
  end
  if path:sub(1, #PROXY) == PROXY then
    headers:remove(QUERY)
    if query ~= nil then
      headers:replace(QUERY, query)
      headers:replace(":path", path)
    end
  else
    if query ~= nil and not QUERIED[path:match("^(.-)/*$")] then
      headers:replace(":path", path)
    end
    if method == "HEAD" then
      headers:replace(":method", "GET")
      handle:streamInfo():dynamicMetadata():set(HEAD, "is", true)
    end
  end
  if method == "POST" and path:sub(1, #ENGINE_CHAT) == ENGINE_CHAT and (headers:get("authorization") or "") == "" then
    local length = headers:get("content-length")
    length = tonumber(length)
    if length == nil or length > WITH_KEY then
      refuse(handle, NO_KEY, "401")
      return
    end
    handle:body()  -- waits until it is whole
    return
  end
  -- From here on the headers are on their way.
  if BODILESS[method] then
    for chunk in handle:bodyChunks() do
      chunk:setBytes("")
    end
  end
end

local function strip(fields)
  for _, name in ipairs(GRPC_ONLY) do
    fields:remove(name)
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(LEAVE) ~= nil then
    headers:remove(LEAVE)
    handle:streamInfo():drainConnectionUponCompletion()
  end
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
  if content_type ~= nil and STREAMS[content_type:match("^[^;%s]*")] then
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
