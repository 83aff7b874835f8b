"""A certificate for servers on 127.0.0.1, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Certificate:
    """
    Signs itself, so that it is also what clients check it against.

    Attributes:
        file: The certificate, as PEM.
        key_file: Its private key.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "certificate.pem"
        self.key_file = folder / "key.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=durable-chaos", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2"]
        files = ["-keyout", str(self.key_file), "-out", str(self.file)]
        subprocess.run(["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True)
