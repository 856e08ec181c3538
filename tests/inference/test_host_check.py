"""Requests for other hosts, from pages of other sites, and through proxies."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from tlfast.core import UsageError
from tlfast.inference.host_check import HostCheck, allow_hosts

REFUSED = "requests from pages of other sites are refused"


@pytest.mark.parametrize(
    ("names", "host", "origin", "problem"),
    [
        ((), "127.0.0.1:8000", None, ""),
        ((), "127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        ((), "plants.example.org", None, "the host 'plants.example.org' is not served here"),
        ((), "127.0.0.1:8000", "https://plants.example.org", f"{REFUSED}; for the page of this server behind a proxy, pass the header Host on, or start"),
        (("plants.example.org",), "127.0.0.1:8000", "https://plants.example.org", ""),  # a proxy with its own header Host
        (("plants.example.org",), "plants.example.org", "https://plants.example.org", ""),
        (("plants.example.org",), "plants.example.org", "http://localhost:3000", REFUSED),
        (("plants.example.org",), "plants.example.org", "https://other.example.org", REFUSED),
        ((), "127.0.0.1:8000", "null", REFUSED),
    ],
)
def test_hosts_and_origins(names, host, origin, problem):
    headers = Headers({"host": host} if origin is None else {"host": host, "origin": origin})
    found = HostCheck(None, allow_hosts("127.0.0.1", names)).find_problem(headers)
    assert found.startswith(problem) if problem else found == ""


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("https://Plants.example.org/", "plants.example.org"),
        ("plants.example.org:8443", "plants.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("FE80::1", "fe80::1"),
        ("http://[fe80::1]:8000", "fe80::1"),
    ],
)
def test_an_allowed_host_may_be_an_address(name, wanted):
    assert wanted in allow_hosts("127.0.0.1", [name])


@pytest.mark.parametrize("name", ["*.example.org", "/plants", "https://", "[::1", "a b", "http://a..b"])
def test_an_allowed_host_that_no_request_can_have(name):
    with pytest.raises(UsageError, match="is not the name of a host"):
        allow_hosts("127.0.0.1", [name])
