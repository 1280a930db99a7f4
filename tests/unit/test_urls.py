import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.errors import InvalidParameter
from calotype.domain.urls import (
    MAX_URL_CHARS,
    canonical_host,
    canonical_hosts,
    is_public,
    judge_reference_url,
    parse_reference_url,
)

NOBODY: frozenset[str] = frozenset()

GOOD = [
    "https://example.com/reference.png",
    "http://example.com",
    "HTTPS://Example.COM/A.png",
    "https://example.com:8443/a?b=c",
    "https://example.com:1/",
    "https://example.com:65535/",
    "https://example.com./a.png",
    "https://example.com?only=query",
    "https://example.com/a.png#part",
    "https://bucket.s3.amazonaws.com/k%2Fey.png?X-Amz-Signature=ab%2Bcd&x=%7E",
    "https://my_bucket.example.com/a.png",
    "https://r3---sn-4g5e6nsz.example.com/a.png",
    "https://8.8.8.8/a.png",
    "https://8.8.8.8:8080/a.png",
    "https://[2606:4700::1111]/a.png",
    "https://[2606:4700:0:0::1111]:8443/a.png",
    "https://[64:ff9b::8.8.8.8]/a.png",
    "https://münchen.example.com/straße.png",
    "https://xn--mnchen-3ya.example.com/",
    "https://xn--strae-oqa.de/",
    "https://例え.jp/画像.png",
    "https://😀.la/a.png",
    "https://localhost.example.com/",
    "https://internal.example.com/",
    "https://10.example.com/",
    "https://1password.com/",
    "https://example.com/@user/a.png",
    "https://example.com/a?next=http://127.0.0.1/",
    "https://example.com/👨\u200d👩\u200d👧.png",
]

NOT_A_URL = [
    None,
    7,
    b"https://example.com/",
    ["https://example.com/"],
    "",
    "example.com/a.png",
    "//example.com/a.png",
    "/a.png",
    "https:/example.com/a.png",
    "https:example.com/a.png",
    "ftp://example.com/a.png",
    "file:///etc/passwd",
    "gopher://example.com/_x",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "httpx://example.com/",
    "http+unix://example.com/",
    "url:https://example.com/",
    "https://",
    "https:///a.png",
    "https://?a",
    "https://#a",
    "https://:80/",
    "https://./a.png",
    "https://../a.png",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
    "https://" + "é" * 300 + ".com/",
    "https://example.com/" + "a" * MAX_URL_CHARS,
]

JUNK_INSIDE = [
    " https://example.com/",
    "https://example.com/ ",
    "https://example.com/a b.png",
    "\thttps://example.com/",
    "ht\ntps://example.com/",
    "https://exam\nple.com/",
    "https://example.com/\r\nX-Evil: 1",
    "https://example.com/\x00",
    "https://example.com\x00.evil.com/",
    "https://example.com/\x7f",
    "https://example.com/\x85",
    "https://example.com/\u2028",
    "https://example.com/\u3000a",
    "https://example.com/\ud800",
    "https://exam\u00a0ple.com/",
    "https:\\\\example.com\\a.png",
    "https://example.com\\@127.0.0.1/",
    "https://127.0.0.1\\.example.com/",
]

CREDENTIALS = [
    "https://user:hunter2@example.com/",
    "https://hunter2@example.com/",
    "https://@example.com/",
    "https://:hunter2@example.com/",
    "https://hunter2:@example.com/",
    "https://example.com:80@127.0.0.1/",
    "https://example.com@127.0.0.1:80@hunter2/",
    "https://user:hunter2@[::1]/",
]

BAD_PORT = [
    "https://example.com:0/",
    "https://example.com:/",
    "https://example.com:65536/",
    "https://example.com:99999/",
    "https://example.com:000080/",
    "https://example.com:-1/",
    "https://example.com:+80/",
    "https://example.com:8o/",
    "https://example.com:\uff18\uff10/",
    "https://example.com:80:80/",
    "https://[2606:4700::1111]:0/",
    "https://[2606:4700::1111]:/",
]

BAD_HOST = [
    "https://a..b.com/",
    "https://.example.com/",
    "https://example.com../",
    "https://-a.example.com/",
    "https://a-.example.com/",
    "https://exa%6dple.com/",
    "https://127%2e0%2e0%2e1/",
    "https://exam,ple.com/",
    "https://exam;ple.com/",
    "https://exam'ple.com/",
    "https://*.example.com/",
    "https://[::1/",
    "https://::1]/",
    "https://::1/",
    "https://[]/",
    "https://[[::1]]/",
    "https://[::1]evil.com/",
    "https://[::1]@/",
    "https://evil.com[::1]/",
    "https://[v1.fe80]/",
    "https://[example.com]/",
    "https://[127.0.0.1]/",
    "https://[2606:4700::1111::]/",
    "https://[fe80::1%eth0]/",
    "https://[2606:4700::1111%251]/",
    "https://xn--.com/",
    "https://xn--a.com/",
    "https://xn--99999999.com/",
    "https://xn--abc-.com/",
    "https://℀.com/",
    "https://a\uff0fb.com/",
    "https://example.com\uff1a80/",
    "https://a\uff20b.com/",
    "https://exam\u200dple.com/",
    "https://exam\u00adple.com/",
    "https://\u202eexample.com/",
    "https://256.256.256.256/",
    "https://1.2.3.4.5/",
    "https://1.2.3.999/",
    "https://08.8.8.8/",
    "https://4294967296/",
    "https://example.1/",
    "https://example.0x7f/",
]

PRIVATE_ADDRESS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/a.png",
    "http://127.255.255.254/",
    "http://127.0.0.1./",
    "http://2130706433/",
    "http://2130706433./",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0X7F.1/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0x/",
    "http://0.0.0.0/",
    "http://\uff11\uff12\uff17\uff0e\uff10\uff0e\uff10\uff0e\uff11/",
    "http://127\u30020\u30020\u30021/",
    "http://127\uff610\uff610\uff611/",
    "http://①②⑦.⓪.⓪.①/",
    "http://\uff11\uff12\uff17.1/",
    "http://10.0.0.1/",
    "http://10.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://192.168.257/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.7/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]:80/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::FFFF:a9fe:a9fe]/",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[::8.8.8.8]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:5ef5:79fd:0:59d:a0e5:ba1]/",
    "http://[2001::80ff:fffe]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[100::1]/",
    "http://[4000::1]/",
]

ODD_SPELLING = [
    "http://134744072/",
    "http://0x08080808/",
    "http://010.8.8.8/",
    "http://8.8.2056/",
    "http://8.8.8.8./",
    "http://[::ffff:8.8.8.8]/",
    "http://\uff18.8.8.8/",
]

PRIVATE_NAME = [
    "http://localhost/",
    "http://LOCALHOST:8080/",
    "http://localhost./",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://\uff4cocalhost/",
    "http://app.localhost/",
    "http://app.localhost./",
    "http://localhost.localdomain/",
    "http://printer.local/",
    "http://printer.LOCAL./",
    "http://nas.lan/",
    "http://wiki.intranet/",
    "http://router.home.arpa/",
    "http://ip-10-0-0-1.ec2.internal/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata.google.internal./",
    "http://METADATA.google\uff0einternal/",
    "http://metadata.goog/",
    "http://metadata.tencentyun.com/",
    "http://kubernetes.default.svc/",
    "http://api.default.svc.cluster.local/",
    "http://metadata/",
    "http://minio:9000/",
    "http://instance-data/",
    "http://com/",
    "http://ai./",
]


def refusal(url: object, allow_hosts: frozenset[str] = NOBODY) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        judge_reference_url(url, allow_hosts=allow_hosts)
    assert caught.value.param == "image_input"
    assert caught.value.message.endswith(".")
    return caught.value


@pytest.mark.parametrize("url", GOOD)
def test_a_public_url_is_given_back_unchanged(url: str) -> None:
    assert judge_reference_url(url, allow_hosts=NOBODY) == url


@pytest.mark.parametrize("url", NOT_A_URL)
def test_what_is_no_http_url_is_refused(url: object) -> None:
    refusal(url)


@pytest.mark.parametrize("url", JUNK_INSIDE)
def test_spaces_controls_and_backslashes_are_refused(url: str) -> None:
    assert "percent-encode" in refusal(url).message


@pytest.mark.parametrize("url", CREDENTIALS)
def test_credentials_are_refused_and_never_repeated(url: str) -> None:
    message = refusal(url).message
    assert "user name" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("url", BAD_PORT)
def test_a_port_that_is_none_is_refused(url: str) -> None:
    refusal(url)


@pytest.mark.parametrize("url", BAD_HOST)
def test_a_host_that_two_parsers_could_read_in_two_ways_is_refused(url: str) -> None:
    refusal(url)


@pytest.mark.parametrize("url", PRIVATE_ADDRESS)
def test_an_address_that_is_not_public_is_refused_in_every_spelling(url: str) -> None:
    assert "public address" in refusal(url).message


@pytest.mark.parametrize("url", ODD_SPELLING)
def test_a_public_address_must_be_spelled_plainly(url: str) -> None:
    assert "decimal numbers" in refusal(url).message


@pytest.mark.parametrize("url", PRIVATE_NAME)
def test_a_name_of_a_private_network_is_refused(url: str) -> None:
    assert "host name" in refusal(url).message


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://localhost:9000/a.png", "localhost"),
        ("http://LocalHost./a.png", "localhost"),
        ("http://minio/a.png", "MinIO"),
        ("http://nas.local/a.png", "nas.local."),
        ("http://127.0.0.1/a.png", "127.0.0.1"),
        ("http://2130706433/a.png", "127.0.0.1"),
        ("http://0x7f.1/a.png", "127.0.0.1"),
        ("http://[::ffff:127.0.0.1]/a.png", "127.0.0.1"),
        ("http://[0:0:0:0:0:0:0:1]/a.png", "::1"),
        ("http://[fd00::1]:81/a.png", "[FD00:0::1]"),
        ("http://10.0.0.9/a.png", "10.0.0.9"),
        ("http://10.0.0.9/a.png", "10.0.0.9:80"),
        ("https://NAS.local/a.png", "nas.local:443"),
        ("http://[::1]:81/a.png", "[0::1]:81"),
    ],
)
def test_a_host_that_the_operator_listed_is_taken(url: str, allowed: str) -> None:
    listed = frozenset({allowed, "not a host!", "other.example.com"})
    assert judge_reference_url(url, allow_hosts=listed) == url


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://10.0.0.9:81/a.png", "10.0.0.9:80"),
        ("http://nas.local/a.png", "nas.local:443"),
        ("http://[::1]/a.png", "[::1]:81"),
    ],
)
def test_another_port_than_the_one_that_the_operator_listed_is_refused(
    url: str, allowed: str
) -> None:
    refusal(url, frozenset({allowed}))


@pytest.mark.parametrize("entry", ["nas.local:", "nas.local:0", "nas.local:x", "nas.local:65536"])
def test_a_listed_host_with_no_port_that_there_is_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="port"):
        canonical_hosts(frozenset({entry}))


@pytest.mark.parametrize(
    "url",
    [
        "http://nas.local.evil.local/",
        "http://evilnas.local/",
        "http://a.nas.local/",
        "http://127.0.0.2/",
        "http://user@nas.local/",
        "http://nas.local:0/",
        "ftp://nas.local/",
    ],
)
def test_a_listed_host_opens_no_other_and_waives_no_other_rule(url: str) -> None:
    refusal(url, frozenset({"nas.local", "127.0.0.1"}))


def test_the_field_at_fault_is_named() -> None:
    with pytest.raises(InvalidParameter) as caught:
        judge_reference_url("nonsense", allow_hosts=NOBODY, param="image_input[2]")
    assert caught.value.param == "image_input[2]"


@pytest.mark.parametrize(
    ("url", "wire"),
    [
        ("HTTP://EXAMPLE.com", "http://example.com/"),
        ("https://example.com.?a=b#c", "https://example.com/?a=b"),
        (
            "https://bücher.example.com:444/ü?ö",
            "https://xn--bcher-kva.example.com:444/%C3%BC?%C3%B6",
        ),
        ("https://example.com/a%2fb?s=%7E%zz+1", "https://example.com/a%2fb?s=%7E%zz+1"),
        ('https://example.com/"<>^`{|}', "https://example.com/%22%3C%3E%5E%60%7B%7C%7D"),
        ("https://[2606:4700:0::1111]:1/../x", "https://[2606:4700::1111]:1/../x"),
    ],
)
def test_the_parts_are_spelled_for_the_wire_and_signed_bytes_are_kept(url: str, wire: str) -> None:
    assert str(parse_reference_url(url, allow_hosts=NOBODY)) == wire


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1"),
        *("2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    ],
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "example.com", "127.1", "2130706433", "0177.0.0.1", "8.8.8.8 ", "100.64.0.1"),
        *("2606:4700::1111%eth0", "fe80::1%2", "::", "::1", "ff02::1", "2002:808:808::1"),
        *("2001::1", "::8.8.8.8", "64:ff9b::127.0.0.1", "::ffff:10.0.0.1", "168.63.129.16"),
    ],
)
def test_what_is_no_public_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_is_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_multicast or not address.is_global:
        assert not is_public(str(address))


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "0x{:x}", "0{:o}"]))
def test_every_spelling_of_an_ipv4_address_comes_out_as_four_numbers(
    address: ipaddress.IPv4Address, spelling: str
) -> None:
    assert canonical_host(spelling.format(int(address))) == str(address)
    mapped = f"[::ffff:{address}]"
    assert canonical_host(mapped) == str(address)


@pytest.mark.parametrize("host", ["", ".", "a b", "a/b", "[::1", "::g", "a..b", "é" * 400])
def test_what_is_no_host_has_no_canonical_spelling(host: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        canonical_host(host)


HOSTILE = st.text(
    alphabet=st.one_of(
        st.sampled_from("0123456789xabfABF.:[]%@/\\?#-_ \uff0e\u3002\uff11①ⓛéß\u200d\u0661"),
        st.characters(),
    ),
    max_size=40,
)


@given(HOSTILE, st.sampled_from(["http://", "https://xn--", "http://[", "http://0x", ""]))
def test_no_text_brings_out_another_error_or_another_reading(text: str, start: str) -> None:
    url = start + text
    try:
        parts = parse_reference_url(url, allow_hosts=NOBODY)
    except InvalidParameter:
        return
    wire = str(parts)
    assert wire.isascii()
    assert urlsplit(wire).hostname == parts.host
    assert urlsplit(wire).port == parts.port
    assert parse_reference_url(wire, allow_hosts=NOBODY) == parts
