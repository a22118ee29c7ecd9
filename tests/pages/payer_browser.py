"""A browser without JavaScript, in process: cookies, redirects and forms, as pages need them.

It follows the rules of browsers: a cookie goes to its path only, a form of a page goes with what is
checked on it, and a page of another site has no cookie of ours in a POST.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.types import ASGIApp, Message

HOST = "127.0.0.1:8080"


class HtmlForm:
    """`fields`: what a send has, in order: hidden ones and what is checked."""

    def __init__(self, method: str, action: str) -> None:
        self.method = method
        self.action = action
        self.fields: list[tuple[str, str]] = []
        # Every radio button and check box: name, value, and whether it can be chosen.
        self.choices: list[tuple[str, str, bool]] = []
        self.inputs: list[str] = []
        self.buttons: list[tuple[str, str]] = []


class Document(HTMLParser):
    """`text`: all that is shown. `tags`: each with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.text = ""
        self.forms: list[HtmlForm] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._form: HtmlForm | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if tag == "form":
            self._form = HtmlForm(values.get("method", "get").upper(), values.get("action", ""))
            self.forms.append(self._form)
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "input" and self._form is not None and "name" in values:
            self._add_input(self._form, values)
        elif tag == "button" and self._form is not None and "name" in values:
            self._form.buttons.append((values["name"], values.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None

    def handle_data(self, data: str) -> None:
        self.text += data

    def _add_input(self, form: HtmlForm, values: dict[str, str]) -> None:
        name, value = values["name"], values.get("value", "")
        kind = values.get("type", "text")
        if kind in ("radio", "checkbox"):
            form.choices.append((name, value, "disabled" not in values))
            if "checked" in values and "disabled" not in values:
                form.fields.append((name, value))
        elif kind == "hidden":
            form.fields.append((name, value))
        else:
            form.inputs.append(name)

    def form(self, ending: str) -> HtmlForm:
        """The one whose address ends so."""
        return next(form for form in self.forms if form.action.endswith(ending))

    def has_form(self, ending: str) -> bool:
        return any(form.action.endswith(ending) for form in self.forms)

    @property
    def view(self) -> str:
        return next(values["data-view"] for tag, values in self.tags if tag == "main")

    @property
    def state(self) -> str:
        """Of a result: the classes of its card."""
        classes = (values.get("class", "") for tag, values in self.tags if tag == "section")
        return next(each for each in classes if "state" in each)


class PageAnswer:
    """One response."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.header_list = headers
        self.headers = dict(headers)
        self.body = body

    def __repr__(self) -> str:
        return f"<PageAnswer {self.status} {self.location}>"

    @property
    def location(self) -> str:
        return self.headers.get("location", "")

    @property
    def set_cookies(self) -> list[str]:
        return [value for name, value in self.header_list if name == "set-cookie"]

    @property
    def document(self) -> Document:
        return Document(self.body.decode())


class PayerBrowser:
    """`cookies`: by path and name. `address`: of the page that is open."""

    def __init__(
        self, application: ASGIApp, *, headers: Mapping[str, str] | None = None, client: str = "203.0.113.7"
    ) -> None:
        self.application = application
        self.cookies: dict[tuple[str, str], str] = {}
        self.headers = {"host": HOST, "user-agent": "Test browser", **(headers or {})}
        self.client = client
        self.address = ""
        self.answers: list[PageAnswer] = []
        self.document = Document("")

    # What a payer does

    async def open(self, url: str) -> PageAnswer:
        """An address from elsewhere, and wherever it leads."""
        return await self._follow(await self.send("GET", url), url)

    async def reload(self) -> PageAnswer:
        return await self.open(self.address)

    async def submit(self, ending: str, values: Mapping[str, str] | None = None, **more: str) -> PageAnswer:
        """The form whose address ends so, with these choices and inputs."""
        form = self.document.form(ending)
        sent = {**(values or {}), **more}
        return await self._follow(await self.post(form, sent), self._address(form, sent))

    async def choose(self, method_id: str, option_id: str | None = None) -> PageAnswer:
        return await self.submit("/pay", self.choice(method_id, option_id))

    def choice(self, method_id: str, option_id: str | None = None) -> dict[str, str]:
        form = self.document.form("/pay")
        assert ("method", method_id, True) in form.choices, (method_id, form.choices)
        if option_id is None:
            return {"method": method_id}
        name = next(name for name, value, can in form.choices if value == option_id and can and name != "method")
        return {"method": method_id, name: option_id}

    async def post(self, form: HtmlForm, values: Mapping[str, str]) -> PageAnswer:
        """Send without following."""
        if form.method == "GET":
            return await self.send("GET", self._address(form, values))
        return await self.send("POST", form.action, self._sent(form, values))

    def _sent(self, form: HtmlForm, values: Mapping[str, str]) -> list[tuple[str, str]]:
        return [(name, value) for name, value in form.fields if name not in values] + list(values.items())

    def _address(self, form: HtmlForm, values: Mapping[str, str]) -> str:
        return form.action if form.method == "POST" else f"{form.action}?{urlencode(self._sent(form, values))}"

    async def send(
        self,
        method: str,
        url: str,
        fields: list[tuple[str, str]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        cross_site: bool = False,
    ) -> PageAnswer:
        """One request. `cross_site`: from a page elsewhere: Lax cookies go with GET only.

        `headers`: an empty one is not sent.
        """
        parts = urlsplit(url)
        path, query = parts.path, parts.query
        sent = {**self.headers, **(headers or {})}
        site = "cross-site" if cross_site else "same-origin"
        sent.setdefault("sec-fetch-site", site)
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies_for(path))
        if cookies and not (cross_site and method == "POST"):
            sent["cookie"] = cookies
        body = b""
        if fields is not None:
            body = urlencode(fields).encode()
            sent["content-type"] = "application/x-www-form-urlencoded"
        sent = {name: value for name, value in sent.items() if value}
        answer = await exchange(self.application, method, path, query, sent, body, self.client)
        self._keep(answer)
        self.answers.append(answer)
        return answer

    def _cookies_for(self, path: str) -> Iterator[tuple[str, str]]:
        for (cookie_path, name), value in self.cookies.items():
            if path == cookie_path or path.startswith(f"{cookie_path}/"):
                yield name, value

    def _keep(self, answer: PageAnswer) -> None:
        for text in answer.set_cookies:
            first, *attributes = (part.strip() for part in text.split(";"))
            name, _, value = first.partition("=")
            named = {key.lower(): rest for key, _, rest in (each.partition("=") for each in attributes)}
            assert len(first) + sum(map(len, attributes)) < 4096, "a browser drops this cookie"
            key = (named["path"], name)
            if named.get("max-age") == "0":
                self.cookies.pop(key, None)
            else:
                self.cookies[key] = value.strip('"')

    async def _follow(self, answer: PageAnswer, url: str) -> PageAnswer:
        for _ in range(5):
            if answer.status != 303:
                self.address, self.document = url, answer.document
                return answer
            url = answer.location
            answer = await self.send("GET", url)
        raise AssertionError(f"too many redirects, the last to {url}")


async def exchange(
    application: ASGIApp,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    client: str,
) -> PageAnswer:
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": (client, 50_000),
        "server": ("127.0.0.1", 8080),
    }
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return requests.pop(0) if requests else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, receive, send)
    head = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
    return PageAnswer(sent[0]["status"], head, b"".join(each.get("body", b"") for each in sent[1:]))


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
