"""Who waits for whom, as a graph: an order in which everybody comes after those it waits for, or circles."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

Graph = Mapping[str, Sequence[str]]  # by name, whom it waits for; all of them are names of the graph


def in_order(graph: Graph) -> list[str]:
    """The names, each after those it waits for, otherwise in the graph's order. Who waits in a circle, or for
    somebody who does, is left out.
    """
    waiting = {name: len(set(others)) for name, others in graph.items()}
    awaited: dict[str, list[str]] = {}
    for name, others in graph.items():
        for other in dict.fromkeys(others):
            awaited.setdefault(other, []).append(name)
    free = deque(name for name, count in waiting.items() if not count)
    order = []
    while free:
        name = free.popleft()
        order.append(name)
        for other in awaited.get(name, ()):
            waiting[other] -= 1
            if not waiting[other]:
                free.append(other)
    return order


def circles(graph: Graph) -> list[list[str]]:
    """Those who wait for one another in a circle: each waits for the next, the last for the first. Every
    circle begins with its first name of the graph; of those that share names, one is told.
    """
    place = {name: number for number, name in enumerate(graph)}
    ordered = set(in_order(graph))
    seen: set[str] = set()
    found = []
    for start in graph:
        way: dict[str, int] = {}
        name = start
        while name not in ordered and name not in seen:
            seen.add(name)
            way[name] = len(way)
            name = next(other for other in graph[name] if other not in ordered)
        if name in way:
            circle = list(way)[way[name] :]
            first = circle.index(min(circle, key=place.__getitem__))
            found.append(circle[first:] + circle[:first])
    return found
