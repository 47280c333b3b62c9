"""Configurations of Caddy as a person may have made them, for the core's tests and for those with the real Caddy.

All are valid for Caddy 2.6, and none needs more than the ports that it is given.
"""

from dataclasses import dataclass

from core import caddy_config
from core.caddy import Route
from core.caddy_config import Json, Object, as_object

DUPLICATE: Json = caddy_config.render([Route("old.test", "old.test", "s-old", ("127.0.0.1:1",))])


@dataclass(frozen=True)
class Person:
    """A configuration with a TLS server `shop` and a server on another port; `routes` are those of `shop`."""

    https_port: int
    other_port: int

    def config(self, *routes: Json, **fields: Json) -> Object:
        """`fields` replace those of `shop`; None takes one away."""
        shop: Object = {
            "listen": [f"127.0.0.1:{self.https_port}"],
            "tls_connection_policies": [{}],
            "routes": [*routes],
        }
        shop = {name: value for name, value in (shop | fields).items() if value is not None}
        return {
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {
                "http": {
                    "https_port": self.https_port,
                    "servers": {"shop": shop, "other": self.other(answer("other"))},
                },
                "tls": {"automation": {"policies": [{"issuers": [{"module": "internal"}], "on_demand": True}]}},
                "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            },
        }

    def without_tls_server(self) -> Object:
        """Only the server on the other port, as Debian's package has one."""
        return {"apps": {"http": {"servers": {"other": self.other(answer("other"))}}}}

    def other(self, *routes: Json) -> Object:
        """The server on the other port, without TLS."""
        return {"listen": [f"127.0.0.1:{self.other_port}"], "automatic_https": {"disable": True}, "routes": [*routes]}

    def astray(self) -> Object:
        """Our route in the server on the other port."""
        config = self.config(answer("shop"))
        servers = as_object(as_object(as_object(config["apps"])["http"])["servers"])
        servers["other"] = self.other(answer("first"), DUPLICATE, answer("last"))
        return config


def answer(words: str, host: str | None = None) -> Object:
    """A route that answers 200 with these words, for one host or for all."""
    route: Object = {"handle": [{"handler": "static_response", "status_code": 200, "body": words}]}
    return route if host is None else {"match": [{"host": [host]}], "terminal": True, **route}


def persons(person: Person) -> dict[str, Object]:
    """Every configuration with a TLS server that a person made, by what is odd about it."""
    return {
        "two routes": person.config(answer("a", "a.test"), answer("rest")),
        "no field routes": person.config(routes=None),
        "an empty list of routes": person.config(),
        "our route, older": person.config(answer("a", "a.test"), DUPLICATE, answer("rest")),
        "our route twice": person.config(DUPLICATE, answer("a", "a.test"), DUPLICATE),
        "our route in another server": person.astray(),
        "our id in a route within a route": person.config(
            DUPLICATE, {"handle": [{"handler": "subroute", "routes": [DUPLICATE, answer("inner")]}]}
        ),
    }
