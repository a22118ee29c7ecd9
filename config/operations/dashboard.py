"""The Grafana dashboard as code: `python config/operations/dashboard.py` writes dashboard.json.

Its content is in panels.py.

Plain dictionaries, no library: a dashboard of four kinds of panels needs none. Grafana's own one
(grafana-foundation-sdk) has a release line per Grafana version, numbered by the second of its
build, and would make a dashboard for one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from panels import GREEN, ROWS, Panel, Query, of

Json = dict[str, Any]

DASHBOARD = Path(__file__).with_name("dashboard.json")
# Understood by Grafana 10 and later.
SCHEMA_VERSION = 39
COLUMNS = 24
ROW_HEIGHT = 1
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> Json:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "cashier",
        "title": "Cashier",
        "description": "Consultations and payments of cashier. Each panel says what to do when it moves.",
        "tags": ["cashier"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "annotations": {"list": [_reloads()]},
        "panels": list(_panels()),
    }


def encoded(built: Json) -> str:
    return json.dumps(built, indent=1) + "\n"


def _variables() -> Iterator[Json]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    choices = (
        ("job", "Job", "label_values(cashier_build_info, job)"),
        ("instance", "Instance", 'label_values(cashier_build_info{job=~"$job"}, instance)'),
        ("source", "Source", 'label_values(cashier_source_answers_total{job=~"$job"}, source)'),
    )
    for name, label, query in choices:
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": "A"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _reloads() -> Json:
    reloads = of("cashier_config_reload_total")
    return {
        "name": "Reloads",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"sum by (instance, result) (increase({reloads}[1m])) > 0",
        "titleFormat": "Reload of {{instance}}",
        "textFormat": "{{result}}",
        "step": "60s",
    }


def _panels() -> Iterator[Json]:
    """Row by row, from left to right."""
    number, top = 0, 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": ROW_HEIGHT},
            "panels": [],
        }
        top += ROW_HEIGHT
        left = 0
        for panel in panels:
            if left + panel.width > COLUMNS:
                left, top = 0, top + panel.height
            number += 1
            yield _panel(panel, number, left, top)
            left += panel.width
        top += panels[-1].height


def _panel(panel: Panel, number: int, left: int, top: int) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": f"{panel.shows}\n\n**What to do:** {panel.advice}",
        "datasource": DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


def _target(panel: Panel, query: Query, index: int) -> Json:
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "range": panel.kind != "stat",
        "instant": panel.kind == "stat",
    }


def _defaults(panel: Panel) -> Json:
    first, *others = panel.steps or ((0, GREEN),)
    steps = [{"value": None, "color": first[1]}, *({"value": value, "color": colour} for value, colour in others)]
    defaults: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.names is not None:
        options = {value: {"text": text} for value, text in panel.names.items()}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    else:
        defaults["color"] = {"mode": "thresholds"}
    return defaults


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "background",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "heatmap": {"calculate": False, "cellGap": 1, "yAxis": {"unit": "s"}, "color": {"scheme": "Spectral", "steps": 64}},
    "state-timeline": {"mergeValues": True, "showValue": "auto", "rowHeight": 0.9, "legend": {"showLegend": False}},
}


if __name__ == "__main__":
    DASHBOARD.write_text(encoded(dashboard()), "utf-8")
