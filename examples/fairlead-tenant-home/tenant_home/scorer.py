"""Rendezvous hashing (Thaler and Ravishankar 1996) of tenants to model servers."""

from __future__ import annotations

from hashlib import blake2b

from fairlead.plugin import Candidates, InferenceRequest, Parameters


class TenantHomeParameters(Parameters, frozen=True):
    """`header` (lower-case) names the tenant."""

    header: str = "x-tenant"


class TenantHomeScorer:
    """The hash of tenant and server, as a fraction of the largest one: the highest is the tenant's home. 0 without a tenant."""

    Parameters = TenantHomeParameters
    parameters: TenantHomeParameters

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Aligned with the candidates."""
        tenant = request.headers.get(self.parameters.header)
        if not tenant:
            return [0.0] * len(candidates)
        return [weight(tenant, endpoint.host_port) for endpoint in candidates.endpoints]


def weight(tenant: str, host_port: str) -> float:
    """0 to 1, evenly distributed, the same in every process."""
    digest = blake2b(host_port.encode(), key=blake2b(tenant.encode(), digest_size=32).digest(), digest_size=8).digest()
    return int.from_bytes(digest) / (2**64 - 1)
