-- All live: write to all sockets, then read.

local consult = require("consult")
local upstream = require("upstream")
local ports = require("settings").ports
local ask, answer = upstream.ask, upstream.answer

local order, merchant, member, card, balance, channel, quota, marketing = consult.targets()
order = ask(ports.order, order)
merchant = ask(ports.merchant, merchant)
member = ask(ports.member, member)
card = ask(ports.card, card)
balance = ask(ports.balance, balance)
channel = ask(ports.channel, channel)
quota = ask(ports.quota, quota)
marketing = ask(ports.marketing, marketing)

consult.answer(
    answer(order), answer(merchant), answer(member), answer(card), answer(balance), answer(channel), answer(quota), answer(marketing)
)
