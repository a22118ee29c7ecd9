"""The company's bank numbers and the providers of its channels."""

from __future__ import annotations

PROVIDERS = {
    "102": "ICBC", "103": "ABC", "104": "BOC", "105": "CCB", "301": "COMM", "308": "CMB", "901": "JCB", "909": "SMBC",
    "014": "BCA", "704": "NBK", "990": "FLEXI_PAY",
}  # fmt: skip
