"""What rules say about several processors at once: which share a place, and which must not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from antiphon_actors.placement.places import PlacedProcessor
from antiphon_actors.placement.policy import Placement, Rule, matches, name_of


def join_neighbours(
    processors: Sequence[PlacedProcessor], placement: Placement, problems: list[str]
) -> list[PlacedProcessor]:
    """Gives processors with a rule `with_previous` the place of the one before them.

    The actor of such a group reserves what all of them ask for.

    Args:
        processors: All, in pipeline order.
        placement: The rules.
        problems: Gets a line for each contradiction.
    """
    placed = list(processors)
    by_object = {id(each.processor): each.pid for each in processors}
    for number, each in enumerate(placed):
        rule = placement.rule_for(each.processor)
        if rule is None or not rule.with_previous or each.structural:
            continue
        before = each.processor._prev
        pid = by_object.get(id(before)) if before is not None else None
        if pid is None or placed[pid].structural:
            problems.append(
                f"{each.processor.name} has no processor directly before it to run with"
            )
        elif each.where == "home":
            pass  # it cannot be built elsewhere, and its reason says so
        elif placed[pid].where == "home":
            name = placed[pid].processor.name
            why = f"a rule for {name_of(rule.match)} has it run with {name}, which stays here"
            placed[number] = replace(
                each, where="home", why=why, resources={}, labels={}, blueprint=b""
            )
        else:
            _join(placed, placed[pid].leader, number, rule, problems)
    return placed


def _join(
    placed: list[PlacedProcessor], leader: int, number: int, rule: Rule, problems: list[str]
) -> None:
    head, each = placed[leader], placed[number]
    name = each.processor.name
    if (rule.place or rule.pool) and (each.where, each.kind if rule.pool else head.kind) != (
        head.where,
        head.kind,
    ):
        problems.append(
            f"{name} is to run with {head.processor.name}, and at a place of its own ({each.place})"
        )
        return
    for key, value in each.labels.items():
        if head.labels.get(key, value) != value:
            problems.append(
                f"{name} is to run with {head.processor.name}, and their nodes need different labels "
                f"{key}"
            )
            return
    resources = dict(head.resources)
    for resource, amount in each.resources.items():
        resources[resource] = resources.get(resource, 0) + amount
    kind = head.kind if head.kind.startswith("pool ") else f"{head.kind}+{each.kind}"
    labels: Mapping[str, str] = {**head.labels, **each.labels}
    why = f"a rule for {name_of(rule.match)} has it run with {head.processor.name}"
    placed[number] = replace(each, where=head.where, why=why, leader=leader)
    for other, member in enumerate(placed):
        if member.leader == leader:
            placed[other] = replace(member, kind=kind, resources=resources, labels=labels)


def keep_apart(
    processors: Sequence[PlacedProcessor], placement: Placement, problems: list[str]
) -> list[PlacedProcessor]:
    """Gives places that rules keep apart kinds of their own where they might share an actor.

    Args:
        processors: All, in pipeline order.
        placement: The rules.
        problems: Gets a line for each contradiction.
    """
    rules = {each.pid: placement.rule_for(each.processor) for each in processors}

    def apart(one: PlacedProcessor, other: PlacedProcessor) -> bool:
        rule = rules[one.pid]
        return rule is not None and any(matches(match, other.processor) for match in rule.apart)

    workers = [each for each in processors if not each.structural]
    enemies: dict[int, set[int]] = {}
    for one in workers:
        for other in workers:
            if one is other or not apart(one, other):
                continue
            if one.where == other.where == "home" or one.leader == other.leader:
                line = f"{one.processor.name} is to be apart from {other.processor.name}"
                where = "the bot's process" if one.where == "home" else "one place by a rule"
                problems.append(f"{line}, and both are in {where}")
                continue
            enemies.setdefault(one.leader, set()).add(other.leader)
            enemies.setdefault(other.leader, set()).add(one.leader)
    kinds: dict[int, str] = {}
    for each in processors:
        if each.where != "pooled" or each.leader != each.pid:
            continue
        taken = {kinds.get(enemy) for enemy in enemies.get(each.pid, ())}
        kind, number = each.kind, 1
        while kind in taken:
            number += 1
            kind = f"{each.kind} #{number}"
        kinds[each.pid] = kind
    return [replace(each, kind=kinds.get(each.leader, each.kind)) for each in processors]
