"""The company's adapters, one module per source. `cashier.toml` names them."""
