"""TLS for tests."""

import ssl
from pathlib import Path

# Made for these tests: images.example, valid from 2020 to 2120, its own authority.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBcDCCARagAwIBAgIBATAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5pbWFnZXMu
ZXhhbXBsZTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowGTEXMBUG
A1UEAwwOaW1hZ2VzLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATh
vwopBadxDl02qIi0vFXZ9dXxUgC+qGR2f4ZLXPO/lJEojR8jNU314/eJsPuH486e
M1nU5ZuDNSgwmKbMzN+Io00wSzAZBgNVHREEEjAQgg5pbWFnZXMuZXhhbXBsZTAP
BgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBQp0dNI5JfHWPVkJlypeJXHz0VDEzAK
BggqhkjOPQQDAgNIADBFAiEAvIVr6MSr/J0dfhYZWJgcwq3PrEGnew6lznVE4aw5
0kUCIEo1pAV0T0pHugt5WdGHPmnLXzxMPmi30Y6vm3v0lFBS
-----END CERTIFICATE-----
"""
PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/nu20sqfxPwz5ZH8
9j2pFFNxnPBzWv5QtYbaauja9t+hRANCAAThvwopBadxDl02qIi0vFXZ9dXxUgC+
qGR2f4ZLXPO/lJEojR8jNU314/eJsPuH486eM1nU5ZuDNSgwmKbMzN+I
-----END PRIVATE KEY-----
"""


def serving_tls(folder: Path) -> ssl.SSLContext:
    """What a server of the name images.example speaks TLS with; its key is left in ``folder``."""
    for name, text in (("cert.pem", CERTIFICATE), ("key.pem", PRIVATE_KEY)):
        (folder / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def trusting() -> ssl.SSLContext:
    """What a client that knows the authority of that server verifies it with."""
    return ssl.create_default_context(cadata=CERTIFICATE)
