"""An example for every verb, shown at the end of its help and in the manual."""

from __future__ import annotations

from collections.abc import Iterator

import click

EXAMPLES = {
    "approvals": "ota approvals",
    "approve": 'ota approve 12 --reason "looked at in the lab"',
    "artifact import": "ota artifact import s3://releases/stable/door-2.bin",
    "artifact inspect": "ota artifact inspect door-2.bin",
    "artifact list": "ota artifact list -o json",
    "artifact show": "ota artifact show 47DEQpj8",
    "artifact sign": "ota artifact sign door-2.bin --key artifact.pem --name door --version 2.0.0 --rel 2 --hw esp32",
    "artifact verify": "ota artifact verify door-2.bin --keys device-keys.json",
    "audit export": "ota audit export audit.jsonl",
    "audit list": "ota audit list --after 1000",
    "audit verify": "ota audit verify --checkpoints checkpoints --key checkpoint.pub.pem",
    "backup": "ota backup /var/backups/ota-2026-11-21.tar",
    "broker dynsec": "ota broker dynsec --credentials logins.jsonl --out dynamic-security.json",
    "check-config": "ota check-config --config config.yaml --print-effective",
    "completion": "ota completion bash > /etc/bash_completion.d/ota",
    "device add": "ota device add d1 d2 --model esp32 --group lab --credentials devices.jsonl",
    "device explain": "ota device explain d1",
    "device get": "ota device get d1 -o yaml",
    "device import": "ota device import facts.csv",
    "device list": "ota device list --select 'site like \"berlin-*\"' --limit 20",
    "device quarantine": 'ota device quarantine d7 d9 --reason "water damage"',
    "device release": 'ota device release d7 --reason "new board"',
    "device set": "ota device set d1 d2 --site berlin-2 --tag canary",
    "doctor": "ota doctor --config /etc/ota-orchestrator/config.yaml",
    "doctor broker": "ota doctor broker --broker mqtts://broker.example --credentials logins --device t1 --other t2",
    "endpoints make": "ota endpoints make --deployment my-fleet --mqtt mqtts://new.example:8883 --out endpoints.json",
    "endpoints show": "ota endpoints show endpoints.json --deployment my-fleet",
    "fleet endpoints": "ota fleet endpoints",
    "fleet exposed": "ota fleet exposed --advisory CVE-2026-1234 --export csv",
    "keys check": "ota keys check keyset-2.json",
    "keys export": "ota keys export --format c --file ota_keys.h",
    "keys init": "ota keys init --dir keys --deployment my-fleet",
    "keys list": "ota keys list --keys device-keys.json",
    "keys make": "ota keys make next-trigger.pem",
    "keys propose": "ota keys propose --add trigger=next-trigger.pem --keys device-keys.json",
    "keys revoke": "ota keys revoke k4 --root root-1.pem --root root-2.pem --keys device-keys.json",
    "keys rotate": "ota keys rotate --role trigger --root root-1.pem --root root-2.pem --keys device-keys.json",
    "keys sign": "ota keys sign keyset-2.json --root root-1.pem",
    "keys submit": 'ota keys submit keyset-2.jws --reason "yearly change"',
    "keys take": "ota keys take keyset-2.jws",
    "openapi": "ota openapi > openapi.json",
    "operator add": "ota operator add anna --person anna@example.com --role operator --token-out anna.token",
    "operator list": "ota operator list",
    "operator remove": 'ota operator remove anna --reason "left the team"',
    "operator revoke": "ota operator revoke 3f9a",
    "operator token": "ota operator token anna --days 30 --token-out anna.token",
    "reject": 'ota reject 12 --reason "not before the weekend"',
    "release create": "ota release create door-2 --artifact SHA256",
    "release list": "ota release list",
    "restore": "ota restore /var/backups/ota-2026-11-21.tar",
    "review": 'ota review 3 --reason "it was right to break the glass"',
    "rollout abort": 'ota rollout abort spring --reason "withdrawn" --yes',
    "rollout advance": 'ota rollout advance spring --reason "the lab saw what it wanted"',
    "rollout create": "ota rollout create -f plan.yaml --dry-run",
    "rollout curve": "ota rollout curve spring -o csv",
    "rollout edit": 'ota rollout edit spring -f plan.yaml --reason "slower over the holidays"',
    "rollout explain": "ota rollout explain spring",
    "rollout get": "ota rollout get spring --watch",
    "rollout halt": 'ota rollout halt spring --reason "smoke in Berlin"',
    "rollout history": "ota rollout history spring",
    "rollout list": "ota rollout list --watch",
    "rollout pause": 'ota rollout pause spring --reason "the help desk is full"',
    "rollout preview": "ota rollout preview spring",
    "rollout rehearse": "ota rollout rehearse -f plan.yaml --devices 10000 --bad-share 2%",
    "rollout resume": "ota rollout resume spring",
    "rollout retry": 'ota rollout retry spring --reason "the antenna was changed"',
    "rollout rollback": 'ota rollout rollback spring --reason "it loses packets"',
    "rollout schema": "ota rollout schema > plan.schema.json",
    "rollout skip": 'ota rollout skip spring --reason "that site is closed"',
    "rollout start": "ota rollout start spring --wait",
    "rollout template": "ota rollout template --list",
    "rollout validate": "ota rollout validate plan.yaml",
    "rollout watch": "ota rollout watch spring --timeout 2h",
    "serve": "ota serve --config /etc/ota-orchestrator/config.yaml",
    "simulate": "ota simulate --keys device-keys.json --credentials devices.jsonl --broker mqtt://127.0.0.1:1883",
    "status": "ota status --watch",
    "warrant draft": "ota warrant draft spring > warrant.json",
    "warrant sign": "ota warrant sign warrant.json --key cosign.pem",
    "warrant submit": "ota warrant submit spring warrant.jws",
    "webhook add": "ota webhook add https://hooks.example/ota --secret-out hook.secret",
    "webhook catalogue": "ota webhook catalogue",
    "webhook list": "ota webhook list",
    "webhook remove": "ota webhook remove 3",
    "webhook resume": "ota webhook resume 3",
    "webhook rotate": "ota webhook rotate 3 --secret-out hook.secret",
    "webhook test": "ota webhook test 3",
}


def verbs(root: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something by itself, with its words, in order."""
    if not isinstance(root, click.Group):
        return
    for name, command in sorted(root.commands.items()):
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command
        for words, below in verbs(command):
            yield f"{name} {words}", below


def attach(root: click.Command) -> None:
    """Give the help of each verb its example."""
    for words, command in verbs(root):
        if example := EXAMPLES.get(words):
            command.epilog = f"\b\nExample:\n  {example}"
