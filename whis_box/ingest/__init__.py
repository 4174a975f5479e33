"""Reading and cleaning what comes in: alerts, documents and their provenance."""
