"""The operator's page: what the gateway does now and what it answered lately."""
