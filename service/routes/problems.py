"""`GET /problems/{slug}`: what the `type` of a problem means, and what to do about it."""

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from service.problems import problem_responses, problem_types

router = APIRouter(prefix="/problems", tags=["Problems"])


class ProblemPage(BaseModel):
    """A kind of error."""

    type: str
    status: int
    title: str
    explanation: str


@router.get("/{slug}", summary="What a problem type means", responses=problem_responses(404, 422))
async def problem(slug: str) -> ProblemPage:
    """Explain one problem type."""
    for kind in problem_types():
        if kind.slug == slug:
            return ProblemPage(
                type=f"/problems/{slug}", status=kind.status, title=kind.title, explanation=kind.explanation
            )
    raise HTTPException(404)
