"""How the service is seen from outside: its hosts, the path below which it is, and the proxies before it."""

import re
from ipaddress import ip_network
from urllib.parse import urlsplit

ANY = "*"
HOST = re.compile(r"(?:\*\.)?[\w-]+(?:\.[\w-]+)*|\[[\da-f:.]+\]", re.ASCII)
ROOT_PATH = re.compile(r"(?:/[\w.~-]+)*", re.ASCII)


def allowed_hosts(text: str) -> str:
    """Return a list of hosts with commas: names, addresses, `*.example.com` for all below a name, or `*` for any.

    Raises ValueError.
    """
    hosts = [host.lower() for host in parts_of(text)]
    if any(host != ANY and not HOST.fullmatch(host) for host in hosts):
        raise ValueError("takes hosts without scheme, port and path, as in example.com,*.example.com,[::1]")
    return ",".join(hosts)


def host_of(url: str) -> str:
    """Return the host of an address, without its port."""
    return re.sub(r":\d*$", "", urlsplit(url).netloc).lower()


def root_path(text: str) -> str:
    """Return the path below which a proxy shows the service.

    Raises ValueError.
    """
    if not ROOT_PATH.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError("takes a path that begins with / and does not end with it, as in /api")
    return text


def trusted_proxies(text: str) -> str:
    """Return a list of addresses and networks with commas, which all servers read alike; or `*` for any.

    Uvicorn takes what is none of them for the name of a socket, and believes nobody then.

    Raises ValueError.
    """
    proxies = parts_of(text)
    try:
        for proxy in proxies if proxies != [ANY] else ():
            ip_network(proxy)
    except ValueError:
        raise ValueError("takes addresses and networks of proxies, as in 10.0.0.7,10.1.0.0/16") from None
    return ",".join(proxies)


def parts_of(text: str) -> list[str]:
    """Return the parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
