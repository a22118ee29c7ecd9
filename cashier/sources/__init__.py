"""One upstream per module: its requests, the shape of its answers, and the facts made of them."""
