"""The address of an ECR registry: `<account>.dkr.ecr.<region>.amazonaws.com/<prefix>` and its kin. Pure.

The forms are those of docs.aws.amazon.com/general/latest/gr/ecr.html (plain, FIPS, dual-stack) and of the partitions
that botocore's `partitions.json` names (China, the European sovereign cloud).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FORM = "<account>.dkr.ecr.<region>.amazonaws.com/<prefix>"
_HOST = re.compile(
    r"(?P<account>\d{12})\."
    r"(?:dkr\.ecr(?P<fips>-fips)?\.(?P<region>[a-z]+(?:-[a-z]+)+-\d+)\.(?P<suffix>amazonaws\.com\.cn|amazonaws\.(?:com|eu))"
    r"|dkr-ecr(?P<dual_fips>-fips)?\.(?P<dual_region>[a-z]+(?:-[a-z]+)+-\d+)"
    r"\.(?P<dual_suffix>on\.aws|on\.amazonwebservices\.(?:com\.cn|eu)))"
)
_PARTITIONS = {".cn": ("aws-cn", "cn-"), ".eu": ("aws-eusc", "eusc-")}


@dataclass(frozen=True, kw_only=True)
class EcrUri:
    """Where an ECR registry is.

    Attributes:
        host: As it was written.
        account: The twelve digits of the registry's account.
        region: `eu-west-1`.
        partition: `aws`, `aws-cn`, `aws-us-gov` or `aws-eusc`.
        prefix: What a connection's repositories begin with; may be empty.
        fips, dual_stack: Which of AWS's endpoints belong to the host.
    """

    host: str
    account: str
    region: str
    partition: str = "aws"
    prefix: str = ""
    fips: bool = False
    dual_stack: bool = False

    @classmethod
    def parse(cls, uri: str) -> EcrUri:
        """Read a connection's `uri`.

        Raises:
            ValueError: It is no private ECR registry's; the message says what it looks like.
        """
        host, _, prefix = uri.rstrip("/").partition("/")
        found = _HOST.fullmatch(host)
        if found is None:
            if host in ("public.ecr.aws", "ecr-public.aws.com"):
                raise ValueError(f"{host} is the public ECR; make it a connection of type docker")
            raise ValueError(f"{host!r} is no ECR registry; write {FORM}")
        region = found["region"] or found["dual_region"]
        suffix = found["suffix"] or found["dual_suffix"]
        partition, mark = _PARTITIONS.get(suffix[-3:], ("aws", ""))
        strange = next((it for it in ("cn-", "eusc-") if region.startswith(it) and it != mark), "")
        if not region.startswith(mark) or strange:
            raise ValueError(f"there is no region {region} at {suffix}")
        return cls(
            host=host,
            account=found["account"],
            region=region,
            partition="aws-us-gov" if region.startswith("us-gov-") else partition,
            prefix=prefix,
            fips=bool(found["fips"] or found["dual_fips"]),
            dual_stack=found["dual_suffix"] is not None,
        )

    def arn(self, repository: str) -> str:
        """Return the name that IAM policies call a repository by."""
        return f"arn:{self.partition}:ecr:{self.region}:{self.account}:repository/{repository}"

    def serves(self, other_host: str) -> bool:
        """Tell whether a host is another address of the same registry, or the same one."""
        try:
            other = EcrUri.parse(other_host)
        except ValueError:
            return False
        return (other.account, other.region) == (self.account, self.region)
