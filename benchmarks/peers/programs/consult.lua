-- The requests of a consultation, and the bare merge: bodies joined without being decoded.

local decode = require("cjson.safe").decode
local req, header, print = ngx.req, ngx.header, ngx.print
local concat = table.concat

local consult = {}

-- The targets in the order of `consult.answer`; ends with 400 if the request is not JSON.
function consult.targets()
    req.read_body()
    local asked = decode(req.get_body_data())
    if not asked then
        return ngx.exit(400)
    end
    local member, merchant, amount = "/members/" .. asked.user_id, asked.merchant_id, asked.amount
    local currency = amount.currency
    return "/orders/" .. asked.order_id,
        "/merchants/" .. merchant,
        member,
        member .. "/cards",
        member .. "/balances",
        "/channels?currency=" .. currency .. "&country=" .. asked.country,
        member .. "/quotas?currency=" .. currency,
        member .. "/promotions?merchant_id=" .. merchant .. "&currency=" .. currency .. "&value=" .. amount.value
end

-- Bodies; nil if absent.
function consult.answer(order, merchant, member, card, balance, channel, quota, marketing)
    local merged = concat({
        '{"order":', order or "null",
        ',"merchant":', merchant or "null",
        ',"member":', member or "null",
        ',"card":', card or "null",
        ',"balance":', balance or "null",
        ',"channel":', channel or "null",
        ',"quota":', quota or "null",
        ',"marketing":', marketing or "null",
        "}",
    })
    header.content_type = "application/json"
    header.content_length = #merged
    print(merged)
end

return consult
