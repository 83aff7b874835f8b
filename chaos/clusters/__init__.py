"""Set-ups of several servers, as real processes on loopback: each hurt under load, with the ledger of chaos."""
