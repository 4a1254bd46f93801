"""A real S3 protocol server on loopback, for the demo and the tests.

Rules:
- The server is moto in a process of its own: its memory, logs and patches stay out of ours.
- It takes a free port by itself and tells us, so that nobody can take the port in between.
- It ends when its standard input closes, so that it never outlives us, however we end.
- It keeps everything in memory and checks no signatures: never use it for anything but rehearsal.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

from orchestrator.errors import UnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION: Final = "us-east-1"
ACCESS_KEY_ID: Final = "rehearsal"
SECRET_ACCESS_KEY: Final = "rehearsal-secret"  # opens nothing: the server accepts any
_START_S: Final = 60
_STOP_S: Final = 10


@asynccontextmanager
async def bucket_server() -> AsyncIterator[str]:
    """Run the server; yields its endpoint, `http://127.0.0.1:port`, once it answers.

    Raises:
        UnavailableError: it could not be started; its own words are on standard error.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        endpoint = await _endpoint(process)
        await asyncio.to_thread(_client(endpoint).list_buckets)
        yield endpoint
    finally:
        await _stop(process)


async def create(endpoint: str, bucket: str, *, versioned: bool = True) -> None:
    """Create a bucket, by default one that keeps every version."""

    def work() -> None:
        s3 = _client(endpoint)
        s3.create_bucket(Bucket=bucket)
        if versioned:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    await asyncio.to_thread(work)


async def put(endpoint: str, bucket: str, key: str, data: bytes) -> None:
    """Upload one object."""
    await asyncio.to_thread(lambda: _client(endpoint).put_object(Bucket=bucket, Key=key, Body=data))


async def _endpoint(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
    except TimeoutError:
        line = b""
    if not line:
        raise UnavailableError("the S3 server did not start; install it with: pip install 'ota-orchestrator[demo]'")
    return line.decode().strip()


async def _stop(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@cache
def _client(endpoint: str) -> S3Client:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
    )


def main() -> None:
    """Serve until standard input closes; the first line on standard output is the endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
