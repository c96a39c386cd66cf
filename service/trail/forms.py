"""How the records of each model look, and each policy: made once, and kept."""

from dataclasses import asdict

from service.policy import Policy
from service.runtime import Execution
from service.served import ServedModel
from service.trail.canonical import dumps
from service.trail.inputs import Kept
from service.trail.record import Form

POLICIES = 256  # texts that are kept; callers may ask for any percentiles


class CachedForms:
    """The forms of the records of every model, made once each."""

    def __init__(self, kept: Kept, execution: Execution) -> None:
        """Know no model yet."""
        self._kept = kept
        self._execution = execution
        self._forms: dict[tuple[str, int, str], Form] = {}
        self._policies: dict[tuple[str, Policy], bytes] = {}

    def of_model(self, model: ServedModel) -> Form:
        """The form of its records."""
        key = (model.manifest.name, model.manifest.version, model.digest)
        if key not in self._forms:
            self._forms[key] = Form(model.manifest, model.digest, self._execution, self._kept)
        return self._forms[key]

    def policy(self, model: ServedModel, policy: Policy | None) -> bytes:
        """A policy, the deployment's where it is None, with the thresholds that it means for this model."""
        chosen = policy or model.policy
        key = (model.digest, chosen)
        text = self._policies.get(key)
        if text is None:
            text = dumps(
                {
                    **asdict(chosen),
                    "critical_above": model.judge.norm_at(chosen.critical_percentile),
                    "elevated_above": model.judge.norm_at(chosen.elevated_percentile),
                }
            )
            if len(self._policies) < POLICIES:
                self._policies[key] = text
        return text
