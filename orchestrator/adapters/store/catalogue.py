"""Artifacts and releases. Implements `ports.Catalogue`."""

from __future__ import annotations

from sqlalchemy import Connection, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import artifacts, release_artifacts, releases, sightings
from orchestrator.core.model import Artifact, Release
from orchestrator.errors import ConflictError, TrustError


class SqlCatalogue:
    """Artifacts and releases in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_artifact(self, artifact: Artifact, now: float) -> bool:
        """See `ports.Catalogue.add_artifact`."""
        if self.artifact(artifact.sha256) is not None:
            return False
        same = select(artifacts).where(
            artifacts.c.name == artifact.name,
            artifacts.c.component == artifact.component,
            artifacts.c.rel == artifact.rel,
        )
        for row in self._connection.execute(same):
            shared = sorted(set(rows.artifact(row).hardware) & set(artifact.hardware))
            if shared:
                raise TrustError(
                    f"{artifact.name} rel {artifact.rel} for {', '.join(shared)} is known with other bytes; "
                    "build it with a new release counter",
                    code="rel_reused",
                )
        self._connection.execute(plain_insert(artifacts), rows.artifact_values(artifact, now))
        return True

    def restate(self, artifact: Artifact) -> None:
        """See `ports.Catalogue.restate`."""
        found = {"signature": artifact.signature, "sha1": artifact.sha1, "md5": artifact.md5}
        found |= {"recognised": artifact.recognised, "remarks": rows.to_json(artifact.remarks)}
        said = {"statement": artifact.statement, "leaves": rows.to_json(artifact.leaves), **found}
        self._connection.execute(update(artifacts).where(artifacts.c.sha256 == artifact.sha256).values(said))

    def artifact(self, sha256: str) -> Artifact | None:
        """See `ports.Catalogue.artifact`."""
        row = self._connection.execute(select(artifacts).where(artifacts.c.sha256 == sha256)).one_or_none()
        return None if row is None else rows.artifact(row)

    def artifacts(self) -> list[Artifact]:
        """See `ports.Catalogue.artifacts`."""
        query = select(artifacts).order_by(artifacts.c.imported_at.desc(), artifacts.c.sha256)
        return [rows.artifact(row) for row in self._connection.execute(query)]

    def sight(self, uri: str, etag: str) -> bool:
        """See `ports.Catalogue.sight`."""
        statement = insert(self._connection, sightings).values(uri=uri, etag=etag).on_conflict_do_nothing()
        return bool(self._connection.execute(statement).rowcount)

    def sighted(self, uri: str, etag: str) -> bool:
        """See `ports.Catalogue.sighted`."""
        query = select(sightings.c.uri).where(sightings.c.uri == uri, sightings.c.etag == etag)
        return self._connection.execute(query).first() is not None

    def add_release(self, release: Release) -> None:
        """See `ports.Catalogue.add_release`."""
        values = {"name": release.name, "version": release.version, "rel": release.rel, "moves": release.moves}
        try:
            self._connection.execute(plain_insert(releases), values | {"created_at": release.created_at})
        except IntegrityError:
            raise ConflictError(f"a release named {release.name!r} exists; choose another name") from None
        parts = [{"release": release.name, "sha256": sha256} for sha256 in release.artifacts]
        self._connection.execute(plain_insert(release_artifacts), parts)

    def release(self, name: str) -> Release | None:
        """See `ports.Catalogue.release`."""
        row = self._connection.execute(select(releases).where(releases.c.name == name)).one_or_none()
        return None if row is None else rows.release(row, self._parts(name))

    def releases(self) -> list[Release]:
        """See `ports.Catalogue.releases`."""
        query = select(releases).order_by(releases.c.created_at.desc(), releases.c.name)
        return [rows.release(row, self._parts(row.name)) for row in self._connection.execute(query).all()]

    def _parts(self, name: str) -> tuple[str, ...]:
        query = select(release_artifacts.c.sha256).where(release_artifacts.c.release == name)
        return tuple(self._connection.scalars(query.order_by(release_artifacts.c.sha256)))
