"""Asking a DNS server for addresses. The only place that imports dnspython.

A library and not some bytes of our own: truncation, TCP, ids and compressed names are where home-made queries go wrong, and dnspython
is one pure-Python package without dependencies.
"""

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype


class QueryError(Exception):
    """No usable answer; the message says why."""


def addresses(name: str, server: str, port: int, timeout_s: float) -> frozenset[str]:
    """All IPv4 addresses that `server` answers for a name; none when the name, or an address for it, does not exist.

    Goes over to TCP by itself when the answer does not fit. `QueryError` for anything else, silence included.
    """
    query = dns.message.make_query(name, dns.rdatatype.A)
    try:
        answer, _ = dns.query.udp_with_fallback(query, server, timeout=timeout_s, port=port)
    except (dns.exception.DNSException, OSError) as error:
        raise QueryError(f"{server}:{port} does not answer: {error}") from error
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise QueryError(f"{server}:{port} answers {dns.rcode.to_text(answer.rcode())} for {name}")
    return frozenset(data.to_text() for rows in answer.answer if rows.rdtype == dns.rdatatype.A for data in rows)
