"""The certificate under which the peers speak TLS: made once by trustme, kept in the user's cache, trusted by nobody.

P-256, as most sites have it.
"""

import os
import tempfile
from pathlib import Path

from benchmarks.peers import CACHE

_FILE = CACHE / "localhost.pem"


def certificate() -> Path:
    """A PEM file with the key and the certificate behind it."""
    if not _FILE.exists():
        import trustme

        CACHE.mkdir(parents=True, exist_ok=True)
        pem = trustme.CA().issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.bytes()
        # In one file, and moved there: several runs may make one at the same time.
        descriptor, name = tempfile.mkstemp(dir=CACHE)
        with open(descriptor, "wb") as file:
            file.write(pem)
        os.replace(name, _FILE)
    return _FILE
