"""Which requests a server answers, by the Host and Origin headers.

A web page can reach a server on its visitor's own computer or network: its author points the
page's host name at that address (DNS rebinding), and the browser then sends the author's name as
Host. A server that answers to names which the author cannot own is safe from it: its own names,
and IP addresses, which no DNS answer can stand for.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from simprompt.errors import SimpromptError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = "*"
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Access:
    """What a server answers to.

    Args:
        hosts: its own names and addresses, in lower case, IPv6 without brackets; "*" answers all.
        addresses: answer to every IP address as well.
        sites: host names that it has behind a proxy; pages of these sites may ask it.
        origins: other sites whose pages may ask it and read its answers, as browsers send them:
            "https://my.site.org".
    """

    hosts: tuple[str, ...] = (ANY,)
    addresses: bool = False
    sites: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def answers_host(self, header: str | None) -> bool:
        """Whether a request with this Host header is answered; browsers always send one."""
        if header is None or ANY in (*self.hosts, *self.sites):
            return True
        name = host_name(header)
        if name is None:
            return False
        accepted = name in self.hosts or name in self.sites
        return accepted or (self.addresses and _address(name) is not None)

    def answers_origin(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of this origin may ask; requests of other programs have no origin.

        The scheme is not compared: a proxy may have taken TLS off.
        """
        if origin is None or origin in self.origins:
            return True
        scheme, _, location = origin.partition("://")
        if scheme not in _DEFAULT_PORTS:  # "null", an extension
            return False
        return _bare(location) == _bare(host or "") or host_name(location) in self.sites


def host_name(header: str) -> str | None:
    """The name or address of a Host header, without port, in lower case; None: there is none.

    >>> host_name("My.Site.org:80"), host_name("[::1]:8000"), host_name("[::1")
    ('my.site.org', '::1', None)
    """
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d{0,5})?", header.strip().lower(), re.ASCII)
    if match is None:
        return None
    if match[1].startswith("["):
        address = _address(match[1][1:-1])
        return None if address is None else str(address)
    name = match[1].removesuffix(".")
    return name if _NAME.fullmatch(name) else None


def access_to(
    address: str, host: str, sites: Sequence[str] = (), origins: Sequence[str] = ()
) -> Access:
    """The access to a server that listens on an address.

    Args:
        address: of the listening socket, such as "127.0.0.1" or "::".
        host: what the user calls it; empty for all addresses.
        sites: host names that it answers to besides; "*" answers to all.
        origins: sites whose pages may ask it besides.

    Raises:
        SimpromptError: a host name or an origin that no browser can send.
    """
    names = [*LOOPBACK, host.lower().removesuffix("."), address]
    outside = not is_loopback(address)
    if outside:
        machine = socket.gethostname().lower()
        names += [machine, f"{machine.partition('.')[0]}.local"]
    hosts = tuple(dict.fromkeys(name for name in names if name and not is_any(name)))
    return Access(hosts, outside, tuple(map(_site, sites)), tuple(map(_origin, origins)))


def is_loopback(address: str) -> bool:
    """Whether only this computer reaches a socket that listens there."""
    address_found = _address(address)
    mapped = getattr(address_found, "ipv4_mapped", None) or address_found
    return mapped is not None and mapped.is_loopback


def is_any(address: str) -> bool:
    """Whether this stands for all addresses of a computer."""
    address_found = _address(address)
    return address_found is not None and address_found.is_unspecified


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _bare(location: str) -> str:
    return re.sub(r":(80|443)?$", "", location.strip().lower(), flags=re.ASCII)


def _site(text: str) -> str:
    name = ANY if text == ANY else host_name(text)
    if name is None or ":" in text.rpartition("]")[2]:
        raise SimpromptError(
            f"--allow-host takes a host name without scheme, port or path, such as my.site.org; "
            f"got {text!r:.100}."
        )
    return name


def _origin(text: str) -> str:
    try:
        pieces = urlsplit(text.lower())
        port = pieces.port
    except ValueError:
        pieces, port = urlsplit(""), None
    name = host_name(pieces.netloc)
    if pieces.scheme not in _DEFAULT_PORTS or not name or pieces.path.strip("/") or pieces.query:
        raise SimpromptError(
            "--allow-origin takes the site of a page, scheme and host and no path, such as "
            f"https://my.site.org; got {text!r:.100}."
        )
    host_text = f"[{name}]" if ":" in name else name
    port_text = "" if port in (None, _DEFAULT_PORTS[pieces.scheme]) else f":{port}"
    return f"{pieces.scheme}://{host_text}{port_text}"
