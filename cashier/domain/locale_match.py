"""Locale matching: the known locale that is nearest to the wanted one (BCP 47, RFC 4647).

Case and kind of dash are not significant. A reader of one script of Chinese does not read the other
one at a glance, so the script decides before the region, and a region implies a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from msgspec import Struct

# Codes that ISO 639 has replaced and that Java and old Android still send; and languages that are
# written in standard Chinese.
_LANGUAGES = {"in": "id", "iw": "he", "ji": "yi", "tl": "fil", "cmn": "zh", "yue": "zh"}
_SCRIPT_OF_ALIAS = {"yue": "hant"}
_LIKELY_SCRIPT = {("zh", "tw"): "hant", ("zh", "hk"): "hant", ("zh", "mo"): "hant", ("zh", None): "hans"}
# CLDR's likely region of a language and script, where the language is written in several.
_LIKELY_REGION = {("zh", "hans"): "cn", ("zh", "hant"): "tw"}


class Tag(Struct, frozen=True):
    """The subtags that matter, in lower case. `script`: also an implied one."""

    language: str
    script: str | None
    region: str | None


@lru_cache(maxsize=1024)
def parse(locale: str) -> Tag:
    language, *subtags = locale.replace("_", "-").lower().split("-")
    script = next((subtag for subtag in subtags if len(subtag) == 4 and subtag.isalpha()), None)
    region = next((subtag for subtag in subtags if len(subtag) == 2 or (len(subtag) == 3 and subtag.isdigit())), None)
    script = script or _SCRIPT_OF_ALIAS.get(language)
    language = _LANGUAGES.get(language, language)
    likely = _LIKELY_SCRIPT.get((language, region)) or _LIKELY_SCRIPT.get((language, None))
    return Tag(language, script or likely, region)


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """Of the same language: same script first, then same region, then none, then the likely one.

    None if no locale has the language.
    """
    tag = parse(wanted)
    candidates = [(locale, each) for locale in known if (each := parse(locale)).language == tag.language]
    return min(candidates, key=lambda candidate: _distance(tag, candidate[1]))[0] if candidates else None


def _distance(wanted: Tag, offered: Tag) -> tuple[bool, bool, bool, bool]:
    likely = _LIKELY_REGION.get((offered.language, offered.script or ""))
    return (
        offered.script != wanted.script,
        offered.region != wanted.region,
        offered.region is not None,
        offered.region != likely,
    )


def accepted_languages(header: str) -> Iterator[str]:
    """The locales of an Accept-Language value, most wanted first (RFC 9110, section 12.5.4).

    Without `*`, malformed ranges and those with weight 0.
    """
    weighted = []
    for part in header[:MAX_HEADER].split(",", _MAX_RANGES)[:_MAX_RANGES]:
        locale, _, parameter = part.partition(";")
        weight = _weight(parameter)
        if weight and locale.strip().replace("-", "").isalnum():
            weighted.append((weight, locale.strip()))
    weighted.sort(key=lambda each: -each[0])
    return (locale for _, locale in weighted)


# More than any browser sends.
MAX_HEADER = 512
_MAX_RANGES = 16


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        weight = float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
    return weight if 0 < weight <= 1 else 0.0
