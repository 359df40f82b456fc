-- The first filter for a request, and the last for a response.
--
-- Requests that no dialect accepts are refused here: too many headers, an ambiguous path, two hosts, a compressed body. The
-- listener's local replies give the refusal the shape of the dialect.
--
-- A caller's own request id is kept if it has 1 to 128 visible ASCII characters, the same rule as in the server. Any other is cut to that
-- length, and gets "_" for other characters. Envoy makes an id for a request without. So the server's log, Envoy's log and the caller have
-- the same id.
--
-- The query of a proxy path belongs to the provider, and may contain its key. The transcoder would bind some of it to fields and
-- drop the rest, so the whole query goes to the server as a header, and is removed from the path. On all other paths the query is
-- dropped, except on those that have parameters: the transcoder would let it override the variables of the path.
--
-- A body of GET, HEAD or DELETE is dropped: the transcoder would read it as fields of the request, and let it override them, too.
--
-- The transcoder does not know HEAD, so it gets GET, and the body of the answer is dropped here: Envoy would write it to an HTTP/1.1
-- caller, who would take it for the next response. The proxy paths accept only POST.
--
-- Where a path such as /api/v1/chat/history does not have the method, the transcoder would take it for a chat with the id `history`.
-- So this filter answers 404, which the listener's local replies turn into the dialect's 405.
--
-- The transcoder sends the head of a call on at once, and the server checks the key before the body is buffered. Only the engine's
-- chats may have their key in the body: without a key in the headers, the body must be small, and this filter waits for it.
--
-- Responses: the server adds headers to the content type of its first message, each as a tab and "name:value"; no header of gRPC has a
-- tab. gRPC has no status for 201, 402, 422 or 502, so the server sends such a status in the header `x-http-status`. Fields that only
-- concern gRPC are removed from responses to REST callers. Responses to gRPC callers are not changed. This filter is before
-- the transcoder in the list, so it sees responses after the transcoder.
--
-- If Envoy has no server for a call, another Envoy may have one. The listener's local replies mark such a 503, and its connection is
-- closed (`connection: close`, or GOAWAY), so that the caller's next call may reach another Envoy.

-- Nearly all of this filter is calls of Envoy, which LuaJIT's compiler cannot compile: its attempts cost more than the interpreter.
jit.off()

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

local ID = "x-request-id"
local LONGEST_ID = 128

local HEAD = "antiphon.head"
local REFUSED = "antiphon.refused"

-- Says to the server that the message will arrive complete, so that the server buffers no part of it before, and that this filter takes
-- the headers of the response out of its content type.
local EDGE = "x-antiphon-edge"

-- A REST caller's `grpc-timeout`. gRPC itself would end the call at its deadline if the server is busy: without the dialect's error, and
-- a stream as if it were complete. Under this name the server ends it. It believes the header only beside EDGE.
local DEADLINE = "x-antiphon-timeout"

local ENGINE_CHAT = "/api/engine/chat/"
-- The largest body, in bytes, that may contain the key: as MAX_KEYLESS_BYTES of the server, and the listener's buffer limit.
local WITH_KEY = 256 * 1024
local NO_KEY = 'A request of more than 256 KiB, or of unknown length, needs its key as "Authorization: Bearer <key>".'

-- By method: the paths without that method that the transcoder would take for a path with a variable, which has it.
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

-- The paths with query parameters. None of them has a variable that the query could override.
local QUERIED = {
  -- >>> queries of the dialects: made by `make proto` of server/antiphon/rest/registry.py, not by hand
  ["/api/v1/chat/generate"] = true,
  ["/api/v1/chat/generate/stream"] = true,
  ["/api/v1/chat/history"] = true,
  ["/api/engine/models"] = true,
  ["/api/engine/parameters"] = true,
  -- <<<
}

-- The media types of streamed answers.
local STREAMS = {
  -- >>> streams of the dialects: made by `make proto` of server/antiphon/rest/registry.py, not by hand
  ["text/event-stream"] = true,
  ["text/plain"] = true,
  -- <<<
}

local BODILESS = {GET = true, HEAD = true, DELETE = true}

-- A caller may send 100 headers of 60 KiB together. Eight more are added: four for the request line, and x-request-id,
-- x-forwarded-for, x-forwarded-proto and x-envoy-external-address, which Envoy adds. Envoy's own limits are higher (see
-- listeners.yaml), as a refusal by those has the shape of no dialect.
local MOST_HEADERS = 100 + 8
local MOST_BYTES = 60 * 1024

-- What a header's name says: nothing (PLAIN), that the server would refuse it, or take it for a header of gRPC or of this filter (ODD), or
-- that this filter reads the value (the others).
local PLAIN, ODD, PATH, METHOD, HOST, TYPE, ENCODING, TIMEOUT, REQUEST_ID = 1, 2, 3, 4, 5, 6, 7, 8, 9
local READ = {
  [":path"] = PATH,
  [":method"] = METHOD,
  [":authority"] = HOST,
  ["content-type"] = TYPE,
  ["content-encoding"] = ENCODING,
  ["grpc-timeout"] = TIMEOUT,
  [DEADLINE] = ODD,
  [ID] = REQUEST_ID,
}

-- Callers send the same few names again and again, and patterns cost most of this filter's time, so the kinds of names are kept. What a
-- caller can make this remember is bounded: by names, each of at most so many bytes.
local MOST_KINDS, LONGEST_KIND = 1000, 64
local kinds, kept = {}, MOST_KINDS

local function kind_of(name)
  local kind = READ[name]
  if kind == nil then
    kind = (name:find("^grpc%-[^t]") or name:find("%-bin$") or name:find("[^a-z0-9_.:-]")) and ODD or PLAIN
  end
  if #name <= LONGEST_KIND then
    if kept == MOST_KINDS then
      kinds, kept = {}, 0
    end
    kinds[name] = kind
    kept = kept + 1
  end
  return kind
end

-- Joins the values of a header that is there twice, as `headers:get` does.
local function joined(first, value)
  return first == nil and value or first .. "," .. value
end

-- Returns true if another program could read the path differently: a backslash, a dot segment or a NUL. `path` has no query.
local function is_ambiguous(path)
  if path:find("\\", 1, true) or path:find("%00", 1, true) then
    return true
  end
  if not (path:find("/.", 1, true) or path:find("/%", 1, true)) then
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

-- Returns true for the content types of the gRPC protocol, with or without the name of a message format. Parameters are removed:
-- gRPC servers accept them, but Envoy does not. `application/grpc-web` is another protocol.
local function is_grpc(headers, content_type)
  if content_type == nil or content_type:sub(1, 16) ~= "application/grpc" then
    return false
  end
  local after = content_type:sub(17, 17)
  if after == ";" then
    headers:replace("content-type", "application/grpc")
  end
  return after == "" or after == "+" or after == ";"
end

-- Returns the id with `_` for what is not visible ASCII, and without what is too long. An empty one becomes the time.
local function valid_id(handle, id)
  id = id:sub(1, LONGEST_ID):gsub("[^!-~]", "_")
  return id ~= "" and id or handle:timestampString(EnvoyTimestampResolution.MICROSECOND)
end

-- Refuses a request. The listener's local replies read the reason from the metadata.
local function refuse(handle, reason, status)
  handle:streamInfo():dynamicMetadata():set(REFUSED, "reason", reason)
  handle:respond({[":status"] = status or "400"}, reason)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  -- One pass reads all that is needed, as each call of Envoy from here costs as much as many lines.
  local count, bytes = 0, 0
  local path, method, host, content_type, encoding, timeout, id, odd
  for name, value in pairs(headers) do
    count = count + 1
    bytes = bytes + #name + #value
    local kind = kinds[name] or kind_of(name)
    if kind ~= PLAIN then
      if kind == ODD then
        odd = odd or {}
        odd[#odd + 1] = name
      elseif kind == TYPE then
        content_type = joined(content_type, value)
      elseif kind == PATH then
        path = joined(path, value)
      elseif kind == METHOD then
        method = joined(method, value)
      elseif kind == HOST then
        host = joined(host, value)
      elseif kind == ENCODING then
        encoding = joined(encoding, value)
      elseif kind == REQUEST_ID then
        id = joined(id, value)
      else
        timeout = joined(timeout, value)
      end
    end
  end
  if id ~= nil and (#id > LONGEST_ID or not id:find("^[!-~]+$")) then
    headers:replace(ID, valid_id(handle, id))
  end
  local rest = not is_grpc(headers, content_type)
  if count > MOST_HEADERS or bytes > MOST_BYTES then
    -- A gRPC caller gets RESOURCE_EXHAUSTED.
    handle:respond({[":status"] = "431", ["grpc-status"] = not rest and "8" or nil}, "")
    return
  end
  if rest then
    if odd ~= nil then
      for _, name in ipairs(odd) do
        headers:remove(name)
      end
    end
    if encoding ~= nil and encoding:lower():gsub("identity", ""):find("[^%s,]") and not BODILESS[method] then
      handle:respond({[":status"] = "415", ["accept-encoding"] = "identity"}, "")
      return
    end
    if timeout ~= nil then
      if not timeout:match("^0*[1-9]%d*[HMSmun]$") then
        refuse(handle, "The header grpc-timeout must be a whole number and a unit, as in 30S.")
        return
      end
      headers:remove("grpc-timeout")
      headers:replace(DEADLINE, timeout)
    end
  end
  if path == nil then
    return
  end
  if path == "/healthz" then
    -- Envoy is alive; the listener's local replies write the body. The health check filter answers /readyz.
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
  -- Envoy joins two host headers with a comma.
  if host ~= nil and host:find(",", 1, true) then
    refuse(handle, "There must be one host.")
    return
  end
  if not rest then
    headers:remove(EDGE)
    return
  end
  headers:replace(EDGE, "1")
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
    handle:body()  -- waits until it is complete
    return
  end
  -- From here on the headers have been sent.
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
  local at = content_type ~= nil and content_type:find("\t", 1, true)
  if at then
    for name, value in content_type:gmatch("\t([^:]+):([^\t]*)") do
      headers:replace(name, value)
    end
    content_type = content_type:sub(1, at - 1)
    headers:replace("content-type", content_type)
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
    -- Proxies in between must neither cache nor buffer a stream.
    headers:replace("cache-control", "no-cache")
    headers:replace("x-accel-buffering", "no")
  end
  -- From here on the headers have been sent.
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
