"""Asset checks: whether what is stored can be trusted. They look, and fetch nothing."""
