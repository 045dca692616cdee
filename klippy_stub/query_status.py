"""Status through the API socket (klippy/webhooks.py, QueryStatusHelper).

`get_status` of every wanted object is called four times a second, under `assert_no_pause`;
subscribers get what has changed.
"""

from __future__ import annotations

from typing import Any, Callable

SUBSCRIPTION_REFRESH_TIME = 0.25

Subscription = dict[str, Any]


class QueryStatusHelper:
    """The endpoints objects/list, objects/query and objects/subscribe."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.reactor = printer.get_reactor()
        self.subscribers: dict[Any, tuple[Subscription, dict[str, Any]]] = {}
        self.pending: list[tuple[Subscription, Callable[[Any], None]]] = []
        self.query_timer: Any = None
        self.last_query: dict[str, dict[str, Any]] = {}
        webhooks = printer.lookup_object("webhooks")
        webhooks.register_endpoint("objects/list", self._handle_list)
        webhooks.register_endpoint("objects/query", self._handle_query)
        webhooks.register_endpoint("objects/subscribe", self._handle_subscribe)

    def _handle_list(self, web_request: Any) -> None:
        names = [n for n, o in self.printer.lookup_objects() if hasattr(o, "get_status")]
        web_request.send({"objects": names})

    def _status(self, name: str, eventtime: float, now: dict[str, dict[str, Any]]) -> Any:
        if name not in now:
            obj = self.printer.lookup_object(name, None)
            has_status = obj is not None and hasattr(obj, "get_status")
            now[name] = obj.get_status(eventtime) if has_status else {}
        return now[name]

    def _do_query(self, eventtime: float) -> float:
        last, now = self.last_query, {}  # type: dict[str, Any], dict[str, Any]
        self.last_query = now
        pending, self.pending = self.pending, []
        with self.reactor.assert_no_pause():
            for wanted, answer in pending:
                status = {}
                for name, items in wanted.items():
                    values = self._status(name, eventtime, now)
                    if items is None:
                        items = wanted[name] = list(values) or None
                    status[name] = {item: values.get(item) for item in items or ()}
                answer({"eventtime": eventtime, "status": status})
            for connection, (wanted, template) in list(self.subscribers.items()):
                if connection.is_closed():
                    del self.subscribers[connection]
                    continue
                changed: dict[str, Any] = {}
                for name, items in wanted.items():
                    values = self._status(name, eventtime, now)
                    if items is None:
                        items = wanted[name] = list(values) or None
                    old = last.get(name, {})
                    news = {i: values.get(i) for i in items or () if values.get(i) != old.get(i)}
                    if news:
                        changed[name] = news
                if changed:
                    params = {"eventtime": eventtime, "status": changed}
                    connection.send({**template, "params": params})
        if not now:
            self.reactor.unregister_timer(self.query_timer)
            self.query_timer = None
            return float(self.reactor.NEVER)
        return eventtime + SUBSCRIPTION_REFRESH_TIME

    def _handle_query(self, web_request: Any, is_subscribe: bool = False) -> None:
        objects = web_request.get_dict("objects")
        for items in objects.values():
            is_list = isinstance(items, list) and all(isinstance(i, str) for i in items)
            if items is not None and not is_list:
                raise web_request.error("Invalid argument")
        connection = web_request.get_client_connection()
        template = web_request.get_dict("response_template", {})
        if is_subscribe:
            self.subscribers.pop(connection, None)
        completion = self.reactor.completion()
        self.pending.append((objects, completion.complete))
        if self.query_timer is None:
            self.query_timer = self.reactor.register_timer(self._do_query, self.reactor.NOW)
        web_request.send(completion.wait())
        if is_subscribe:
            self.subscribers[connection] = (objects, template)

    def _handle_subscribe(self, web_request: Any) -> None:
        self._handle_query(web_request, is_subscribe=True)


def add_early_printer_objects(printer: Any) -> None:
    """Register the endpoints."""
    QueryStatusHelper(printer)
