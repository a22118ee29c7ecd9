// A gateway in Go's net/http: a goroutine per source, one transport, bodies joined undecoded.
//
// gateway PORT '{"order": "http://127.0.0.1:1234", ...}'
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

type request struct {
	OrderID    string `json:"order_id"`
	UserID     string `json:"user_id"`
	MerchantID string `json:"merchant_id"`
	Country    string `json:"country"`
	Amount     struct {
		Currency string `json:"currency"`
		Value    int64  `json:"value"`
	} `json:"amount"`
}

type target struct{ path, query string }

var sources = [...]string{"order", "merchant", "member", "card", "balance", "channel", "quota", "marketing"}

func targets(asked *request) [len(sources)]target {
	member, currency := "/members/"+asked.UserID, "currency="+asked.Amount.Currency
	value := strconv.FormatInt(asked.Amount.Value, 10)
	return [...]target{
		{path: "/orders/" + asked.OrderID},
		{path: "/merchants/" + asked.MerchantID},
		{path: member},
		{path: member + "/cards"},
		{path: member + "/balances"},
		{"/channels", currency + "&country=" + asked.Country},
		{member + "/quotas", currency},
		{member + "/promotions", "merchant_id=" + asked.MerchantID + "&" + currency + "&value=" + value},
	}
}

type gateway struct {
	hosts     [len(sources)]string
	transport http.RoundTripper
}

func (g *gateway) consult(w http.ResponseWriter, r *http.Request) {
	var asked request
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var parts [len(sources)][]byte
	var all sync.WaitGroup
	all.Add(len(sources))
	for at, target := range targets(&asked) {
		go func() {
			defer all.Done()
			parts[at] = g.get(g.hosts[at], target)
		}()
	}
	all.Wait()
	answer(w, &parts)
}

var (
	null   = []byte("null")
	header = http.Header{"User-Agent": nil} // sends none
)

// Uses the transport directly: a client would parse the address, and handle redirects and cookies.
func (g *gateway) get(host string, t target) []byte {
	address := &url.URL{Scheme: "http", Host: host, Path: t.path, RawQuery: t.query}
	response, err := g.transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: address, Header: header})
	if err != nil {
		return null
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ContentLength < 0 {
		io.Copy(io.Discard, response.Body) // keeps the connection
		return null
	}
	body := make([]byte, response.ContentLength)
	if _, err := io.ReadFull(response.Body, body); err != nil {
		return null
	}
	return body
}

func answer(w http.ResponseWriter, parts *[len(sources)][]byte) {
	size := 1
	for at, part := range parts {
		size += len(`{"":`) + len(sources[at]) + len(part)
	}
	merged := make([]byte, 0, size)
	for at, part := range parts {
		merged = append(merged, "{,"[min(at, 1)], '"')
		merged = append(merged, sources[at]...)
		merged = append(merged, '"', ':')
		merged = append(merged, part...)
	}
	merged = append(merged, '}')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(merged)))
	w.Write(merged)
}

func main() {
	timeoutMs, _ := strconv.Atoi(os.Getenv("CALL_TIMEOUT_MS")) // 0 is none
	g := gateway{transport: &http.Transport{
		MaxIdleConnsPerHost: 4096,
		IdleConnTimeout:     time.Hour,
		DisableCompression:  true,
		ReadBufferSize:      16 << 10, // the longest answer in one read

		ResponseHeaderTimeout: time.Duration(timeoutMs) * time.Millisecond,
	}}
	var upstreams map[string]string
	if err := json.Unmarshal([]byte(os.Args[2]), &upstreams); err != nil {
		log.Fatal(err)
	}
	for at, name := range sources {
		address, err := url.Parse(upstreams[name])
		if err != nil {
			log.Fatal(err)
		}
		g.hosts[at] = address.Host
	}
	http.HandleFunc("POST /v1/consult", g.consult)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
