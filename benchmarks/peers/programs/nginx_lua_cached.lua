-- The same with a cache in nginx's shared memory: a fresh answer is served, the others are requested.

local consult = require("consult")
local upstream = require("upstream")
local settings = require("settings")
local kept = ngx.shared.kept
local ports, fresh_s = settings.ports, settings.fresh_s

-- The cached body, or the connection on which it will arrive.
local function ask(source, target)
    return kept:get(target) or upstream.ask(ports[source], target)
end

local function answer(source, target, asked)
    if type(asked) == "string" then
        return asked
    end
    local body = upstream.answer(asked)
    if body then
        kept:set(target, body, fresh_s[source])
    end
    return body
end

local order, merchant, member, card, balance, channel, quota, marketing = consult.targets()
local order_asked = upstream.ask(ports.order, order)
local merchant_asked = ask("merchant", merchant)
local member_asked = ask("member", member)
local card_asked = ask("card", card)
local balance_asked = upstream.ask(ports.balance, balance)
local channel_asked = ask("channel", channel)
local quota_asked = upstream.ask(ports.quota, quota)
local marketing_asked = ask("marketing", marketing)

consult.answer(
    upstream.answer(order_asked),
    answer("merchant", merchant, merchant_asked),
    answer("member", member, member_asked),
    answer("card", card, card_asked),
    upstream.answer(balance_asked),
    answer("channel", channel, channel_asked),
    upstream.answer(quota_asked),
    answer("marketing", marketing, marketing_asked)
)
