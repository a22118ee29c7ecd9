-- One GET over a kept connection in two halves, so that all requests are sent before the first read.

local tcp = ngx.socket.tcp
local find, match, sub = string.find, string.match, string.sub

local TIMEOUT_MS = tonumber(os.getenv("CALL_TIMEOUT_MS")) or 10000
local IDLE_MS = 3600000
local POOL = {pool_size = 1024}

local upstream = {}

-- nil if it cannot be reached.
function upstream.ask(port, target)
    local socket = tcp()
    socket:settimeout(TIMEOUT_MS)
    if socket:connect("127.0.0.1", port, POOL) and socket:send("GET " .. target .. " HTTP/1.1\r\nHost: upstream\r\n\r\n") then
        return socket
    end
end

-- The body, or nil. Head and body mostly arrive in one piece.
function upstream.answer(socket)
    local whole = socket and socket:receiveany(16384)
    local stop
    while whole do
        _, stop = find(whole, "\r\n\r\n", 1, true)
        if stop then
            break
        end
        local more = socket:receiveany(16384)
        whole = more and whole .. more
    end
    local size = whole and tonumber(match(whole, "\n[Cc]ontent%-[Ll]ength: *(%d+)"))
    if not size then
        return nil
    end
    local body = sub(whole, stop + 1)
    if #body < size then
        local rest = socket:receive(size - #body)
        if not rest then
            return nil
        end
        body = body .. rest
    end
    socket:setkeepalive(IDLE_MS)
    return sub(whole, 10, 12) == "200" and body or nil
end

return upstream
