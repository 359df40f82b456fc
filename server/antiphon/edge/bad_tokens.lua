-- The filter behind `jwt_authn`: refuses a token that every issuer refused for another reason than an unknown key.
--
-- `antiphon.edge.tokens` fills the table with the names of the issuers; under each name the metadata has the issuer's reason.

local ISSUERS = {--[[issuers]]}
-- Envoy's message.
local UNKNOWN_KEY = "Jwks doesn't have key to match kid or alg from Jwt"

function envoy_on_request(handle)
  local refusals = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
  if refusals == nil then
    return
  end
  for _, issuer in ipairs(ISSUERS) do
    local refusal = refusals[issuer]
    if refusal == nil or refusal.message == UNKNOWN_KEY then
      return
    end
  end
  handle:respond({[":status"] = "401"}, "")
end
