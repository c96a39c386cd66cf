"""The page of a folder of evidence."""

from service.audit.evidence.collect import Collected
from service.audit.evidence.requirements import requirements
from service.audit.page.render import moment, render
from service.audit.verification import TRUST
from service.version import VERSION

PROBLEMS_SHOWN = 10


def evidence_page(collected: Collected) -> str:
    """`index.html`."""
    names = sorted({model.served.model for model in collected.models})
    return render(
        "evidence.html",
        made=collected.made,
        software=VERSION,
        names=names,
        period=period(collected),
        whole=collected.verification.ok,
        verification=collected.verification,
        problems=[str(problem) for problem in collected.verification.problems[:PROBLEMS_SHOWN]],
        unsigned=unsigned(collected),
        trust=TRUST[collected.verification.trust.value],
        checkpoints=collected.checkpoints.checkpoints,
        tombstones=collected.tombstones,
        keys=sorted(key.id for key in collected.checkpoints.keys),
        summary=collected.summary,
        span=collected.span,
        models=collected.models,
        audits=collected.audits,
        requirements=requirements(),
    )


def unsigned(collected: Collected) -> int:
    """How many records follow the last signed checkpoint of their chain."""
    signed = {one.writer: one.position for one in collected.checkpoints.checkpoints}
    chains = (chain for chain in collected.verification.chains if chain.last >= chain.first)
    return sum(max(0, chain.last - max(chain.first - 1, signed.get(chain.writer, 0))) for chain in chains)


def period(collected: Collected) -> str:
    """In words."""
    since, until = (None if end is None else moment(end) for end in (collected.summary.since, collected.summary.until))
    match since, until:
        case None, None:
            return "All time"
        case None, _:
            return f"Before {until}"
        case _, None:
            return f"From {since} on"
    return f"From {since} to before {until}"
