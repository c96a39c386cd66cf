"""The audit trail: a durable, tamper-evident record of every prediction."""
