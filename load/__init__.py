"""One web process under load: held connections beside good, bad, repeated and oversized requests."""
